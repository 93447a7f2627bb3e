"""What every environment must keep, as checks that run on a user's own: `check_envs(task)` says
what it does not keep."""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Shaped

from actors.envs.factory import EnvFailedError, Envs, make_envs
from actors.envs.process_env import NO_ANSWER
from gato.compatibility.coverage import Coverage
from gato.task import Kind, Task
from gato.text import ByteEncoder
from gato.tokenizer import TokenLayout

MakeEnvs = Callable[[Task, int], Envs]
SEEDS = (7, 8)
COVERED_STEPS = 1000
COVERED_S = 10.0
"""Random play to see what its tokens keep of what it shows: so many steps, or so long."""
COVERED_AT_ONCE = 100
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


class _Surprise(Exception):
    """What a check finds that is no error: a line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


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
    """What one row shows and is paid in random play that the seed decides, to its end or for some
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


def a_seed_begins_the_same_episode(envs: Envs, other: Envs) -> None:
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


def another_seed_begins_another_episode(envs: Envs, other: Envs) -> None:
    if (
        len({b"".join(_episode(envs, 0, seed, 0)) for seed in range(8)})
        == 1
        == len({b"".join(_play_same_actions(other, seed)) for seed in range(8)})
    ):
        raise _Surprise(
            "8 seeds, given the same actions, play the same episode: nothing is left to chance"
        )


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
        raise ValueError(
            "a row that did not play shows something else after another played; share no arrays"
        )
    rng, rows = np.random.default_rng(SEEDS[1]), np.ones(len(envs), np.bool_)
    envs.reset_row(0, SEEDS[0])
    for step, expected in enumerate(alone[1:]):
        actions = np.stack([random_action(envs.task, rng)] * len(envs))
        rewards, terminated, truncated = envs.step(actions, rows)
        if _frame(envs, 1, rewards[1], terminated[1], truncated[1]) != expected:
            raise ValueError(
                f"seed {SEEDS[1]} plays otherwise beside another row, at step {step}; share no"
                " state"
            )
        if terminated[0] or truncated[0]:
            envs.reset_row(0, SEEDS[0])


def an_episode_is_cut_no_earlier_than_at_the_limit(envs: Envs, other: Envs) -> None:
    """Given a task whose limit is short, at which `Envs` itself cuts: an environment does so before
    only where a game's no-ops explain it."""
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
                    f"seed {seed} is truncated after {length} steps, where this check's limit is"
                    f" {envs.task.max_steps}; if the environment has a limit of its own, give it as"
                    " the task's max_steps"
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
            raise ValueError(
                f"after an episode that ended, seed {SEEDS[0]} begins otherwise than in a new"
                " environment"
            )


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
        kept += [
            (actions, before),
            *((given, given.copy()) for given in (*answers, *envs.extras().values())),
        ]
        for row in np.flatnonzero(answers[1] | answers[2]).tolist():
            envs.reset_row(row, row)
    if not all(np.array_equal(given, copy) for given, copy in kept):
        raise ValueError(
            "an array that was given or taken at one step was changed at a later one; copy it"
        )


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
    """What teachers may look at has a row for each environment, and the same names and shapes at
    every step."""
    for row in range(len(envs)):
        envs.reset_row(row, row)
    shapes = {name: (values.shape, values.dtype) for name, values in envs.extras().items()}
    _episode(envs, 0, SEEDS[0], 5)
    later = {name: (values.shape, values.dtype) for name, values in envs.extras().items()}
    if later != shapes or any(shape[0] != len(envs) for shape, _ in shapes.values()):
        raise ValueError(f"extras of {len(envs)} rows were {shapes} at first and {later} later")


def its_values_have_tokens_of_their_own(envs: Envs, other: Envs) -> None:
    """In random play of whole episodes, whose task is not cut short."""
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
        raise _Surprise(*lines)


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
    its_values_have_tokens_of_their_own,
    it_can_be_closed_twice,
)
"""Each gets two makings of the same two environments, as the one before left them, and raises at
what it finds. That what is shown and paid fits the task is checked by `Envs` at every step, in
every run."""
UNCUT = (its_values_have_tokens_of_their_own,)
"""Those that play episodes of the task's own length."""
WHERE = re.compile(r"^.*? broke (?:at step \d+|at reset with seed \d+|when it was closed): ")
"""What stands before the same problem when it is met at another place."""
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
WRAPPED = re.compile(r"""(?:RuntimeError|ValueError|TimeoutError)\(('.*'|".*")\)$""", re.DOTALL)


def _readable(problem: str) -> str:
    """Without the names of exceptions that only say that something is wrong:
    RuntimeError("ValueError('it paid nan')")."""
    while match := WRAPPED.search(problem):
        problem = problem[: match.start()] + ast.literal_eval(match[1])
    return problem


def _cause(problem: str) -> str:
    """What is the same where the same is wrong at another place, or with other numbers."""
    return NUMBER.sub("#", WHERE.sub("", problem))


def findings(task: Task, make: MakeEnvs = make_envs) -> Iterator[Finding]:
    """What a task's environments do not keep, check after check. ValueError where they cannot be
    made at all.

    for finding in findings(task_of("my_package:MyEnv-v0", references=References(random=0, expert=1,
    source="guess"))):
        print(finding)
    """
    short = replace(task, max_steps=min(task.max_steps, SHORT_STEPS))
    found: list[Finding] = []
    left_out: dict[str, int] = {}
    """By what ended them: how many later checks end at the same."""
    envs, other = make(short, 2), make(short, 2)
    try:
        for place, check in enumerate(CHECKS):
            name = check.__name__.replace("_", " ")
            try:
                if check in UNCUT:
                    with closing(make(task, 1)) as whole:
                        check(whole, other)
                else:
                    check(envs, other)
            except _Surprise as surprise:
                found += [
                    Finding(check=name, problem=problem, is_error=False)
                    for problem in surprise.problems
                ]
            except (ValueError, EnvFailedError) as problem:
                said = _readable(str(problem))
                same = next((f.problem for f in found if _cause(f.problem) == _cause(said)), None)
                if same is not None:
                    left_out[same] = left_out.get(same, 0) + 1
                    continue
                found.append(Finding(check=name, problem=said, is_error=True))
                if NO_ANSWER in str(problem):  # each of the others might wait as long
                    left_out[said] = len(CHECKS) - place - 1
                    break
    finally:
        for made in (envs, other):
            with suppress(EnvFailedError):  # that was found already
                made.close()
    for finding in found:
        count = left_out.get(finding.problem, 0)
        more = (
            f" (and {count} more check{'s end' if count > 1 else ' ends'} at the same)"
            if count
            else ""
        )
        yield replace(finding, problem=finding.problem + more)


def check_envs(task: Task, make: MakeEnvs = make_envs) -> list[Finding]:
    """The warnings of all checks. ValueError with every error, where there is one.

    def test_my_environment_keeps_the_contract():
        assert check_envs(MY_TASK) == []
    """
    found = list(findings(task, make))
    if any(finding.is_error for finding in found):
        raise ValueError(
            f"{task.name} does not keep the contract of environments:\n"
            + "\n".join(map(str, found))
        )
    return found
