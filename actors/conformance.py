"""What every environment must keep, as checks that run on a user's own: `check_envs(task)` says what it does not keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Shaped

from actors.envs import EnvFailedError, Envs, make_envs
from gato.task import Kind, Task

MakeEnvs = Callable[[Task, int], Envs]
SEEDS = (7, 8)
SHORT_STEPS = 25
"""Most checks play this far; the one of episodes that are cut makes the task's limit this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that an environment does not keep."""

    check: str
    """The name of the check, which is the promise."""
    problem: str
    is_error: bool
    """Whether it cannot be trained on, or may just surprise."""

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.check}: {self.problem}"


@dataclass(frozen=True, slots=True)
class _Surprise(Exception):
    """What a check finds that is no error."""

    problem: str


def random_action(task: Task, rng: np.random.Generator) -> Shaped[np.ndarray, ...]:
    """Any action that the task takes."""
    spec = task.action
    if spec.kind is Kind.DISCRETE:
        return rng.integers(0, spec.counts).reshape(spec.shape).astype(spec.dtype)
    assert spec.bounds is not None
    low, high = (np.broadcast_to(bound, (spec.size,)) for bound in spec.bounds)
    return rng.uniform(low, high).reshape(spec.shape).astype(spec.dtype)


def _frame(envs: Envs, row: int, *numbers: float) -> bytes:
    """All that a row shows, and what it was told beside."""
    shown = b"".join(envs.observations[name][row].tobytes() for name in sorted(envs.observations))
    return shown + np.array(numbers, np.float64).tobytes()


def _episode(envs: Envs, row: int, seed: int, steps: int = SHORT_STEPS) -> list[bytes]:
    """What one row shows and is paid in random play that the seed decides, to its end or for some steps."""
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


def a_seed_begins_the_same_episode(envs: Envs, other: Envs) -> None:
    first = _episode(envs, 0, SEEDS[0])
    _episode(envs, 0, SEEDS[1])
    for what, again in (
        ("played again after another", _episode(envs, 0, SEEDS[0])),
        ("played in another environment", _episode(other, 1, SEEDS[0])),
    ):
        if again != first:
            step = next((t for t, pair in enumerate(zip(first, again, strict=False)) if pair[0] != pair[1]), len(again))
            raise ValueError(
                f"seed {SEEDS[0]} {what}, with the same actions, differs from step {step} on; draw all chance from the "
                "generator that reset(seed=...) seeds, and reset all state"
            )


def another_seed_begins_another_episode(envs: Envs, other: Envs) -> None:
    if (
        len({b"".join(_episode(envs, 0, seed, 0)) for seed in range(8)})
        == 1
        == len({b"".join(_play_same_actions(other, seed)) for seed in range(8)})
    ):
        raise _Surprise("8 seeds, given the same actions, play the same episode: nothing is left to chance")


def _play_same_actions(envs: Envs, seed: int) -> list[bytes]:
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


def a_row_plays_alone(envs: Envs, other: Envs) -> None:
    """A row that waits keeps what it shows, and neither feels what is played beside it."""
    alone = _episode(other, 1, SEEDS[1])
    envs.reset_row(1, SEEDS[1])
    before = _frame(envs, 1)
    _episode(envs, 0, SEEDS[0])
    if _frame(envs, 1) != before:
        raise ValueError("a row that did not play shows something else after another played; share no arrays")
    rng, rows = np.random.default_rng(SEEDS[1]), np.ones(len(envs), np.bool_)
    envs.reset_row(0, SEEDS[0])
    for step, expected in enumerate(alone[1:]):
        actions = np.stack([random_action(envs.task, rng)] * len(envs))
        rewards, terminated, truncated = envs.step(actions, rows)
        if _frame(envs, 1, rewards[1], terminated[1], truncated[1]) != expected:
            raise ValueError(f"seed {SEEDS[1]} plays otherwise beside another row, at step {step}; share no state")
        if terminated[0] or truncated[0]:
            envs.reset_row(0, SEEDS[0])


def an_episode_is_cut_no_earlier_than_at_the_limit(envs: Envs, other: Envs) -> None:
    """Given a task whose limit is short, at which `Envs` itself cuts: an environment does so before only where a game's
    no-ops explain it."""
    options = envs.task.env_kwargs
    noops = math.ceil(int(options.get("max_noops", 0)) / int(options.get("frameskip", 1)))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        envs.reset_row(0, seed)
        for length in range(1, envs.task.max_steps - noops):
            actions = np.stack([random_action(envs.task, rng)] * len(envs))
            _, terminated, truncated = envs.step(actions, np.arange(len(envs)) == 0)
            if truncated[0]:
                raise _Surprise(
                    f"seed {seed} is truncated after {length} steps, the task's limit is {envs.task.max_steps}; where the "
                    "environment has a limit of its own, give it as the task's max_steps"
                )
            if terminated[0]:
                break


