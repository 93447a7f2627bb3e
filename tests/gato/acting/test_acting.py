"""Acting with a cache equals acting without one, over many contexts, resets and prompts."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.network.model import Gato, TensorBatch
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import Task
from tests.gato.models import GAME, ROBOT, random_observations, small_model


@torch.inference_mode()
def reference_logits(
    model: Gato, task: Task, history: Window, prompt_steps: int, window_steps: int
) -> np.ndarray:
    """Logits [A, V] of the last step's action tokens, by one pass over the whole history without a
    cache."""
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
    # The same blocks with an explicit mask: causal, and never further back than the window in whole
    # steps.
    L = ids.shape[1]
    step = torch.arange(L) // S
    visible = torch.ones(L, L).tril().bool() & (step[:, None] - step[None, :] < window_steps)
    mask = torch.zeros(1, L, L).masked_fill(~visible, -torch.inf)
    encoding = model.transformer.encoding(L, torch.device("cpu"))
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


def in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """No steps in NumPy."""
    monkeypatch.setattr("gato.network.transformer.MOST_PARAMETERS", 0)


def some_prompt(task: Task, prompt_steps: int, rng: np.random.Generator) -> Window:
    actions = np.zeros((prompt_steps, *task.action.shape), task.action.dtype)
    return Window(observations=random_observations(task, prompt_steps, rng), actions=actions)


@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
@pytest.mark.parametrize("window_steps", [1, 3])
@pytest.mark.parametrize("prompt_steps", [0, 2, 5])
@pytest.mark.parametrize("positions", ["transformer-xl", "rotary"])
@pytest.mark.parametrize("scores_at_once", [1 << 18, 1])
def test_acting_with_a_cache_equals_acting_without(
    task: Task,
    window_steps: int,
    prompt_steps: int,
    positions: str,
    scores_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over three contexts and more, with rows that begin again at different times; in NumPy where
    it can be, and in PyTorch with heads one by one."""
    monkeypatch.setattr("gato.network.kv_cache.SCORES_AT_ONCE", scores_at_once)
    if scores_at_once == 1:
        in_pytorch(monkeypatch)
    rng = np.random.default_rng(1)
    steps = StepLayout(task, small_model(64).config.layout)
    model = small_model(context_tokens=3 * steps.tokens_per_step, positions=positions)
    prompt = some_prompt(task, prompt_steps, rng) if prompt_steps else None
    policy = Recorder(model, task, ActingConfig(window_steps=window_steps))
    num_rows, resets = 3, {4: [1], 5: [2], 8: [1, 2]}
    state = policy.start(num_rows, prompt)
    used = min(prompt_steps, window_steps - 1)
    histories: list[list[tuple[dict[str, np.ndarray], np.ndarray]]] = [[] for _ in range(num_rows)]
    for t in range(3 * 3 + 3):
        if t in resets:  # while row 0 goes on
            state.reset(np.isin(np.arange(num_rows), resets[t]))
            for row in resets[t]:
                histories[row] = []
        observations = random_observations(task, num_rows, rng)
        policy.seen.clear()
        actions = policy.act(state, observations)
        logits = np.stack(policy.seen, axis=1)  # [N, A, V]
        for row in range(num_rows):
            histories[row].append(({k: v[row] for k, v in observations.items()}, actions[row]))
            past = {k: np.stack([o[k] for o, _ in histories[row]]) for k in observations}
            done = np.stack([a for _, a in histories[row]])
            if prompt and used:
                past = {
                    k: np.concatenate([prompt.observations[k][-used:], v]) for k, v in past.items()
                }
                done = np.concatenate([prompt.actions[-used:], done])
            expected = reference_logits(
                model, task, Window(observations=past, actions=done), used, window_steps
            )
            np.testing.assert_allclose(logits[row], expected, atol=1e-4)


