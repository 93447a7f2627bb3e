"""Watches busy workers: tells how far they are, and ends those that hang."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from actors.assignment import Assignment, WorkerProgress
from cluster.journal.records import Event
from cluster.supervision.best import Journal
from cluster.supervision.head_watch import Process
from cluster.supervision.launch import WorkerHandle, kill_worker
from gato.metrics import AssignmentProgress, Evaluation, WorkerReport
from gato.version import Version

WATCH_EVERY_S = 5.0
"""Between two questions to a busy worker, how far it is."""
TOLD_AFTER_S = 8.0
"""After this long at one assignment the journal is told how far it is,"""
TOLD_EVERY_S = 40.0
"""and so often after that."""
LONG_S = 300.0
"""After this long at one assignment a worker is named in the journal."""


@dataclass(slots=True)
class PoolWorker:
    """A worker of the pool, and what it is doing."""

    name: str
    handle: WorkerHandle
    reference: ray.ObjectRef[tuple[WorkerReport, Evaluation | None]] | None = None
    assignment: Assignment | None = None
    given_s: float = 0.0
    tell_s: float = 0.0
    """When the journal is told next how far it is."""
    named: bool = False
    """Whether its long silence has been reported."""
    question: ray.ObjectRef[WorkerProgress] | None = None
    asked_s: float = 0.0
    is_down: bool = True
    """It is being started, waits for a place in the cluster, or died: it has not answered since."""
    version: Version | None = None
    """The newest when its assignment was given."""
    hung: str = ""
    """Why it was killed."""
    process: Process | None = None
    """The one that it had when a node was drained."""
    leaves_by_s: float | None = None
    """Its node is being drained: it gets nothing new, and is moved then at the latest."""


class WorkerWatch:
    """Asks busy workers, now and then, how far they are.

    watch = WorkerWatch(journal, hung_after_s=120.0)
    watch(worker, worker.assignment)
    """

    def __init__(self, journal: Journal, *, hung_after_s: float) -> None:
        self._journal = journal
        self._hung_after_s = hung_after_s

    def __call__(self, worker: PoolWorker, assignment: Assignment) -> None:
        """Ask, or take the answer; kill the worker where it makes no step, or does not even
        answer."""
        now_s = time.monotonic()
        if now_s - worker.given_s > LONG_S and not worker.named:
            worker.named = True
            at = f"{assignment.role} of {assignment.task}"
            text = f"worker {worker.name} has been at one {at} for {now_s - worker.given_s:.0f} s"
            self._journal.append(Event(kind="no progress", text=text))
        if worker.question is None:
            if now_s - worker.asked_s > min(WATCH_EVERY_S, self._hung_after_s / 2):
                worker.question, worker.asked_s = worker.handle.progress.remote(), now_s
            return
        silent_s = now_s - worker.asked_s
        if ray.wait([worker.question], timeout=0.0)[0]:
            question, worker.question = worker.question, None
            try:
                progress = ray.get(question)
            except RayError:
                return  # it died: its assignment will say so
            silent_s = progress.last_step_age_s
            self._tell(worker, assignment, progress, now_s)
        if silent_s > self._hung_after_s and not worker.hung:
            worker.hung = f"no step for {silent_s:.0f} s; killed and started again"
            kill_worker(worker.handle, no_restart=False)

    def _tell(
        self, worker: PoolWorker, assignment: Assignment, progress: WorkerProgress, now_s: float
    ) -> None:
        """Write down how far a worker is, if that is due. An answer of the assignment before tells
        nothing."""
        if progress.assignment != assignment or now_s < worker.tell_s:
            return
        worker.tell_s = now_s + TOLD_EVERY_S
        self._journal.append(
            AssignmentProgress(
                worker=worker.name,
                role=assignment.role,
                task=assignment.task,
                version=progress.version,
                episodes=progress.episodes,
                env_steps=progress.env_steps,
                wall_s=now_s - worker.given_s,
            )
        )