def an_episode_that_ended_is_followed_by_a_whole_one(envs: Envs, other: Envs) -> None:
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
            raise ValueError(f"after an episode that ended, seed {SEEDS[0]} begins otherwise than in a new environment")


def what_is_given_stays_as_it_is(envs: Envs, other: Envs) -> None:
    """Neither the actions that it takes nor the arrays that it gave are changed later."""
    rng, rows = np.random.default_rng(0), np.ones(len(envs), np.bool_)
    for row in range(len(envs)):
        envs.reset_row(row, row)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(5):
        actions = np.stack([random_action(envs.task, rng) for _ in range(len(envs))])
        before = actions.copy()
        answers = envs.step(actions, rows)
        kept += [(actions, before), *((given, given.copy()) for given in (*answers, *envs.extras().values()))]
        for row in np.flatnonzero(answers[1] | answers[2]).tolist():
            envs.reset_row(row, row)
    if not all(np.array_equal(given, copy) for given, copy in kept):
        raise ValueError("an array that was given or taken at one step was changed at a later one; copy it")


def every_edge_of_the_actions_is_taken(envs: Envs, other: Envs) -> None:
    """All values of a discrete action, the bounds of a continuous one."""
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


def something_moves(envs: Envs, other: Envs) -> None:
    seen = _episode(envs, 0, SEEDS[0])
    if len({frame[: len(seen[0])] for frame in seen}) == 1:
        raise _Surprise(f"it shows the same in all {len(seen)} steps of random play")


def extras_are_of_one_shape(envs: Envs, other: Envs) -> None:
    """What teachers may look at has a row for each environment, and the same names and shapes at every step."""
    for row in range(len(envs)):
        envs.reset_row(row, row)
    shapes = {name: (values.shape, values.dtype) for name, values in envs.extras().items()}
    _episode(envs, 0, SEEDS[0], 5)
    later = {name: (values.shape, values.dtype) for name, values in envs.extras().items()}
    if later != shapes or any(shape[0] != len(envs) for shape, _ in shapes.values()):
        raise ValueError(f"extras of {len(envs)} rows were {shapes} at first and {later} later")


def it_can_be_closed_twice(envs: Envs, other: Envs) -> None:
    _episode(envs, 0, SEEDS[0], 3)
    envs.close()
    envs.close()


CHECKS: tuple[Callable[[Envs, Envs], None], ...] = (
    a_seed_begins_the_same_episode,
    another_seed_begins_another_episode,
    a_row_plays_alone,
    an_episode_is_cut_no_earlier_than_at_the_limit,
    an_episode_that_ended_is_followed_by_a_whole_one,
    what_is_given_stays_as_it_is,
    every_edge_of_the_actions_is_taken,
    something_moves,
    extras_are_of_one_shape,
    it_can_be_closed_twice,
)
"""Each gets two makings of the same two environments, as the one before left them, and raises at what it finds. That what is shown and paid fits the
task is checked by `Envs` at every step, in every run."""


def findings(task: Task, make: MakeEnvs = make_envs) -> Iterator[Finding]:
    """What a task's environments do not keep, check after check. ValueError where they cannot be made at all.

    for finding in findings(task_of("my_package:MyEnv-v0", references=References(random=0, expert=1, source="guess"))):
        print(finding)
    """
    short = replace(task, max_steps=min(task.max_steps, SHORT_STEPS))
    envs, other = make(short, 2), make(short, 2)
    try:
        for check in CHECKS:
            name = check.__name__.replace("_", " ")
            try:
                check(envs, other)
            except _Surprise as found:
                yield Finding(check=name, problem=found.problem, is_error=False)
            except (ValueError, EnvFailedError) as found:
                yield Finding(check=name, problem=str(found), is_error=True)
    finally:
        for made in (envs, other):
            with suppress(EnvFailedError):  # that was found already
                made.close()


def check_envs(task: Task, make: MakeEnvs = make_envs) -> list[Finding]:
    """The warnings of all checks. ValueError with every error, where there is one.

    def test_my_environment_keeps_the_contract():
        assert check_envs(MY_TASK) == []
    """
    found = list(findings(task, make))
    if any(finding.is_error for finding in found):
        raise ValueError(f"{task.name} does not keep the contract of environments:\n" + "\n".join(map(str, found)))
    return found