@pytest.mark.parametrize("prompt_steps", [0, 2])
def test_a_reset_changes_no_other_row(prompt_steps: int) -> None:
    rng = np.random.default_rng(1)
    prompt = some_prompt(ROBOT, prompt_steps, rng) if prompt_steps else None
    shown = [random_observations(ROBOT, 3, rng) for _ in range(8)]

    def logits(reset_at: int | None) -> np.ndarray:
        policy = Recorder(small_model(32), ROBOT, ActingConfig())
        state = policy.start(3, prompt)
        for t, observations in enumerate(shown):
            if t == reset_at:
                state.reset(np.array([False, True, False]))
            policy.act(state, observations)
        return np.stack(policy.seen)  # [steps x A, N, V]

    undisturbed, disturbed = logits(None), logits(5)
    # While a row sees the prompt, PyTorch computes the step of all, which rounds differently.
    np.testing.assert_allclose(disturbed[:, [0, 2]], undisturbed[:, [0, 2]], atol=1e-5)
    assert np.abs(disturbed[5 * 3 :, 1] - undisturbed[5 * 3 :, 1]).max() > 1e-2


def test_all_rows_reset_are_a_new_state_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    shown = [random_observations(ROBOT, 2, rng) for _ in range(5)]
    policy = Recorder(small_model(32), ROBOT, ActingConfig())
    state = policy.start(2, some_prompt(ROBOT, 1, rng))
    for _ in range(2):
        state.reset(np.array([True, True]))
        for observations in shown:
            policy.act(state, observations)
    first, second = np.split(np.stack(policy.seen), 2)
    np.testing.assert_array_equal(first, second)


class Passes:
    """Shapes [N, S, D] of what has gone through the first block."""

    def __init__(self, model: Gato) -> None:
        self.shapes: list[tuple[int, ...]] = []
        first = next(
            module for name, module in model.named_modules() if name.endswith("attention.qkv")
        )
        first.register_forward_pre_hook(
            lambda _, inputs: self.shapes.append(tuple(inputs[0].shape))
        )


def test_a_step_takes_a_forward_pass_for_each_action_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_pytorch(monkeypatch)
    model = small_model(64)
    passes = Passes(model)
    policy = Policy(model, ROBOT, ActingConfig())
    state = policy.start(4)
    for _ in range(3):
        passes.shapes.clear()
        policy.act(state, random_observations(ROBOT, 4, np.random.default_rng(0)))
        # The last action token, five values and the separator; then two of three action tokens.
        assert passes.shapes == [(4, 7, 32), (4, 1, 32), (4, 1, 32)]


def test_a_prompt_is_encoded_once_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pytorch(monkeypatch)
    rng = np.random.default_rng(0)
    model = small_model(64)
    passes = Passes(model)
    policy = Policy(model, ROBOT, ActingConfig())
    state = policy.start(16, some_prompt(ROBOT, 4, rng))
    assert passes.shapes == [(1, 4 * 9, 32)]
    for row in range(3):
        state.reset(np.arange(16) == row)
        policy.act(state, random_observations(ROBOT, 16, rng))
    assert sum(shape[1] >= 4 * 9 for shape in passes.shapes) == 1
    for cache in state.caches:
        assert cache.prompt_keys is not None
        assert cache.prompt_keys.shape == (2, 4 * 9, 16)


