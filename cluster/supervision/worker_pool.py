"""The worker pool: a run's workers. Gives them their assignments, takes what they did, and starts
again who died or hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from actors.assignment import Assignment, Role
from actors.players.filming import ClipFolder
from actors.players.inference_server import NotServedError
from cluster.journal.records import Event
from cluster.supervision.best import Journal
from cluster.supervision.head_watch import process_of
from cluster.supervision.launch import WorkerHandle, kill_worker
from cluster.supervision.ray_errors import first_line, reason_of
from cluster.supervision.scheduler import Scheduler
from cluster.supervision.task_progress import BREAKS_AFTER
from cluster.supervision.worker_watch import TOLD_AFTER_S, PoolWorker, WorkerWatch
from gato.metrics import Evaluation, WorkerReport

MOVES_BEFORE_S = 3.0
"""Before the end of its node a worker is moved, whatever it does."""


class WorkerPool:
    """Workers that come and go.

    pool = WorkerPool(parts.new_worker, scheduler, journal, hung_after_s=120.0)
    pool.scale(4)
    while ...:
        pool.collect()
        pool.hand_out()
    """

    def __init__(
        self,
        new_worker: Callable[[str], WorkerHandle],
        scheduler: Scheduler,
        journal: Journal,
        *,
        hung_after_s: float,
        clips: ClipFolder | None = None,
    ) -> None:
        self._new_worker = new_worker
        self._scheduler = scheduler
        self._journal = journal
        self._watch = WorkerWatch(journal, hung_after_s=hung_after_s)
        self._clips = clips
        self._workers: list[PoolWorker] = []
        self._named = 0
        self._step = 0
        self._broken: set[tuple[str, Role]] = set()

    def __len__(self) -> int:
        return len(self._workers)

    def _say(self, kind: str, text: str) -> None:
        self._journal.append(Event(kind=kind, text=text))

    def learned(self, step: int) -> None:
        """How many updates the learner had made when it last published."""
        self._step = step

    def scale(self, num_workers: int, text: str = "") -> None:
        """Add workers, or let go of the last ones: what they were doing is done again by others.

        `text`: for the journal, in place of the number alone.
        """
        while len(self._workers) < num_workers:
            name = f"w{self._named}"
            self._named += 1
            self._workers.append(PoolWorker(name=name, handle=self._new_worker(name)))
        while len(self._workers) > num_workers:
            worker = self._workers.pop()
            kill_worker(worker.handle, no_restart=True)
            if worker.assignment is not None:
                self._scheduler.taken_back(worker.assignment)
        self._say("scaled", text or f"{num_workers} workers")

    def end(self) -> None:
        """Let all of them go."""
        for worker in self._workers:
            kill_worker(worker.handle, no_restart=True)
        self._workers.clear()

    def hand_out(self, *, last: bool = False) -> None:
        """Give every free worker something to do; with `last` only what is still to be
        evaluated."""
        for worker in self._workers:
            if worker.assignment is not None or worker.leaves_by_s is not None:
                continue
            if worker.is_down and not self._is_up(worker):
                continue
            now_s = time.monotonic()
            assignment = self._scheduler.next(worker.name, now_s, last=last)
            if assignment is None:
                continue
            worker.assignment, worker.given_s, worker.named = assignment, now_s, False
            worker.tell_s = now_s + TOLD_AFTER_S
            worker.version = self._scheduler.newest
            worker.reference = worker.handle.perform.remote(assignment)

    @property
    def num_waiting(self) -> int:
        """Workers that are being started, or for which the cluster has no place."""
        return sum(worker.is_down for worker in self._workers)

    def _is_up(self, worker: PoolWorker) -> bool:
        """Ask a worker that is not there how far it is, until it answers."""
        if worker.question is None:
            worker.question = worker.handle.progress.remote()
        if not ray.wait([worker.question], timeout=0.0)[0]:
            return False
        question, worker.question = worker.question, None
        try:
            ray.get(question)
        except RayError:
            return False
        if worker.process is not None and process_of(worker.handle) in (None, worker.process):
            return False  # the process that is being ended has answered
        worker.is_down, worker.process = False, None
        return True

    def move(self, leaving: Mapping[str, float]) -> None:
        """Have the workers of nodes that are being drained end what they do, and start elsewhere;
        `leaving`: ids of the nodes, with the monotonic time of their end."""
        for worker in self._workers:
            if leaving and not worker.is_down:
                if worker.leaves_by_s is None:
                    worker.process = process_of(worker.handle)
                if worker.process and (end_s := leaving.get(worker.process.node)) is not None:
                    worker.leaves_by_s = end_s - MOVES_BEFORE_S
            by_s, at = worker.leaves_by_s, worker.assignment
            if by_s is None or (at is not None and time.monotonic() < by_s):
                continue
            kill_worker(worker.handle, no_restart=False)
            self._moved(worker, at)

    def _moved(self, worker: PoolWorker, assignment: Assignment | None) -> None:
        what = "its node is being drained; it starts where there is room"
        if assignment is not None:
            self._scheduler.taken_back(assignment)
            what += f"; its {assignment.role} of {assignment.task} is done again"
        worker.assignment = worker.reference = worker.question = worker.leaves_by_s = None
        worker.is_down, worker.hung = True, ""
        self._say("worker moved", f"{worker.name}: {what}")

    def collect(self) -> None:
        """Take what was done; what a dead or hanging worker was at goes back."""
        for worker in self._workers:
            if worker.reference is None or worker.assignment is None:
                continue
            done, _ = ray.wait([worker.reference], timeout=0.0)
            if done:
                self._take(worker, worker.assignment, worker.reference)
            else:
                self._watch(worker, worker.assignment)
        for name, role in self._scheduler.broken:
            if (name, role) not in self._broken:
                self._broken.add((name, role))
                self._say(
                    "task failed",
                    f"{name} failed {BREAKS_AFTER} times to {role}; left alone until gato resume",
                )

    def _take(
        self,
        worker: PoolWorker,
        assignment: Assignment,
        reference: ray.ObjectRef[tuple[WorkerReport, Evaluation | None]],
    ) -> None:
        worker.assignment = worker.reference = worker.question = None
        hung, worker.hung = worker.hung, ""
        try:
            report, evaluation = ray.get(reference)
        except RayTaskError as failure:
            if isinstance(failure.cause, NotServedError):  # no fault of the task's
                self._scheduler.taken_back(assignment)
                self._say(
                    "not served",
                    f"{worker.name} at {assignment.role} of {assignment.task}: {failure.cause}",
                )
                return
            # An exception in the worker's code: again would be the same.
            self._give_up(worker, assignment, str(failure.cause or failure))
            return
        except RayError as failure:
            if worker.leaves_by_s is not None:  # its node was faster
                self._moved(worker, assignment)
                return
            worker.is_down = True
            if hung:
                self._give_up(worker, assignment, hung)
                return
            self._scheduler.died(assignment, given_s=worker.given_s, now_s=time.monotonic())
            what = f"{worker.name} at {assignment.role} of {assignment.task}"
            self._say(
                "worker died", f"{what}; starts again where there is room ({reason_of(failure)})"
            )
            return
        self._scheduler.done(worker.name, assignment, report, time.monotonic())
        self._journal.append(report)
        if report.failed and evaluation is None:
            self._say(
                "worker failed",
                f"{worker.name} at {assignment.role} of {assignment.task}:"
                f" {first_line(report.failed)}",
            )
        if evaluation is not None:
            self._journal.append(replace(evaluation, worker=worker.name))
            if assignment.film:
                self._keep_clip(worker, evaluation)

    def _keep_clip(self, worker: PoolWorker, evaluation: Evaluation) -> None:
        """The newest clip of a task, in the run's folder; without one the run goes on."""
        try:
            clip = ray.get(worker.handle.take_clip.remote(), timeout=5.0)
            problem = self._clips.keep(clip, evaluation) if self._clips is not None else None
        except (RayError, GetTimeoutError, OSError) as failure:
            problem = reason_of(failure)
        if problem:
            self._say("no clip", problem)

    def _give_up(self, worker: PoolWorker, assignment: Assignment, reason: str) -> None:
        """An assignment that cannot be done: an evaluation counts as failed, for the rest the task
        is left alone a while."""
        self._scheduler.failed(
            assignment, worker.version, given_s=worker.given_s, now_s=time.monotonic()
        )
        self._say(
            "worker failed",
            f"{worker.name} at {assignment.role} of {assignment.task}: {first_line(reason)}",
        )
        if assignment.role == "evaluate" and worker.version is not None:
            self._journal.append(
                Evaluation(
                    task=assignment.task,
                    version=worker.version,
                    learner_step=self._step,
                    failed=reason[:500],
                    worker=worker.name,
                )
            )
