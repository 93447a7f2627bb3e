"""The contract of environments, as checks for a user's own: `check_envs(task)` reports what breaks
it."""

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
"""The part of a message that says where a problem was met."""
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
WRAPPED = re.compile(r"""(?:RuntimeError|ValueError|TimeoutError)\(('.*'|".*")\)$""", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One way in which an environment breaks the contract."""

    check: str
    """The name of the check, which is a promise of the contract."""
    problem: str
    is_error: bool
    """Whether it cannot be trained on; else it may just surprise."""

    def __str__(self) -> str:
        return f"{'error' if self.is_error else 'warning'}: {self.check}: {self.problem}"


def _readable(problem: str) -> str:
    """The problem without the names of general exceptions:
    `x` of RuntimeError("ValueError('x')")."""
    while match := WRAPPED.search(problem):
        problem = problem[: match.start()] + ast.literal_eval(match[1])
    return problem


def _cause(problem: str) -> str:
    """The problem without its place and its numbers, to find the same one in other checks."""
    return NUMBER.sub("#", WHERE.sub("", problem))


def findings(task: Task, make: MakeEnvs = make_envs) -> Iterator[Finding]:
    """Run all checks on a task's environments; yields what breaks the contract.

    for finding in findings(resolve_task("my_package:MyEnv-v0")):
        print(finding)

    Raises:
        ValueError: if the environments cannot be made at all.
    """
    short = replace(task, max_steps=min(task.max_steps, SHORT_STEPS))
    found: list[Finding] = []
    left_out: dict[str, int] = {}
    """How many later checks end at the same problem, by problem."""
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
                if NO_ANSWER in str(problem):  # each further check might wait as long
                    left_out[said] = len(CHECKS) - place - 1
                    break
    finally:
        for made in (envs, other):
            with suppress(EnvFailedError):  # a check has found that already
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
    """Return the warnings of all checks.

    def test_my_environment_keeps_the_contract():
        assert check_envs(MY_TASK) == []

    Raises:
        ValueError: with all findings, if one of them is an error.
    """
    found = list(findings(task, make))
    if any(finding.is_error for finding in found):
        raise ValueError(
            f"{task.name} does not keep the contract of environments:\n"
            + "\n".join(map(str, found))
        )
    return found