class Work(TorchDispatchMode):
    """Operations and the shapes of what they make, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.done.append((str(func), tuple(out.shape)))
        return out

    @property
    def elements(self) -> int:
        return sum(int(np.prod(shape)) for _, shape in self.done)


@pytest.mark.parametrize("prompt_steps", [0, 3])
def test_the_work_of_a_step_does_not_grow_with_the_episode(
    prompt_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pytorch(monkeypatch)
    rng = np.random.default_rng(0)
    policy = Policy(small_model(64), ROBOT, ActingConfig(window_steps=3))
    state = policy.start(2, some_prompt(ROBOT, prompt_steps, rng) if prompt_steps else None)
    steps: list[Work] = []
    for _ in range(12):
        with Work() as work:
            policy.act(state, random_observations(ROBOT, 2, rng))
        steps.append(work)
    assert any("bmm" in name for name, _ in steps[0].done)
    if prompt_steps:  # the prompt costs, for as long as it may be seen
        assert steps[0].done == steps[2].done
        assert steps[0].elements > steps[3].elements
        steps = steps[3:]
    assert all(work.done == steps[0].done for work in steps)


def test_actions_stay_inside_the_task() -> None:
    model = small_model(64)
    for task, config in [
        (ROBOT, ActingConfig(continuous="sample")),
        (GAME, ActingConfig(discrete="sample")),
    ]:
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
        Window(observations={"state": observations["state"][i : i + 1]}, actions=actions[i : i + 1])
        for i in (0, 1)
    ]
    writer.write_row(0, task_index=0, steps=steps, windows=windows)
    batch = TensorBatch.of(writer.batch())
    with torch.inference_mode():
        hidden = model(batch)[0]
    low, high = model.config.layout.ids_of(ROBOT.action)
    where = batch.is_target[0].nonzero()[:, 0] - 1
    expected = model.logits(hidden[where], low, high).detach().numpy().reshape(2, 3, -1)
    np.testing.assert_allclose(np.stack(policy.seen, axis=1), expected, atol=1e-4)


GOOD_IMAGE = np.zeros((2, 32, 48, 3), np.uint8)
BAD_OBSERVATIONS = [
    ({"image": GOOD_IMAGE}, "'lives' is missing, got image; test/game shows image, lives"),
    (
        {"image": GOOD_IMAGE[:1], "lives": np.zeros(2, np.int64)},
        "has 1 rows, expected 2; a state serves",
    ),
    ({"image": GOOD_IMAGE[:, 1:], "lives": np.zeros(2, np.int64)}, "'image' has shape .* expected"),
    (
        {"image": GOOD_IMAGE.astype(np.float32), "lives": np.zeros(2, np.int64)},
        "dtype float32, expected uint8",
    ),
    (
        {"image": GOOD_IMAGE, "lives": np.array([0, 5])},
        "'lives' has values outside 0..4: 5 at step 1; fix",
    ),
    (
        {"image": GOOD_IMAGE, "lives": np.array([-1, 0])},
        "'lives' has values outside 0..4: -1 at step 0; fix",
    ),
]


@pytest.mark.parametrize(
    ("observations", "message"),
    BAD_OBSERVATIONS,
    ids=[message[:20] for _, message in BAD_OBSERVATIONS],
)
def test_observations_outside_their_spec_are_refused(
    observations: dict[str, np.ndarray], message: str
) -> None:
    policy = Policy(small_model(64), GAME, ActingConfig())
    with pytest.raises(ValueError, match=message):
        policy.act(policy.start(2), observations)


def test_a_value_that_is_not_finite_is_refused() -> None:
    policy = Policy(small_model(64), ROBOT, ActingConfig())
    state = policy.start(2)
    observations = random_observations(ROBOT, 2, np.random.default_rng(0))
    observations["state"][1, 3] = np.nan
    with pytest.raises(ValueError, match="'state' is not finite"):
        policy.act(state, observations)
    # the state is as it was
    policy.act(state, random_observations(ROBOT, 2, np.random.default_rng(0)))


def test_a_prompt_of_another_task_is_refused() -> None:
    policy = Policy(small_model(64), ROBOT, ActingConfig())
    prompt = some_prompt(ROBOT, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="'state' is missing"):
        policy.start(2, some_prompt(GAME, 2, np.random.default_rng(0)))
    with pytest.raises(
        ValueError, match=r"action .* expected .*; prompt test/robot with steps of its own"
    ):
        policy.start(2, Window(observations=prompt.observations, actions=prompt.actions[:, :2]))


def test_a_state_refuses_another_number_of_environments() -> None:
    policy = Policy(small_model(64), ROBOT, ActingConfig())
    state = policy.start(2)
    with pytest.raises(ValueError, match="3 rows, expected 2; a state serves"):
        policy.act(state, random_observations(ROBOT, 3, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="2 environments; give one bool for each"):
        state.reset(np.array([True]))


def test_gathered_rows_go_on_as_they_would_have_and_new_ones_begin() -> None:
    policy = Policy(small_model(256), ROBOT, ActingConfig(window_steps=4))
    rng = np.random.default_rng(0)
    seen = [random_observations(ROBOT, 3, rng) for _ in range(12)]
    whole, fresh = policy.start(3), policy.start(1)
    for observations in seen[:5]:
        policy.act(whole, observations)
    some = whole.gather(np.array([2, 0, 0]))
    some.reset(np.array([False, False, True]))
    for observations in seen[5:]:
        expected = policy.act(whole, observations)
        new = policy.act(fresh, {name: values[1:2] for name, values in observations.items()})
        got = policy.act(some, {name: values[[2, 0, 1]] for name, values in observations.items()})
        np.testing.assert_allclose(got, np.concatenate([expected[[2, 0]], new]), atol=1e-4)
