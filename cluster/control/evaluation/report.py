"""What a checkpoint returned on each task, raw and normalised, and over all tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.monitor.iqm import Aggregate, aggregate
from cluster.monitor.scores import MEASURES, Measure, Scale, finite


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The returns of one task."""

    task: str
    learner_step: int
    returns: tuple[float, ...]
    """Raw return of each episode."""
    scale: Scale | None
    """What returns are normalised by; None if the task has no references."""
    is_trained: bool
    """Whether the run was trained on the task."""
    warnings: tuple[str, ...] = ()
    successes: tuple[bool, ...] = ()
    """Whether each episode solved the task; empty if its environment does not say."""
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What `Evaluation.measures` says of held-out records, by name."""

    @property
    def success_rate(self) -> float | None:
        """The share of episodes that solved the task; None if its environment does not say."""
        return sum(self.successes) / len(self.successes) if self.successes else None

    @property
    def mean(self) -> float:
        return math.fsum(self.returns) / len(self.returns)

    @property
    def std(self) -> float:
        """Population standard deviation over episodes."""
        mean = self.mean
        return math.sqrt(math.fsum((r - mean) ** 2 for r in self.returns) / len(self.returns))

    def normalised(self, by: Measure = "teacher") -> float | None:
        """The mean return on the scale of `by`; None if it has no such reference."""
        return finite(self.scale.normalise(self.mean, by=by)) if self.scale else None

    def scores(self, by: Measure) -> list[float]:
        """Each episode on the scale of `by`; empty if it has no such reference."""
        if self.scale is None or self.normalised(by) is None:
            return []
        return [self.scale.normalise(value, by=by) for value in self.returns]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """The evaluation of one checkpoint.

    report = evaluate_run("demo", episodes=20)
    report.tasks["mujoco/hopper"].mean, report.aggregate("teacher").iqm
    """

    checkpoint: Path
    tasks: Mapping[str, TaskResult]
    clips: Mapping[str, Path]
    """The film of each task's first episode, if it was filmed."""
    clip_problems: tuple[str, ...] = ()
    """Why a film is missing."""

    def aggregate(self, by: Measure = "teacher") -> Aggregate | None:
        """Interquartile mean over tasks; None if no task has such a reference."""
        return aggregate([scores for task in self.tasks.values() if (scores := task.scores(by))])

    @property
    def success_rates(self) -> dict[str, float]:
        """By task, where it is known."""
        rates = {name: task.success_rate for name, task in self.tasks.items()}
        return {name: rate for name, rate in rates.items() if rate is not None}

    @property
    def aggregates(self) -> dict[Measure, Aggregate | None]:
        return {by: self.aggregate(by) for by in MEASURES}
