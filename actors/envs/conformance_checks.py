"""The checks of the contract of environments: each plays a little and raises at what it finds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from actors.envs.vector import VectorEnv
from gato.array_spec import Kind
from gato.compatibility.coverage import Coverage
from gato.task import Task
from gato.text import ByteEncoder
from gato.tokenizer import TokenLayout

SEEDS = (7, 8)
COVERED_STEPS = 1000
COVERED_S = 10.0
"""Random play to see what tokens keep of the observations: at most so many steps and seconds."""
COVERED_AT_ONCE = 100
"""Steps between two updates of the coverage."""
SHORT_STEPS = 25
"""Steps that most checks play, and the limit of the task in the check of truncated episodes."""


class Surprise(Exception):
    """What a check finds that is not an error: one line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


def random_action(task: Task, rng: np.random.Generator) -> Shaped[np.ndarray, ...]:
    """A uniformly random action that the task accepts, of the shape of its spec."""
    spec = task.action
    if spec.kind is Kind.DISCRETE:
        return rng.integers(0, spec.counts).reshape(spec.shape).astype(spec.dtype)
    assert spec.bounds is not None
    low, high = (np.broadcast_to(bound, (spec.size,)) for bound in spec.bounds)
    return rng.uniform(low, high).reshape(spec.shape).astype(spec.dtype)


def _frame(envs: VectorEnv, row: int, *numbers: float | np.generic) -> bytes:
    """All that a row shows, and these numbers, as bytes."""
    shown = b"".join(envs.observations[name][row].tobytes() for name in sorted(envs.observations))
    return shown + np.array(numbers, np.float64).tobytes()


def _episode(envs: VectorEnv, row: int, seed: int, steps: int = SHORT_STEPS) -> list[bytes]:
    """What one row shows and receives in random play that the seed decides, at most `steps`
    steps."""
    rng, rows = np.random.default_rng(seed), np.arange(len(envs)) == row
    envs.reset_row(row, seed)
    seen = [_frame(envs, row)]
    for _ in range(steps):
        actions = np.stack([random_action(envs.task, rng)] * len(envs))
        rewards, terminated, truncated = envs.step(actions, rows)
        seen.append(_frame(envs, row, rewards[row], terminated[row], truncated[row]))
        if terminated[row] or truncated[row]:
            break
    return seen


def a_seed_begins_the_same_episode(envs: VectorEnv, other: VectorEnv) -> None:
    first = _episode(envs, 0, SEEDS[0])
    _episode(envs, 0, SEEDS[1])
    for what, again in (
        ("played again after another", _episode(envs, 0, SEEDS[0])),
        ("played in another environment", _episode(other, 1, SEEDS[0])),
    ):
        if again != first:
            step = next(
                (t for t, pair in enumerate(zip(first, again, strict=False)) if pair[0] != pair[1]),
                len(again),
            )
            raise ValueError(
                f"seed {SEEDS[0]} {what}, with the same actions, differs from step {step} on; draw"
                " all chance from the generator that reset(seed=...) seeds (self.np_random, not"
                " random or np.random), and reset all state"
            )


def another_seed_begins_another_episode(envs: VectorEnv, other: VectorEnv) -> None:
    if (
        len({b"".join(_episode(envs, 0, seed, 0)) for seed in range(8)})
        == 1
        == len({b"".join(_play_same_actions(other, seed)) for seed in range(8)})
    ):
        raise Surprise(
            "8 seeds, given the same actions, play the same episode: nothing is left to chance"
        )


