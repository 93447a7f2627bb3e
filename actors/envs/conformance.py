"""What every environment must keep, as checks that run on a user's own: `check_envs(task)` says
what it does not keep."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from actors.envs.conformance_checks import CHECKS, SHORT_STEPS, UNCUT, Surprise
from actors.envs.env import EnvFailedError
from actors.envs.factory import make_envs
from actors.envs.process_env import NO_ANSWER
from actors.envs.vector import VectorEnv
from gato.task import Task

MakeEnvs = Callable[[Task, int], VectorEnv]
WHERE = re.compile(r"^.*? broke (?:at step \d+|at reset with seed \d+|when it was closed): ")
"""What stands before the same problem when it is met at another place."""
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
WRAPPED = re.compile(r"""(?:RuntimeError|ValueError|TimeoutError)\(('.*'|".*")\)$""", re.DOTALL)


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
            except Surprise as surprise:
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
