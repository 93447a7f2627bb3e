"""Speed of environments without a model, each way to make them: `python -m benchmarks.envs`.

Random play with the resets that it needs. In a loop against the vectorisation of the environments'
own packages; in processes and in EnvPool (where it is installed) against the loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import gymnasium
import mujoco
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import SyncVectorEnv

from actors.envs.conformance_checks import random_action
from actors.envs.env import Backend
from actors.envs.factory import make_envs
from actors.envs.gymnasium_env import task_of
from actors.envs.vector import VectorEnv
from actors.tasks.catalog import TASKS
from benchmarks.machine import ROOT, about
from benchmarks.rows import add_rows
from benchmarks.timing import median_s, paired_s
from gato.task import References, Task
from gato.threads import use_threads

OURS = ("mujoco/hopper", "mujoco/halfcheetah", "atari/pong")
NUM_ENVS = (1, 4, 16)
CARTPOLE = task_of("CartPole-v1", references=References(random=22.0, expert=500.0, source="unused"))
"""As cheap as environments come, so that what a process costs is seen."""


def player(envs: VectorEnv) -> Callable[[], None]:
    """One step of all rows; what ends begins again."""
    rng, rows = np.random.default_rng(0), np.ones(len(envs), np.bool_)
    actions = [
        np.stack([random_action(envs.task, rng) for _ in range(len(envs))]) for _ in range(256)
    ]
    for row in range(len(envs)):
        envs.reset_row(row, row)
    turn = 0

    def once() -> None:
        nonlocal turn
        turn += 1
        _, terminated, truncated = envs.step(actions[turn % 256], rows)
        for row in np.flatnonzero(terminated | truncated).tolist():
            envs.reset_row(row, turn)

    return once


def theirs(task: Task, num_envs: int) -> tuple[str, Callable[[], object]]:
    """The same by the package that the environment is of."""
    rng = np.random.default_rng(0)
    actions = [np.stack([random_action(task, rng) for _ in range(num_envs)]) for _ in range(256)]
    if task.family == "atari":
        games = AtariVectorEnv(
            "pong", num_envs, frameskip=4, stack_num=1, grayscale=False, img_height=64,
            img_width=80,
            use_fire_reset=False, full_action_space=True, reward_clipping=False, num_threads=1,
        )  # fmt: skip
        games.reset()
        return "ale-py's AtariVectorEnv, one thread", lambda: games.step(
            actions[int(rng.integers(256))]
        )
    mujoco.set_mju_user_warning(lambda message: None)  # pyright: ignore[reportAttributeAccessIssue]
    robots = SyncVectorEnv(
        [lambda: gymnasium.make(task.env_id, disable_env_checker=True)] * num_envs
    )
    robots.reset()
    return "Gymnasium's SyncVectorEnv", lambda: robots.step(actions[int(rng.integers(256))])


def against_theirs(task: Task, num_envs: int) -> dict[str, float | str]:
    envs = make_envs(task, num_envs)
    against, step = theirs(task, num_envs)
    ours_s, theirs_s = paired_s(player(envs), step)
    envs.close()
    return row(
        f"step {task.name}, {num_envs} environments, loop", against, ours_s, theirs_s, num_envs
    )


def against_loop(task: Task, num_envs: int, backend: Backend) -> dict[str, float | str]:
    envs, loop = make_envs(task, num_envs, backend=backend), make_envs(task, num_envs)
    ours_s, theirs_s = paired_s(player(envs), player(loop))
    envs.close()
    loop.close()
    return row(
        f"step {task.name}, {num_envs} environments, {backend}",
        "the loop",
        ours_s,
        theirs_s,
        num_envs,
    )


def begin_and_start(backend: Backend) -> Iterator[dict[str, float | str]]:
    """What the beginning of an episode and a new environment cost, against the loop's."""
    task = TASKS["atari/pong"]
    envs, loop = make_envs(task, 1, backend=backend), make_envs(task, 1)
    ours_s, theirs_s = (
        median_s(lambda each=each: each.reset_row(0, 5), repeats=5) for each in (envs, loop)
    )
    yield row(f"begin an episode of {task.name}, {backend}", "the loop", ours_s, theirs_s, 1)
    if backend == "process":
        ours_s, theirs_s = _made_s(task, "process"), _made_s(task, "loop")
        yield row(f"make an environment of {task.name}, {backend}", "the loop", ours_s, theirs_s, 1)
    envs.close()
    loop.close()


def _made_s(task: Task, backend: Backend) -> float:
    times: list[float] = []
    for _ in range(3):
        begun = time.perf_counter()
        envs = make_envs(task, 1, backend=backend)
        times.append(time.perf_counter() - begun)
        envs.close()
    return float(np.median(times))


def row(
    path: str, against: str, ours_s: float, theirs_s: float, num_envs: int
) -> dict[str, float | str]:
    return {
        "path": path,
        "against": against,
        "ours_s": ours_s,
        "theirs_s": theirs_s,
        "steps_per_s": num_envs / ours_s,
    }


def measures() -> Iterator[dict[str, float | str]]:
    """All rows, one after another."""
    for name in OURS:
        for num_envs in NUM_ENVS:
            yield against_theirs(TASKS[name], num_envs)
            yield against_loop(TASKS[name], num_envs, "process")
            if name.startswith("atari/") and find_spec("envpool"):
                yield against_loop(TASKS[name], num_envs, "envpool")
    for num_envs in NUM_ENVS:
        yield against_loop(CARTPOLE, num_envs, "process")
    yield from begin_and_start("process")
    if find_spec("envpool"):
        yield from begin_and_start("envpool")


def main() -> None:
    """Measure, add the rows to benchmarks/rows.jsonl and write the table."""
    use_threads(1)
    add_rows(measures(), about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
