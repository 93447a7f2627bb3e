"""The journal as named series of numbers, which every exporter writes: the names are documented in
docs/how-to/exporters.md and stay as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, final

from cluster.journal.journal import Entry
from cluster.monitor.scores import Scale, TaskState, failure_of
from gato.metrics import Evaluation, LearnerReport, Mean, ReplayStats, WorkerReport


class Sample(NamedTuple):
    """One point of one series."""

    name: str
    """Such as `evaluate/return/mujoco/hopper`."""
    step: int
    """Updates of the learner: those that the weights had made, of evaluations."""
    time_s: float
    """Wall-clock time."""
    value: float


@final
class Series:
    """Turns entries of a journal into samples; entries go in in their order, from the first on.

    series = Series(scales)
    for entry in journal.read():
        for sample in series.samples(entry): ...
    """

    def __init__(self, scales: Mapping[str, Scale]) -> None:
        self._scales = scales
        self._step = 0
        self._tasks: dict[str, TaskState] = {}
        self._tokens = 0
        self._env_steps = 0
        self._episodes = 0

    def samples(self, entry: Entry) -> list[Sample]:
        """What one entry adds; numbers that are not finite are left out."""
        step = self._step
        match entry.record:
            case LearnerReport() as record:
                self._step = step = record.step
                values = self._learned(record)
            case Evaluation() as record:
                step = record.learner_step
                values = self._evaluated(record)
            case WorkerReport() as record:
                values = self._worked(record)
            case ReplayStats() as record:
                values = _stored(record)
            case _:
                return []
        return [
            Sample(name, step, entry.time_s, float(value))
            for name, value in values
            if math.isfinite(value)
        ]

    def _learned(self, record: LearnerReport) -> Iterator[tuple[str, float]]:
        self._tokens += record.tokens
        yield "learner/loss", record.loss.value
        for task, loss in record.loss_by_task.items():
            yield f"learner/loss/{task}", loss.value
        for task, accuracy in record.accuracy_by_task.items():
            yield f"learner/accuracy/{task}", accuracy.value
        if record.accuracy_by_task:
            yield "learner/accuracy", sum(record.accuracy_by_task.values(), Mean()).value
        if record.loss.count:  # the last report may tell of a publication alone
            yield "learner/learning_rate", record.learning_rate
            yield "learner/gradient_norm", record.gradient_norm
        for part, norm in record.norm_by_part.items():
            yield f"learner/gradient_norm/{part}", norm
        yield "learner/tokens", self._tokens
        yield "learner/memory_bytes", record.memory_bytes
        if record.wall_s > 0 and (record.tokens or record.wait_s > 0):
            yield "learner/mfu", record.mfu
            yield "learner/tokens_per_s", record.tokens / record.wall_s
            yield "learner/wait_share", record.wait_s / record.wall_s
            yield "learner/blocked_share", record.blocked_s / record.wall_s
            for what, spent_s in record.seconds.items():
                yield f"learner/time_share/{what}", spent_s / record.wall_s

    def _evaluated(self, record: Evaluation) -> Iterator[tuple[str, float]]:
        task = self._tasks.get(record.task, TaskState()).after(record)
        self._tasks[record.task] = task
        if failure_of(record) is not None:
            yield f"evaluate/failed/{record.task}", task.num_failed
            return
        score = task.scores[record.version]  # of the evaluation with the most episodes
        yield f"evaluate/return/{record.task}", score.returns.mean
        yield f"evaluate/return_std/{record.task}", score.returns.std
        yield f"evaluate/episodes/{record.task}", score.returns.count
        for measure, mean in record.measures.items():
            yield f"evaluate/{measure}/{record.task}", mean.value
        scale = self._scales.get(record.task)
        if scale is not None:
            yield f"evaluate/normalised/{record.task}", scale.normalise(score.returns.mean)

    def _worked(self, record: WorkerReport) -> Iterator[tuple[str, float]]:
        self._env_steps += record.env_steps
        self._episodes += record.episodes
        yield "workers/env_steps", self._env_steps
        yield "workers/episodes", self._episodes
        if record.wall_s > 0:
            yield f"workers/wait_share/{record.worker}", record.wait_s / record.wall_s
        if record.returns.count:
            yield f"workers/return/{record.role}/{record.task}", record.returns.value


def _stored(record: ReplayStats) -> Iterator[tuple[str, float]]:
    yield "replay/fill", record.fill if record.capacity_bytes else math.nan
    yield "replay/episodes", sum(record.episodes.values())
    for task, count in record.episodes.items():
        yield f"replay/episodes/{task}", count
    yield "replay/steps", record.steps
    yield "replay/stored_bytes", record.stored_bytes
    yield "replay/inserted_tokens", record.inserted_tokens
    yield "replay/read_tokens", record.read_tokens
    yield "replay/rejected", sum(record.refused.values())
    yield "replay/evicted", record.evicted
    yield "replay/writers_waiting", record.writers_waiting
    yield "replay/readers_waiting", record.readers_waiting