def _play_same_actions(envs: VectorEnv, seed: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    envs.reset_row(0, seed)
    seen: list[bytes] = []
    for _ in range(SHORT_STEPS):
        actions = np.stack([random_action(envs.task, rng)] * len(envs))
        rewards, terminated, truncated = envs.step(actions, np.arange(len(envs)) == 0)
        seen.append(_frame(envs, 0, rewards[0]))
        if terminated[0] or truncated[0]:
            break
    return seen


def a_row_plays_alone(envs: VectorEnv, other: VectorEnv) -> None:
    """A row that waits does not change, and a row that plays is not changed by another."""
    # Row 1 waits while row 0 plays a whole episode.
    alone = _episode(other, 1, SEEDS[1])
    envs.reset_row(1, SEEDS[1])
    before = _frame(envs, 1)
    _episode(envs, 0, SEEDS[0])
    if _frame(envs, 1) != before:
        raise ValueError(
            "a row that did not play shows something else after another played; share no arrays"
        )
    # Both rows play: row 1 must repeat what it did alone, in another making of the environments.
    rng, rows = np.random.default_rng(SEEDS[1]), np.ones(len(envs), np.bool_)
    envs.reset_row(0, SEEDS[0])
    for step, expected in enumerate(alone[1:]):
        actions = np.stack([random_action(envs.task, rng)] * len(envs))
        rewards, terminated, truncated = envs.step(actions, rows)
        if _frame(envs, 1, rewards[1], terminated[1], truncated[1]) != expected:
            raise ValueError(
                f"seed {SEEDS[1]} plays otherwise next to another row, at step {step}; share no"
                " state"
            )
        if terminated[0] or truncated[0]:
            envs.reset_row(0, SEEDS[0])


def an_episode_is_cut_no_earlier_than_at_the_limit(envs: VectorEnv, other: VectorEnv) -> None:
    """The task's limit is short here, and `VectorEnv` itself truncates at it. An environment
    truncates earlier only if a game's no-ops explain it."""
    options = envs.task.env_kwargs
    noops = math.ceil(int(options.get("max_noops", 0)) / int(options.get("frameskip", 1)))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        envs.reset_row(0, seed)
        for length in range(1, envs.task.max_steps - noops):
            actions = np.stack([random_action(envs.task, rng)] * len(envs))
            _, terminated, truncated = envs.step(actions, np.arange(len(envs)) == 0)
            if truncated[0]:
                raise Surprise(
                    f"seed {seed} is truncated after {length} steps, where this check's limit is"
                    f" {envs.task.max_steps}; if the environment has a limit of its own, give it as"
                    " the task's max_steps"
                )
            if terminated[0]:
                break


def an_episode_that_ended_is_followed_by_a_whole_one(envs: VectorEnv, other: VectorEnv) -> None:
    rng = np.random.default_rng(0)
    first = _episode(other, 0, SEEDS[0], 0)
    for seed in range(3):
        envs.reset_row(0, seed)
        for _ in range(envs.task.max_steps):
            actions = np.stack([random_action(envs.task, rng)] * len(envs))
            _, terminated, truncated = envs.step(actions, np.arange(len(envs)) == 0)
            if terminated[0] or truncated[0]:
                break
        if _episode(envs, 0, SEEDS[0], 0) != first:
            raise ValueError(
                f"after an episode that ended, seed {SEEDS[0]} begins otherwise than in a new"
                " environment"
            )


def what_is_given_stays_as_it_is(envs: VectorEnv, other: VectorEnv) -> None:
    """Neither the actions nor the returned arrays are changed later."""
    rng, rows = np.random.default_rng(0), np.ones(len(envs), np.bool_)
    for row in range(len(envs)):
        envs.reset_row(row, row)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(5):
        actions = np.stack([random_action(envs.task, rng) for _ in range(len(envs))])
        before = actions.copy()
        answers = envs.step(actions, rows)
        kept += [
            (actions, before),
            *((given, given.copy()) for given in (*answers, *envs.extras().values())),
        ]
        for row in np.flatnonzero(answers[1] | answers[2]).tolist():
            envs.reset_row(row, row)
    if not all(np.array_equal(given, copy) for given, copy in kept):
        raise ValueError(
            "an array that was passed or returned at one step was changed at a later one; copy it"
        )


def every_edge_of_the_actions_is_taken(envs: VectorEnv, other: VectorEnv) -> None:
    """Every value of a discrete action, or both bounds of a continuous one, is accepted."""
    spec = envs.task.action
    if spec.kind is Kind.DISCRETE:
        edges = [np.minimum(value, spec.counts - 1) for value in range(int(spec.counts.max()))]
    else:
        assert spec.bounds is not None
        edges = [np.broadcast_to(bound, (spec.size,)) for bound in spec.bounds]
    envs.reset_row(0, SEEDS[0])
    for edge in edges:
        actions = np.stack([edge.reshape(spec.shape).astype(spec.dtype)] * len(envs))
        _, terminated, truncated = envs.step(actions, np.arange(len(envs)) == 0)
        if terminated[0] or truncated[0]:
            envs.reset_row(0, SEEDS[0])


def something_moves(envs: VectorEnv, other: VectorEnv) -> None:
    seen = _episode(envs, 0, SEEDS[0])
    if len({frame[: len(seen[0])] for frame in seen}) == 1:
        raise Surprise(f"it shows the same in all {len(seen)} steps of random play")


def extras_are_of_one_shape(envs: VectorEnv, other: VectorEnv) -> None:
    """Extras have a row for each environment, and the same names and shapes at every step."""
    for row in range(len(envs)):
        envs.reset_row(row, row)
    shapes = {name: (values.shape, values.dtype) for name, values in envs.extras().items()}
    _episode(envs, 0, SEEDS[0], 5)
    later = {name: (values.shape, values.dtype) for name, values in envs.extras().items()}
    if later != shapes or any(shape[0] != len(envs) for shape, _ in shapes.values()):
        raise ValueError(f"extras of {len(envs)} rows were {shapes} at first and {later} later")


def its_values_have_tokens_of_their_own(envs: VectorEnv, other: VectorEnv) -> None:
    """Random play of whole episodes, with the task's own limit of steps."""
    del other
    coverage = Coverage(envs.task.observations, TokenLayout(text=ByteEncoder()))
    rng, rows, until_s = (
        np.random.default_rng(0),
        np.ones(len(envs), np.bool_),
        time.monotonic() + COVERED_S,
    )
    shown: dict[str, list[np.ndarray]] = {name: [] for name in envs.observations}
    seed = 0

    def begin(row: int) -> None:
        nonlocal seed
        envs.reset_row(row, seed)
        seed += 1

    for row in range(len(envs)):
        begin(row)
    for _ in range(COVERED_STEPS // len(envs)):
        for name, values in envs.observations.items():
            shown[name].append(values.copy())
        actions = np.stack([random_action(envs.task, rng) for _ in range(len(envs))])
        _, terminated, truncated = envs.step(actions, rows)
        for row in np.flatnonzero(terminated | truncated).tolist():
            begin(row)
        if len(next(iter(shown.values()))) >= COVERED_AT_ONCE or time.monotonic() > until_s:
            coverage.observe({name: np.concatenate(parts) for name, parts in shown.items()})
            shown = {name: [] for name in shown}
        if time.monotonic() > until_s:
            break
    if any(shown.values()):
        coverage.observe({name: np.concatenate(parts) for name, parts in shown.items()})
    if lines := coverage.warnings(envs.task.name):
        raise Surprise(*lines)


def it_can_be_closed_twice(envs: VectorEnv, other: VectorEnv) -> None:
    _episode(envs, 0, SEEDS[0], 3)
    envs.close()
    envs.close()


CHECKS: tuple[Callable[[VectorEnv, VectorEnv], None], ...] = (
    a_seed_begins_the_same_episode,
    another_seed_begins_another_episode,
    a_row_plays_alone,
    an_episode_is_cut_no_earlier_than_at_the_limit,
    an_episode_that_ended_is_followed_by_a_whole_one,
    what_is_given_stays_as_it_is,
    every_edge_of_the_actions_is_taken,
    something_moves,
    extras_are_of_one_shape,
    its_values_have_tokens_of_their_own,
    it_can_be_closed_twice,
)
"""Each check gets the same two environments, made twice, as the check before left them. It raises
ValueError for an error and `Surprise` for a warning. Observations and rewards are not checked here:
`VectorEnv` checks them at every step of every run."""
UNCUT = (its_values_have_tokens_of_their_own,)
"""Checks that play episodes of the task's own length."""
