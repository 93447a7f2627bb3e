"""The pool: workers that die or hang are started again, and what they were at is done again or
given up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from actors.assignment import Assignment, WorkerProgress
from actors.config import ActorsConfig
from cluster.journal.records import Event
from cluster.journal.writer import JournalWriter
from cluster.supervision import task_progress, worker_pool, worker_watch
from cluster.supervision.scheduler import Scheduler
from cluster.supervision.worker_pool import WorkerPool
from gato.metrics import AssignmentProgress, Evaluation, WorkerReport
from gato.version import Version


class Player:
    """Does what it is told at once; in the role it was made to fear it stops for ever, or ends its
    process.

    Where `dies_once` names a file that is not there, it makes it, dies, and takes its time to start
    again.
    """

    def __init__(self, name: str, hangs_at: str, dies_at: str, dies_once: str) -> None:
        self._name, self._hangs_at, self._dies_at, self._dies_once = (
            name,
            hangs_at,
            dies_at,
            dies_once,
        )
        if dies_once and Path(dies_once).exists():
            threading.Event().wait(6.0)  # as imports do on a busy machine
        self._begun_s = time.monotonic()
        self._assignment: Assignment | None = None

    def perform(self, assignment: Assignment) -> tuple[WorkerReport, Evaluation | None]:
        self._assignment, self._begun_s = assignment, time.monotonic()
        if assignment.role == self._hangs_at:
            threading.Event().wait()
        if assignment.role == self._dies_at:
            os._exit(1)
        if self._dies_once and not Path(self._dies_once).exists():
            Path(self._dies_once).touch()
            os._exit(1)
        report = WorkerReport(
            worker=self._name,
            role=assignment.role,
            task=assignment.task,
            version=None,
            episodes=1,
            env_steps=60,
            wall_s=0.1,
        )
        return report, None

    def progress(self) -> WorkerProgress:
        return WorkerProgress(
            assignment=self._assignment,
            episodes=2,
            steps=3,
            env_steps=7,
            last_step_age_s=time.monotonic() - self._begun_s,
        )


class Notes:
    """A journal as a list."""

    def __init__(self) -> None:
        self.records: list[object] = []

    def append(self, record: object) -> None:
        self.records.append(record)

    def events(self, kind: str) -> list[str]:
        return [r.text for r in self.records if isinstance(r, Event) and r.kind == kind]


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def pool_of(
    *, hangs_at: str = "", dies_at: str = "", dies_once: str = "", hung_after_s: float = 60.0
) -> tuple[WorkerPool, Scheduler, Notes]:
    config = ActorsConfig(num_envs=1, demonstration_steps=100, generate_share=0.5)
    scheduler = Scheduler(config, ["a"], demonstration_steps={}, teachable=["a"], seed=0)
    notes = Notes()
    remote: Any = ray.remote(Player)

    def new_worker(name: str) -> Any:
        return remote.options(num_cpus=0, max_restarts=-1, max_concurrency=2).remote(
            name, hangs_at, dies_at, dies_once
        )

    return (
        WorkerPool(new_worker, scheduler, cast(JournalWriter, notes), hung_after_s=hung_after_s),
        scheduler,
        notes,
    )


def run(pool: WorkerPool, until: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 200.0
    while not until():
        assert time.monotonic() < deadline_s
        pool.hand_out()
        pool.collect()
        time.sleep(0.02)


@pytest.mark.usefixtures("_ray")
def test_a_worker_that_hangs_is_killed_and_its_evaluation_counts_as_failed() -> None:
    pool, scheduler, notes = pool_of(hangs_at="evaluate", hung_after_s=1.0)
    pool.scale(1)
    run(pool, lambda: sum(isinstance(r, WorkerReport) for r in notes.records) == 2)
    scheduler.published(Version(1, 1))
    run(pool, lambda: any(isinstance(r, Evaluation) for r in notes.records))
    failed = next(r for r in notes.records if isinstance(r, Evaluation))
    assert failed.failed is not None
    assert "no step for" in failed.failed
    before = len(notes.records)
    run(
        pool,
        lambda: any(
            isinstance(r, WorkerReport) and r.role == "generate" for r in notes.records[before:]
        ),
    )
    pool.end()


@pytest.mark.usefixtures("_ray")
def test_the_journal_is_told_how_far_a_long_assignment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "TOLD_AFTER_S", 0.3)
    monkeypatch.setattr(worker_watch, "TOLD_EVERY_S", 0.2)
    monkeypatch.setattr(worker_watch, "WATCH_EVERY_S", 0.05)
    pool, _, notes = pool_of(hangs_at="demonstrate")
    pool.scale(1)

    def told() -> list[AssignmentProgress]:
        return [r for r in notes.records if isinstance(r, AssignmentProgress)]

    run(pool, lambda: len(told()) == 3)
    first, second, third = told()
    assert (first.worker, first.role, first.task) == ("w0", "demonstrate", "a")
    assert 0.3 <= first.wall_s < second.wall_s < third.wall_s
    assert third.wall_s - second.wall_s >= 0.2
    assert (first.episodes, first.env_steps) == (2, 7)
    pool.end()


@pytest.mark.usefixtures("_ray")
def test_a_worker_that_takes_long_to_start_again_died_once(tmp_path: Path) -> None:
    pool, scheduler, notes = pool_of(dies_once=str(tmp_path / "died"))
    pool.scale(1)
    run(pool, lambda: sum(isinstance(r, WorkerReport) for r in notes.records) == 2)
    assert len(notes.events("worker died")) == 1
    assert scheduler.broken == []
    pool.end()


@pytest.mark.usefixtures("_ray")
def test_a_task_that_kills_every_worker_is_left_alone_and_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(task_progress, "BREAKS_AFTER", 3)  # each death takes a start of a process
    monkeypatch.setattr(worker_pool, "BREAKS_AFTER", 3)
    pool, scheduler, notes = pool_of(dies_at="demonstrate")
    pool.scale(1)
    run(pool, lambda: scheduler.is_hopeless)
    run(pool, lambda: notes.events("task failed"))
    # deaths, not calls that met a worker on its way back
    assert 3 <= len(notes.events("worker died")) <= 4
    assert notes.events("task failed") == [
        "a failed 3 times to demonstrate; left alone until gato resume"
    ]
    pool.scale(0)
    assert len(pool) == 0


@pytest.mark.usefixtures("_ray")
def test_workers_of_a_node_that_is_drained_are_moved_and_no_death_is_counted() -> None:
    pool, scheduler, notes = pool_of(hangs_at="evaluate")
    pool.scale(2)
    run(pool, lambda: sum(isinstance(r, WorkerReport) for r in notes.records) >= 2)
    scheduler.published(Version(1, 1))
    workers: Any = getattr(pool, "_workers")  # noqa: B009
    run(pool, lambda: any(w.assignment and w.assignment.role == "evaluate" for w in workers))
    # one of them hangs from now on
    here = ray.get_runtime_context().get_node_id()
    end_s = time.monotonic() + 3600.0
    pool.move({"another": end_s})
    assert notes.events("worker moved") == []

    pool.move({here: end_s})
    run(pool, lambda: pool.move({here: end_s}) or len(notes.events("worker moved")) == 1)
    assert "done again" not in notes.events("worker moved")[0]  # it had ended what it did
    reports = len(notes.records)
    pool.hand_out()
    pool.collect()
    assert len(notes.records) == reports  # nothing new goes there

    pool.move({here: time.monotonic()})
    assert "its evaluate of a is done again" in notes.events("worker moved")[1]
    assert pool.num_waiting == 2
    pool.move({})  # they are elsewhere
    run(pool, lambda: pool.num_waiting == 0)
    assert notes.events("worker died") == []
    assert scheduler.broken == []
    pool.end()
