"""Environments that break: the episode is dropped with its reason; other rows and seeds play on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.assignment import Assignment
from actors.envs.env import Backend, Env, EnvFailedError
from actors.envs.factory import WorkerEnvs, make_env, make_envs
from actors.envs.process_env import ProcessEnv
from actors.envs.vector import VectorEnv
from actors.rollout import Dropped, play, rollout
from actors.worker import Worker
from gato.episode import Episode
from gato.task import Task
from gato.version import Version
from tests.actors.fakes import ListSink, ListSource, RandomPlayer
from tests.actors.faulty import FAULTS, faulty

ROOT = Path(__file__).resolve().parents[3]
SEEDS = [0, 1, 2, 3, 4]
REASONS = {
    "raise": "the wheels came off",
    "nan": "state is not finite",
    "inf": "state is not finite",
    "shape": "shape",
    "dtype": "could not convert",
    "pay nan": "returned reward nan",
    "pay much": r"returned reward 1e\+39",
    "reset": "it will not begin",
    "hang": "no answer in 0.5 s; its process was killed",
    "abort": r"its process died \(SIGABRT\)",
    "exit": r"its process died \(exit status 3\)",
}


def survives(task: Task, envs: VectorEnv, reason: str) -> None:
    played = list(rollout(envs, RandomPlayer(task), SEEDS, source="agent", new_key=lambda: "k"))
    envs.close()
    dropped = [each for each in played if isinstance(each, Dropped)]
    whole = [each for each in played if not isinstance(each, Dropped)]
    assert sorted(each.seed for each in dropped) == [1, 3]
    assert sorted((each.seed, each.num_steps) for each in whole) == [(0, 5), (2, 5), (4, 5)]
    for each in dropped:
        assert each.step == (0 if task.env_kwargs["fault"] == "reset" else 2)
        assert re.search(reason, each.reason)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_breaks_costs_its_episode_alone(fault: str) -> None:
    task = faulty(fault)
    survives(task, make_envs(task, 2), REASONS[fault])


def test_what_hangs_or_dies_in_a_process_of_its_own_costs_its_episode_alone() -> None:
    task = faulty("hang,abort,exit,raise")
    envs = make_envs(task, 1, backend="process", step_timeout_s=1.0)
    played = list(rollout(envs, RandomPlayer(task), range(9), source="agent", new_key=lambda: "k"))
    envs.close()
    assert [each.seed for each in played] == [*range(9)]
    assert [each.reason for each in played if isinstance(each, Dropped)] == [
        "TimeoutError('no answer in 1 s; its process was killed')",
        "RuntimeError('its process died (SIGABRT)')",
        "RuntimeError('its process died (exit status 3)')",
        "RuntimeError(\"OSError('the wheels came off')\")",
    ]


def test_strict_play_ends_at_the_first_that_breaks() -> None:
    task = faulty("raise")
    with pytest.raises(
        EnvFailedError,
        match=r"faulty/raise broke at step 2 of seed 1: OSError\('the wheels came off'\)",
    ):
        list(
            play(make_envs(task, 2), RandomPlayer(task), SEEDS, source="agent", new_key=lambda: "k")
        )


def test_a_step_that_breaks_in_one_row_is_whole_in_the_others() -> None:
    task = faulty("raise")
    envs = make_envs(task, 2)
    played = list(rollout(envs, RandomPlayer(task), [1, 2]))  # seed 1 breaks in its third step
    envs.close()
    dropped, whole = played
    assert isinstance(dropped, Dropped)
    assert (dropped.seed, dropped.step) == (1, 2)
    assert isinstance(whole, Episode)
    assert whole.seed == 2
    assert whole.rewards.tolist() == [1.0] * 5
    # The observations of all five steps, (seed, step), that of the third as well.
    assert whole.observations["state"].tolist() == [[2.0, step] for step in range(5)]


@pytest.mark.parametrize("backend", ["loop", "process"])
def test_what_teachers_may_look_at_is_the_same_in_each_step_or_the_episode_is_dropped(
    backend: Backend,
) -> None:
    task = faulty("extras")
    envs = make_envs(task, 2, backend=backend)
    played = list(rollout(envs, RandomPlayer(task), [0, 1, 2], with_extras=True))
    envs.close()
    dropped = [each for each in played if isinstance(each, Dropped)]
    assert len(dropped) == len(played) == 3
    assert sorted((each.seed, each.step) for each in dropped) == [(0, 0), (1, 0), (2, 0)]
    for each in dropped:
        assert "info of teacher was nothing at first and is wanted ()" in each.reason


class _Loaded(RandomPlayer):
    def load(self, weights: object) -> None: ...


def new_worker(task: Task) -> tuple[Worker, ListSink]:
    sink = ListSink()
    return (
        Worker(
            "w0",
            {task.name: task},
            lambda *_: _Loaded(task),
            sink,
            ListSource([Version(1, 1)]),
            make=make_envs,
        ),
        sink,
    )


def test_a_worker_counts_what_was_dropped_by_its_reason_and_hands_in_the_rest() -> None:
    worker, sink = new_worker(faulty("raise"))
    report, _ = worker.perform(Assignment(role="generate", task="faulty/raise", seeds=(0, 1, 2, 3)))
    assert report.dropped == {"OSError('the wheels came off')": 2}
    assert report.refused == {}
    assert sorted(episode.seed for episode in sink.episodes) == [0, 2]
    again, _ = worker.perform(Assignment(role="generate", task="faulty/raise", seeds=(4, 5, 6, 7)))
    assert again.episodes == 2


def test_an_evaluation_with_a_seed_that_broke_is_failed_and_has_no_returns() -> None:
    worker, _ = new_worker(faulty("raise"))
    report, evaluation = worker.perform(
        Assignment(role="evaluate", task="faulty/raise", seeds=(0, 1))
    )
    assert evaluation is not None
    assert evaluation.returns == ()
    assert "broke at step 2 of seed 1" in (evaluation.failed or "")
    assert report.dropped == {"OSError('the wheels came off')": 1}


def test_a_task_that_always_breaks_fails_its_assignment() -> None:
    worker, _ = new_worker(faulty("raise", always=True))
    report, _ = worker.perform(Assignment(role="generate", task="faulty/raise", seeds=(0, 1)))
    assert report.dropped == {"OSError('the wheels came off')": 2}
    assert report.failed is not None
    assert "broke in every episode" in report.failed


def test_one_that_cannot_be_made_in_a_process_is_a_value_error_and_leaves_no_process() -> None:
    with pytest.raises(ValueError, match=r"cannot make tests.actors.faulty:Nothing-v0"):
        make_envs(
            replace(faulty("none"), env_id="tests.actors.faulty:Nothing-v0"), 1, backend="process"
        )


def test_a_process_ends_with_its_environment() -> None:
    env = ProcessEnv(faulty("none"), step_timeout_s=5.0)
    env.wait_until_made()
    env.close()
    env.close()
    with pytest.raises(ProcessLookupError):
        os.kill(env.pid, 0)


def test_processes_end_with_the_process_that_started_them() -> None:
    program = """
