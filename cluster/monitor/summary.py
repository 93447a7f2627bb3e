"""The status of a run: tasks, learner, replay, workers and events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from cluster.journal.journal import START
from cluster.journal.records import Event
from cluster.monitor.iqm import Aggregate, aggregate
from cluster.monitor.scores import (
    MEASURES,
    Measure,
    Scale,
    Score,
    TaskState,
    finite,
    mean_success,
)
from gato.metrics import AssignmentProgress, LearnerReport, ReplayStats, WorkerReport
from gato.version import Version

WINDOW_S = 60.0
"""Rates are of the reports of the last minute."""
_aggregate = lru_cache(maxsize=16)(aggregate)
"""A picture is drawn every second, and most seconds bring no evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """One worker, by its reports."""

    latest: WorkerReport
    """Empty if it has ended no assignment yet."""
    time_s: float
    """When it last reported, or told how far it is."""
    at: AssignmentProgress | None = None
    """Of an assignment that takes long; None once its report is there."""
    age_versions: int | None = None
    """Versions published since the one it last played, at that time; None if it plays no
    weights."""
    age_s: float | None = None
    """For how long there had been newer weights by then."""
    recent: tuple[tuple[float, WorkerReport], ...] = ()
    wait_s: float = 0.0
    worked_s: float = 0.0
    refused: Mapping[str, int] = field(default_factory=dict[str, int])

    def is_current(self, now_s: float) -> bool:
        # In a long assignment it tells how far it is; else the last one says how long one takes.
        within_s = WINDOW_S if self.at is not None else max(WINDOW_S, 2 * self.latest.wall_s)
        return abs(now_s - self.time_s) <= within_s

    def assignment_s(self, now_s: float) -> float | None:
        """For how long it has been at an assignment that takes long."""
        return None if self.at is None else self.at.wall_s + max(0.0, now_s - self.time_s)

    @property
    def newest(self) -> WorkerReport | AssignmentProgress:
        """What it told last."""
        return self.at or self.latest

    def env_steps_per_s(self, task: str | None = None) -> float:
        """Environment steps of `task` (of all tasks without one) a second, over the recent reports
        and the present assignment, gaps included."""
        rates = self.env_steps_per_s_of_tasks()
        return math.fsum(rates.values()) if task is None else rates.get(task, 0.0)

    def env_steps_per_s_of_tasks(self) -> dict[str, float]:
        """The same for each task that it played."""
        played = [*self.recent, *([(self.time_s, self.at)] if self.at else [])]
        span_s = self.time_s - min(
            (time_s - report.wall_s for time_s, report in played), default=self.time_s
        )
        steps: dict[str, int] = {}
        for _, report in played:
            steps[report.task] = steps.get(report.task, 0) + report.env_steps
        return {task: n / span_s if span_s > 0 else 0.0 for task, n in steps.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The present state of a run.

    summary = Summary(run="demo", scales={"mujoco/hopper": Scale(random_return=18.0,
    teacher_return=3200.0)}) for entry in journal.read():
        summary = fold(summary, *entry)
    """

    run: str
    scales: Mapping[str, Scale] = field(default_factory=dict[str, Scale])
    state: str = "starting"
    last_id: str = START
    first_s: float | None = None
    last_s: float = 0.0
    """Wall-clock time of the newest record."""
    tasks: Mapping[str, TaskState] = field(default_factory=dict[str, TaskState])
    learner: LearnerReport | None = None
    learner_s: float = 0.0
    """When the learner last reported."""
    learner_recent: tuple[tuple[float, LearnerReport], ...] = ()
    published_s: Mapping[Version, float] = field(default_factory=dict[Version, float])
    """When the learner first reported each version."""
    replay: ReplayStats | None = None
    workers: Mapping[str, WorkerState] = field(default_factory=dict[str, WorkerState])
    events: tuple[Event, ...] = ()
    """The newest is last."""
    alerts: tuple[Event, ...] = ()
    """Those that stand (`cluster.monitor.alerts`)."""

    def task_names(self) -> list[str]:
        """Every task of the run, those with a scale first, in the order of the scales."""
        worked = (
            {worker.newest.task for worker in self.workers.values()}
            if not self.scales
            else set[str]()
        )
        return [*self.scales, *sorted({*self.tasks, *worked} - self.scales.keys())]

    def normalised(self, task: str, score: Score) -> float | None:
        scale = self.scales.get(task)
        return None if scale is None else finite(scale.normalise(score.returns.mean))

    def aggregate(self, by: Measure) -> Aggregate | None:
        """Over the newest evaluations of all tasks that have such a scale."""
        return _aggregate(self.newest_scores(by))

    def newest_scores(self, by: Measure) -> tuple[tuple[float, ...], ...]:
        """The normalised returns of each task's newest evaluation, of tasks with such a scale."""
        scored = [
            (self.scales[name], task.newest_returns)
            for name, task in self.tasks.items()
            if name in self.scales
        ]
        kept = (
            tuple(scale.normalise(value, by=by) for value in returns) for scale, returns in scored
        )
        return tuple(scores for scores in kept if all(map(math.isfinite, scores)))

    def success_rates(self) -> dict[str, float]:
        """The share of episodes that the newest version solved, by task, where it is known."""
        newest = {name: task.newest for name, task in self.tasks.items()}
        rates = {name: found[1].success_rate for name, found in newest.items() if found}
        return {name: rate for name, rate in rates.items() if rate is not None}

    def history(self, task: str) -> list[tuple[int, float]]:
        """Learner step and normalised return (the raw one for a task without a scale), in the order
        of steps."""
        points = [
            (
                score.learner_step,
                finite(
                    score.returns.mean if task not in self.scales else self.normalised(task, score)
                ),
            )
            for score in self.tasks.get(task, TaskState()).by_step
        ]
        return [(step, value) for step, value in points if value is not None]

    def current_workers(self, now_s: float) -> dict[str, WorkerState]:
        """Workers that have reported lately."""
        return {
            name: self.workers[name]
            for name in sorted(self.workers)
            if self.workers[name].is_current(now_s)
        }

    def env_steps_per_s(self, now_s: float, task: str | None = None) -> float:
        """Environment steps a second of all workers that have reported lately."""
        return math.fsum(
            worker.env_steps_per_s(task) for worker in self.current_workers(now_s).values()
        )

    def env_steps_per_s_of_tasks(self, now_s: float) -> dict[str, float]:
        """The same for each task that they played, in one walk."""
        rates: dict[str, float] = {}
        for worker in self.current_workers(now_s).values():
            for task, rate in worker.env_steps_per_s_of_tasks().items():
                rates[task] = rates.get(task, 0.0) + rate
        return rates

    def learner_rate(self, of: str, *, per: str = "wall_s") -> float | None:
        """Sum of the field `of` over the sum of `per`, over the learner's reports of the last
        minute."""
        below = sum(getattr(report, per) for _, report in self.learner_recent)
        return (
            finite(sum(getattr(report, of) for _, report in self.learner_recent) / below)
            if below > 0
            else None
        )

    def oldest_weights_played(self, now_s: float) -> tuple[int, float] | None:
        """How far the workers that play were behind, at worst: in versions, and in seconds."""
        ages = [
            (worker.age_versions, worker.age_s or 0.0)
            for worker in self.current_workers(now_s).values()
            if worker.age_versions is not None
        ]
        return max(ages, default=None)

    def to_json(self, now_s: float | None = None, *, histories: bool = True) -> dict[str, Any]:
        """What the page and other readers are sent: plain and valid JSON; null where there is no
        number. Without `histories` a task's is empty."""
        now_s = self.last_s if now_s is None else max(now_s, self.last_s)
        learner, rates = self.learner, self.env_steps_per_s_of_tasks(now_s)
        replay = (
            None
            if self.replay is None
            else {**asdict(self.replay), "fill": finite(self.replay.fill)}
        )
        return {
            "run": self.run,
            "state": self.state,
            "age_s": now_s - self.first_s if self.first_s is not None else 0.0,
            "tasks": {
                name: self._task_json(name, rates.get(name, 0.0), histories)
                for name in self.task_names()
            },
            "aggregate": {
                by: asdict(over) if (over := self.aggregate(by)) else None for by in MEASURES
            },
            "success": mean_success(self.success_rates()),
            "learner": {
                "step": learner.step if learner else 0,
                "num_updates": learner.num_updates if learner else None,
                "version": str(learner.version) if learner else None,
                "loss": finite(learner.loss.value) if learner else None,
                "loss_by_task": (
                    {n: finite(m.value) for n, m in learner.loss_by_task.items()} if learner else {}
                ),
                "learning_rate": finite(learner.learning_rate) if learner else None,
                "tokens_per_s": self.learner_rate("tokens"),
                "wait_fraction": self.learner_rate("wait_s"),
                "blocked_fraction": self.learner_rate("blocked_s"),
                "report_age_s": now_s - self.learner_s if learner else None,
            },
            "replay": replay or {},
            "env_steps_per_s": self.env_steps_per_s(now_s),
            "workers": [
                {
                    "id": name,
                    "role": worker.newest.role,
                    "task": worker.newest.task,
                    "version": str(worker.newest.version) if worker.newest.version else None,
                    "assignment_s": worker.assignment_s(now_s),
                    "assignment_episodes": worker.at.episodes if worker.at else None,
                    "age_versions": worker.age_versions,
                    "age_s": worker.age_s,
                    "report_age_s": now_s - worker.time_s,
                    "env_steps_per_s": worker.env_steps_per_s(),
                    "wait_fraction": (
                        worker.wait_s / worker.worked_s if worker.worked_s > 0 else 0.0
                    ),
                    "kept": worker.latest.kept,
                    "refused": dict(worker.refused),
                }
                for name, worker in self.current_workers(now_s).items()
            ],
            "events": [asdict(event) for event in self.events],
        }

    def _task_json(self, name: str, rate: float, histories: bool) -> dict[str, Any]:
        task, scale = self.tasks.get(name, TaskState()), self.scales.get(name)
        version, score = task.newest or (None, None)
        return {
            "version": str(version) if version else None,
            "step": score.learner_step if score else None,
            "return": finite(score.returns.mean) if score else None,
            "return_std": finite(score.returns.std) if score else None,
            "normalised": self.normalised(name, score) if score else None,
            "success": score.success_rate if score else None,
            "measures": {name: finite(mean.value) for name, mean in task.measures.items()},
            "expert_normalised": (
                finite(scale.normalise(score.returns.mean, by="expert"))
                if scale and score
                else None
            ),
            "human_normalised": (
                finite(scale.normalise(score.returns.mean, by="human")) if scale and score else None
            ),
            "episodes": score.returns.count if score else 0,
            "random_return": scale.random_return if scale else None,
            "teacher_return": scale.teacher_return if scale else None,
            "expert_return": scale.expert_return if scale else None,
            "human_return": scale.human_return if scale else None,
            "versions_evaluated": task.num_versions,
            "failed": task.num_failed,
            "last_failure": task.last_failure,
            "warnings": list(task.warnings),
            "env_steps_per_s": rate,
            "history": [list(point) for point in self.history(name)] if scale and histories else [],
        }
