"""The evaluations of a run as curves: each point with the update, time, tokens and environment
steps at which its weights were made."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from cluster.journal.journal import START, Entry, JournalReader
from cluster.monitor.epochs import Epochs
from cluster.monitor.scores import Scale, Score, Spread, failure_of
from gato.metrics import Evaluation, LearnerReport, WorkerReport
from gato.version import Version

Axis = Literal["updates", "hours", "tokens", "env_steps"]
AXES: tuple[Axis, ...] = get_args(Axis)
OVERALL = ""
"""Stands for all tasks together where names of tasks stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one version of the weights returned on a task."""

    updates: float
    hours: float
    """Since the run began, with the time in which it was stopped."""
    tokens: float
    """Trained on by then."""
    env_steps: float
    """Played by all workers by then, those of evaluations left out."""
    returns: Spread
    normalised: float | None
    """None for a task without a scale."""

    def at(self, axis: Axis) -> float:
        return getattr(self, axis)

    @property
    def value(self) -> float:
        """The normalised return where there is one, else the raw one."""
        return self.returns.mean if self.normalised is None else self.normalised


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """A run's evaluations by task, in the order of updates."""

    run: str
    tasks: Mapping[str, tuple[Point, ...]] = field(default_factory=dict[str, tuple[Point, ...]])
    losses: tuple[tuple[float, float], ...] = ()
    """Update and loss of each report of the learner."""


def entries_of(journal: JournalReader) -> Iterator[Entry]:
    """All entries that are there now, from the first to the newest."""
    last = START
    while entries := journal.read(last):
        yield from entries
        last = entries[-1].id


class _Progress:
    """What had been done by an update, told by the learner's reports, and its loss."""

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._rows: list[tuple[float, float, float]] = []
        self.losses: list[tuple[float, float]] = []

    def note(self, report: LearnerReport, hours: float, tokens: float, env_steps: float) -> None:
        step, loss = report.step, report.loss
        if self._steps and step < self._steps[-1]:
            # It went back to a checkpoint and makes updates again: those before were lost.
            kept = bisect_left(self._steps, step)
            del self._steps[kept:], self._rows[kept:]
        if not self._steps or step > self._steps[-1]:  # it also reports while it waits
            self._steps.append(step)
            self._rows.append((hours, tokens, env_steps))
        if loss.count and math.isfinite(loss.value):
            while self.losses and self.losses[-1][0] >= step:
                self.losses.pop()
            self.losses.append((float(step), loss.value))

    def at(self, step: int) -> tuple[float, float, float]:
        place = bisect_right(self._steps, step)
        return self._rows[place - 1] if place else (0.0, 0.0, 0.0)


def read_curves(journal: JournalReader, run: str, scales: Mapping[str, Scale]) -> Curves:
    """Go once through a journal. Weights that were lost, as the learner resumed from an older
    checkpoint, are left out."""
    found: dict[str, dict[Version, Score]] = {}
    progress, epochs = _Progress(), Epochs()
    first_s, tokens, env_steps = math.inf, 0.0, 0.0
    for entry in entries_of(journal):
        first_s = min(first_s, entry.time_s)
        epochs.note(entry.record)
        match entry.record:
            case Evaluation() as record if failure_of(record) is None:
                versions = found.setdefault(record.task, {})
                known = versions.get(record.version)
                if known is None or len(record.returns) >= known.returns.count:
                    returns = Spread.of(record.returns)
                    versions[record.version] = Score(
                        learner_step=record.learner_step, returns=returns
                    )
            case LearnerReport() as record:
                tokens += record.tokens
                progress.note(record, (entry.time_s - first_s) / 3600, tokens, env_steps)
            case WorkerReport() as record if record.role != "evaluate":
                env_steps += record.env_steps
            case _:
                pass
    tasks: dict[str, tuple[Point, ...]] = {}
    for name, versions in sorted(found.items()):
        kept = {v: s for v, s in versions.items() if not epochs.has_lost(v, s.learner_step)}
        if kept:
            tasks[name] = _points(kept, progress, scales.get(name))
    return Curves(run=run, tasks=tasks, losses=tuple(progress.losses))


def _points(
    versions: Mapping[Version, Score], progress: _Progress, scale: Scale | None
) -> tuple[Point, ...]:
    by_step = {versions[version].learner_step: versions[version] for version in sorted(versions)}
    points: list[Point] = []
    for step, score in sorted(by_step.items()):
        hours, tokens, env_steps = progress.at(step)
        normalised = math.nan if scale is None else scale.normalise(score.returns.mean)
        points.append(
            Point(
                updates=step,
                hours=hours,
                tokens=tokens,
                env_steps=env_steps,
                returns=score.returns,
                normalised=normalised if math.isfinite(normalised) else None,
            )
        )
    return tuple(points)