import os, signal
from actors.envs.factory import make_envs
from tests.actors.faulty import faulty

envs = make_envs(faulty("none"), 1, backend="process")
print("made", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # The environment's process holds the other end of this output: that it is read to its end says
    # that it ended.
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGKILL, "made\n", "")


def test_workers_play_users_environments_in_processes() -> None:
    crashes = WorkerEnvs()(faulty("abort"), 1)
    crashes.reset_row(0, 1)
    actions, rows = np.zeros(1, np.int64), np.ones(1, np.bool_)
    crashes.step(actions, rows)
    crashes.step(actions, rows)
    with pytest.raises(EnvFailedError, match=r"its process died \(SIGABRT\)"):
        crashes.step(actions, rows)
    crashes.close()


def test_a_broken_environment_that_cannot_be_made_again_costs_each_episode() -> None:
    task, made = faulty("raise"), [0]

    def once() -> Env:
        made[0] += 1
        raise ValueError("no more of these")

    envs = VectorEnv(task, [make_env(task)], make=once)
    played = list(
        rollout(envs, RandomPlayer(task), [0, 1, 2, 3], source="agent", new_key=lambda: "k")
    )
    assert [each.seed for each in played if isinstance(each, Dropped)] == [1, 2, 3]
    assert "no more of these" in str(played[-1])
    assert made == [2]
