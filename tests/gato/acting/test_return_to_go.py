"""Return conditioning: a token that says how much is still to come, in the same vocabulary, lowered
by what came."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.acting.return_to_go import ReturnToGo
from gato.array_spec import ArraySpec, Kind
from gato.network.embedding import Embedding
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import FIRST_PLACE, StepLayout, Window
from gato.task import References
from gato.tokenizer import TokenLayout, encode
from gato.weights import acting_config, load, snapshot
from tests.gato.models import GAME, ROBOT, TALK, WordEncoder, random_observations, small_model

SCORED = replace(ROBOT, references=References(random=-20.0, expert=180.0, source="made"))
SEEN = ArraySpec(kind=Kind.CONTINUOUS, shape=())


def conditioned_model(context_tokens: int = 64) -> Gato:
    plain = small_model(context_tokens)
    torch.manual_seed(1)
    model = Gato(replace(plain.config, return_conditioned=True)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def token_of(normalised: float, layout: TokenLayout) -> int:
    return int(encode(np.array([normalised], np.float32), SEEN, layout).item())


def some_window(num: int, returns: np.ndarray | None, *, prompt_steps: int = 0) -> Window:
    observations = random_observations(SCORED, num, np.random.default_rng(0))
    return Window(
        observations=observations,
        actions=np.zeros((num, 3), np.float32),
        prompt_steps=prompt_steps,
        returns=returns,
    )


def test_a_step_begins_with_its_return_to_go_normalised_and_companded() -> None:
    layout = conditioned_model().config.layout
    steps = StepLayout(SCORED, layout)
    plain = StepLayout(SCORED, small_model(64).config.layout)
    assert steps.tokens_per_step == plain.tokens_per_step + 1
    assert steps.num_observation_tokens == plain.num_observation_tokens
    window = some_window(4, np.array([180.0, -20.0, 80.0, np.nan]))
    ids = steps.step_ids(window.observations, window.actions, window.returns)
    assert ids[:, 0].tolist() == [*(token_of(y, layout) for y in (1.0, 0.0, 0.5)), layout.separator]
    np.testing.assert_array_equal(ids[:, 1:], plain.step_ids(window.observations, window.actions))
    assert steps.place_S.tolist() == [FIRST_PLACE + 16, *plain.place_S.tolist()]


def test_text_and_patches_follow_the_return_and_keep_their_places() -> None:
    layout = replace(conditioned_model().config.layout, text=WordEncoder())
    steps, plain = StepLayout(TALK, layout), StepLayout(TALK, replace(layout, return_place=None))
    observations = random_observations(TALK, 3, np.random.default_rng(0))
    actions = np.zeros((3, 3), np.int64)
    ids = steps.step_ids(observations, actions, np.zeros(3))
    np.testing.assert_array_equal(ids[:, 1:], plain.step_ids(observations, actions))
    np.testing.assert_array_equal(steps.is_target(ids)[:, 1:], plain.is_target(ids[:, 1:]))
    assert not steps.is_target(ids)[:, 0].any()
    np.testing.assert_array_equal(steps.patch_at_m, plain.patch_at_m + 1)


def test_the_return_is_seen_and_never_a_target() -> None:
    model = conditioned_model()
    steps = StepLayout(SCORED, model.config.layout)

    def losses(returns: list[np.ndarray | None]) -> torch.Tensor:
        writer = RowWriter(num_rows=1, row_tokens=42)
        writer.write_row(0, task_index=0, steps=steps, windows=[some_window(2, r) for r in returns])
        batch = writer.batch()
        assert not batch.is_target[0, :: steps.tokens_per_step][:4].any()
        with torch.inference_mode():
            return next_token_loss(model, TensorBatch.of(batch)).losses

    told = losses([np.array([10.0, 5.0]), None])
    assert len(told) == 4 * 3
    other = losses([np.array([100.0, 95.0]), None])
    assert (told[:6] - other[:6]).abs().max() > 1e-3
    torch.testing.assert_close(told[6:], other[6:])
    # None is the same as not told
    torch.testing.assert_close(told[6:], losses([None])[:6], atol=1e-5, rtol=0)


def test_a_model_without_it_is_as_it_was_and_one_with_it_has_one_place_more() -> None:
    plain, conditioned = small_model(64), conditioned_model()
    assert plain.config.layout.return_place is None
    assert isinstance(conditioned.embedding, Embedding)
    assert conditioned.num_parameters() == plain.num_parameters() + plain.config.width
    # Returns that a window happens to carry change nothing where steps have no place for them.
    steps = StepLayout(SCORED, plain.config.layout)
    batches = []
    for returns in (None, np.arange(2.0)):
        writer = RowWriter(num_rows=1, row_tokens=40)
        writer.write_row(0, task_index=0, steps=steps, windows=[some_window(2, returns)])
        batches.append(writer.batch().arrays())
    for name, values in batches[0].items():
        np.testing.assert_array_equal(values, batches[1][name])


def test_a_snapshot_of_a_conditioned_model_plays_conditioned() -> None:
    model = conditioned_model()
    player = Gato(acting_config(model.config))
    load(player, snapshot(model))
    assert player.config.return_conditioned


def test_rewards_lower_the_return_to_go_and_a_new_episode_begins_with_all_of_it() -> None:
    returns_to_go = ReturnToGo(3, 0.5, SCORED.references)
    returns_to_go.subtract(None)
    assert returns_to_go.values.tolist() == [80.0] * 3
    returns_to_go.subtract(np.array([1.0, 2.0, -3.0], np.float32))
    assert returns_to_go.values.tolist() == [79.0, 78.0, 83.0]
    returns_to_go.reset(np.array([False, True, False]))
    # 50 was paid for the last step of the old episode
    returns_to_go.subtract(np.array([1.0, 50.0, 0.0], np.float32))
    assert returns_to_go.values.tolist() == [78.0, 80.0, 83.0]
    returns_to_go.subtract(np.array([0.0, 5.0, 0.0], np.float32))
    assert returns_to_go.values.tolist() == [78.0, 75.0, 83.0]
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(3,\)"):
        returns_to_go.subtract(np.zeros(2, np.float32))


def test_a_target_return_needs_the_rewards_and_none_needs_none() -> None:
    observations = random_observations(SCORED, 1, np.random.default_rng(0))
    policy = Policy(conditioned_model(), SCORED, ActingConfig())
    state = policy.start(1)
    policy.act(state, observations)
    with pytest.raises(
        ValueError, match="give act the rewards of the last step, or set target_return=None"
    ):
        policy.act(state, observations)
    for model, config in [
        (conditioned_model(), ActingConfig(target_return=None)),
        (small_model(64), ActingConfig()),
    ]:
        untold = Policy(model, SCORED, config)
        state = untold.start(1)
        for _ in range(3):
            untold.act(state, observations)
        assert untold.steps.num_return_tokens == model.config.return_conditioned


@pytest.mark.parametrize("task", [SCORED, GAME], ids=["robot", "game"])
@pytest.mark.parametrize("target_return", [0.5, None])
@pytest.mark.parametrize("prompt_steps", [0, 2])
def test_acting_with_a_cache_equals_the_training_forward_with_returns(
    task, target_return: float | None, prompt_steps: int
) -> None:
    """One context of whole steps: a prompt with its own returns, then steps whose rewards lower the
    return-to-go."""
    rng = np.random.default_rng(3)
    model = conditioned_model(context_tokens=64)
    steps = StepLayout(task, model.config.layout)
    window_steps = 5
    model = conditioned_model(context_tokens=window_steps * steps.tokens_per_step)

    class Recorder(Policy):
        seen: list[torch.Tensor]

        def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.seen.append(logits)
            return super()._choose(logits)

    prompt = None
    if prompt_steps:
        actions = np.zeros((prompt_steps, *task.action.shape), task.action.dtype)
        prompt = Window(
            observations=random_observations(task, prompt_steps, rng),
            actions=actions,
            returns=np.array([3.0, 1.0]),
        )
    # Hidden where the episode's are, as in training.
    prompt_returns = np.array([3.0, 1.0]) if target_return is not None else np.full(2, np.nan)
    policy = Recorder(
        model, task, ActingConfig(window_steps=window_steps, target_return=target_return)
    )
    state = policy.start(2, prompt)
    rewards = np.zeros(2, np.float32)
    span = task.references.expert - task.references.random
    left = np.full(
        2, np.nan if target_return is None else task.references.random + target_return * span
    )
    history: list[list[tuple[dict[str, np.ndarray], np.ndarray, float]]] = [[], []]
    for t in range(4):
        if t == 1:
            state.reset(np.array([False, True]))
            history[1] = []
        observations = random_observations(task, 2, rng)
        policy.seen = []
        actions = policy.act(state, observations, rewards)
        left -= rewards
        if t == 1:
            left[1] = (
                np.nan if target_return is None else task.references.random + target_return * span
            )
        for row in range(2):
            history[row].append(
                ({k: v[row] for k, v in observations.items()}, actions[row], left[row])
            )
            past = {k: np.stack([o[k] for o, _, _ in history[row]]) for k in observations}
            done, told = (
                np.stack([a for _, a, _ in history[row]]),
                np.array([r for *_, r in history[row]]),
            )
            if prompt is not None and prompt.returns is not None:
                past = {k: np.concatenate([prompt.observations[k], v]) for k, v in past.items()}
                done, told = (
                    np.concatenate([prompt.actions, done]),
                    np.concatenate([prompt_returns, told]),
                )
            if len(done) > window_steps:
                continue  # the window has begun to slide, which whole rows do not show
            writer = RowWriter(num_rows=1, row_tokens=window_steps * steps.tokens_per_step)
            whole = Window(observations=past, actions=done, returns=told)
            writer.write_row(0, task_index=0, steps=steps, windows=[whole])
            with torch.inference_mode():
                hidden = model(TensorBatch.of(writer.batch()))[0]
                end = len(done) * steps.tokens_per_step
                for element in range(task.action.size):
                    low, high = model.config.layout.ids_of(task.action, element)
                    expected = model.logits(hidden[end - task.action.size + element - 1], low, high)
                    torch.testing.assert_close(
                        policy.seen[element][row], expected, atol=1e-4, rtol=0
                    )
        rewards = rng.normal(0, 1, 2).astype(np.float32)


def test_another_target_return_gives_other_logits() -> None:
    observations = random_observations(SCORED, 1, np.random.default_rng(0))
    seen = []
    for target_return in (0.0, 1.0, None):
        policy = Policy(conditioned_model(), SCORED, ActingConfig(target_return=target_return))
        seen.append(policy.act(policy.start(1), observations).tolist())
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_a_task_without_references_has_no_target_return() -> None:
    bare = replace(ROBOT, references=None)
    assert np.isnan(bare.normalise(5.0))
    assert np.isnan(ReturnToGo(2, 1.0, bare.references).values).all()
    with pytest.raises(ValueError, match=r"no reference returns.*return_conditioned=false"):
        StepLayout(bare, TokenLayout(num_text_ids=1024, return_place=200))
