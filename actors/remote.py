"""A worker as a Ray actor."""

from __future__ import annotations

import os
from collections.abc import Mapping

import ray
import torch

from actors.agent import GatoPlayers
from actors.assignment import Assignment, WorkerProgress
from actors.teachers import Teachers
from actors.worker import EpisodeSink, WeightsSource, Worker
from gato.metrics import Evaluation, WorkerReport
from gato.task import Task


class WorkerActor:
    """Holds a `Worker` in a process of its own, on one core."""

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, Task],
        players: GatoPlayers,
        sink: EpisodeSink,
        source: WeightsSource,
        teachers: Teachers,
        niceness: int,
    ) -> None:
        os.nice(niceness)
        torch.set_num_threads(1)
        self._worker = Worker(name, tasks, players, sink, source, teachers=teachers)

    @ray.method
    def perform(self, assignment: Assignment) -> tuple[WorkerReport, Evaluation | None]:
        return self._worker.perform(assignment)

    @ray.method
    def progress(self) -> WorkerProgress:
        """Answers while `perform` plays, given `max_concurrency=2`."""
        return self._worker.progress()

    @ray.method
    def pid(self) -> int:
        """Of the worker's process, which tests kill."""
        return os.getpid()


RemoteWorker = ray.remote(WorkerActor)
