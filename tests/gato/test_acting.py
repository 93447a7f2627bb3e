"""Acting with a cache equals acting without one, over many contexts, resets and prompts."""

import numpy as np
import pytest
import torch

from gato.acting import ActingConfig, Policy
from gato.model import Gato, TensorBatch
from gato.sequence import RowWriter, StepLayout, Window
from gato.task import Task
from gato.transformer import distance_encoding
from tests.gato.models import GAME, ROBOT, random_observations, small_model


@torch.inference_mode()
def reference_logits(model: Gato, task: Task, history: Window, prompt_steps: int, window_steps: int) -> np.ndarray:
    """Logits [A, V] of the last step's action tokens, by one pass over the whole history without a cache."""
    steps = StepLayout(task, model.config.layout)
    num_steps, S = len(history.actions), steps.tokens_per_step
    ids = torch.from_numpy(steps.step_ids(history.observations, history.actions)).long().view(1, -1)
    place = torch.from_numpy(np.tile(steps.place_S, num_steps)).long()[None]
    patches = (
        steps.patches(history.observations).reshape(-1, 16, 16, 3)
        if steps.num_patches
        else np.zeros((0, 16, 16, 3), np.uint8)
    )
    m = steps.num_patches
    patch_at = (torch.arange(num_steps)[:, None] * S + torch.arange(m)).reshape(-1)
    x = model.embedding(
        ids, place, torch.from_numpy(patches), patch_at,
        torch.from_numpy(steps.intervals_m4).long().repeat(num_steps, 1),
        torch.from_numpy(steps.leaders_m2).long().repeat(num_steps, 1),
    )  # fmt: skip
    # The same blocks with an explicit mask: causal, and never further back than the window in whole steps.
    L = ids.shape[1]
    step = torch.arange(L) // S
    visible = torch.ones(L, L).tril().bool() & (step[:, None] - step[None, :] < window_steps)
    mask = torch.zeros(1, L, L).masked_fill(~visible, -torch.inf)
    encoding = distance_encoding(L, model.config.width, torch.device("cpu"))
    for block in model.transformer.blocks:
        x = block(x, encoding, mask)
    hidden = model.transformer.norm(x)[0]
    A = steps.num_action_tokens
    low, high = model.config.layout.ids_of(task.action)
    return model.logits(hidden[L - A - 1 : L - 1], low, high).detach().numpy()


class Recorder(Policy):
    """A policy that keeps the logits it chose from."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.seen: list[np.ndarray] = []

    def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(logits.numpy())
        return super()._choose(logits)


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
@pytest.mark.parametrize("window_steps", [1, 3])
@pytest.mark.parametrize("prompt_steps", [0, 2])
def test_acting_with_a_cache_equals_acting_without(task: Task, window_steps: int, prompt_steps: int) -> None:
    rng = np.random.default_rng(1)
    steps = StepLayout(task, small_model(64).config.layout)
    model = small_model(context_tokens=3 * steps.tokens_per_step)
    prompt = None
    if prompt_steps:
        actions = np.zeros((prompt_steps, *task.action.shape), task.action.dtype)
        prompt = Window(observations=random_observations(task, prompt_steps, rng), actions=actions)
    policy = Recorder(model, task, ActingConfig(window_steps=window_steps))
    state = policy.start(2, prompt)
    used = min(prompt_steps, window_steps - 1)
    histories: list[list[tuple[dict[str, np.ndarray], np.ndarray]]] = [[], []]
    for t in range(11):
        if t in (4, 9):  # row 1 begins again while row 0 goes on
            state.reset(np.array([False, True]))
            histories[1] = []
        observations = random_observations(task, 2, rng)
        policy.seen.clear()
        actions = policy.act(state, observations)
        logits = np.stack(policy.seen, axis=1)  # [N, A, V]
        for row in range(2):
            histories[row].append(({k: v[row] for k, v in observations.items()}, actions[row]))
            past = {k: np.stack([o[k] for o, _ in histories[row]]) for k in observations}
            done = np.stack([a for _, a in histories[row]])
            if prompt and used:
                past = {k: np.concatenate([prompt.observations[k][-used:], v]) for k, v in past.items()}
                done = np.concatenate([prompt.actions[-used:], done])
            expected = reference_logits(model, task, Window(observations=past, actions=done), used, window_steps)
            np.testing.assert_allclose(logits[row], expected, atol=1e-4)


def test_actions_stay_inside_the_task() -> None:
    model = small_model(64)
    for task, config in [(ROBOT, ActingConfig(continuous="sample")), (GAME, ActingConfig(discrete="sample"))]:
        policy = Policy(model, task, config, generator=torch.Generator().manual_seed(0))
        state = policy.start(8)
        actions = policy.act(state, random_observations(task, 8, np.random.default_rng(0)))
        assert task.action.problem_with(actions, "action") is None
        if task.action.low is not None and task.action.high is not None:
            assert task.action.low <= actions.min() <= actions.max() <= task.action.high


def test_a_whole_context_window_matches_the_training_forward() -> None:
    """What acting sees in a first step is what training saw: packed rows, segments and all."""
    rng = np.random.default_rng(2)
    model = small_model(64)
    steps = StepLayout(ROBOT, model.config.layout)
    observations = random_observations(ROBOT, 2, rng)
    policy = Recorder(model, ROBOT, ActingConfig(window_steps=1, continuous="argmax"))
    actions = policy.act(policy.start(2), observations)
    writer = RowWriter(num_rows=1, row_tokens=2 * steps.tokens_per_step + 3)
    windows = [
        Window(observations={"state": observations["state"][i : i + 1]}, actions=actions[i : i + 1]) for i in (0, 1)
    ]
    writer.write_row(0, task_index=0, steps=steps, windows=windows)
    batch = TensorBatch.of(writer.batch())
    with torch.inference_mode():
        hidden = model(batch)[0]
    low, high = model.config.layout.ids_of(ROBOT.action)
    where = batch.is_target[0].nonzero()[:, 0] - 1
    expected = model.logits(hidden[where], low, high).detach().numpy().reshape(2, 3, -1)
    np.testing.assert_allclose(np.stack(policy.seen, axis=1), expected, atol=1e-4)


def test_a_state_refuses_another_number_of_environments() -> None:
    policy = Policy(small_model(64), ROBOT, ActingConfig())
    state = policy.start(2)
    with pytest.raises(ValueError, match="shape"):
        policy.act(state, random_observations(ROBOT, 3, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="2 environments"):
        state.reset(np.array([True]))


def test_an_observation_outside_its_spec_is_refused() -> None:
    policy = Policy(small_model(64), GAME, ActingConfig())
    good = random_observations(GAME, 2, np.random.default_rng(0))
    for key, values, message in [
        ("lives", np.array([0, 5]), r"'lives' of test/game has values outside 0..4: 5 at step 1"),
        ("image", good["image"].astype(np.float32), "dtype float32, expected uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            policy.act(policy.start(2), {**good, key: values})
    state = Policy(small_model(64), ROBOT, ActingConfig()).start(1)
    with pytest.raises(ValueError, match="not finite"):
        Policy(small_model(64), ROBOT, ActingConfig()).act(state, {"state": np.full((1, 5), np.nan, np.float32)})
