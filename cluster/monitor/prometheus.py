"""The present state of a run as metrics of Prometheus. Names and labels are documented in
docs/how-to/exporters.md and stay as they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.monitor.alerts import standing_alerts
from cluster.monitor.scores import MEASURES
from cluster.monitor.summary import Summary
from gato.metrics import Mean

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
STATES = ("starting", "running", "stopping", "stopped", "finished", "failed", "dead")


def metrics_text(summaries: Iterable[Summary], now_s: float) -> bytes:
    """What a server answers Prometheus, with the content type `CONTENT_TYPE`.

    Args:
        summaries: The status of each run; the label `run` tells them apart.
        now_s: Wall-clock time.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(summaries), now_s))
    return generate_latest(registry)


@final
class _Metrics:
    """Metrics by name, each with its samples of all runs."""

    def __init__(self) -> None:
        self.found: dict[str, Metric] = {}

    def add(self, name: str, about: str, value: float | None, **labels: str) -> None:
        """A sample of what goes up and down; none if there is no finite number."""
        if value is not None and math.isfinite(value):
            metric = self.found.setdefault(name, _gauge(name, about, labels))
            assert isinstance(metric, GaugeMetricFamily)
            metric.add_metric(_texts(labels), value)

    def count(self, name: str, about: str, value: float, **labels: str) -> None:
        """A sample of what only grows."""
        metric = self.found.setdefault(name, _counter(name, about, labels))
        assert isinstance(metric, CounterMetricFamily)
        metric.add_metric(_texts(labels), value)


def _texts(labels: Mapping[str, str]) -> list[str]:
    """The values, which may be names from files: half of a surrogate pair is written as its
    escape, as it has no UTF-8."""
    return [text.encode("utf-8", "backslashreplace").decode() for text in labels.values()]


def _gauge(name: str, about: str, labels: Mapping[str, str]) -> Metric:
    return GaugeMetricFamily(name, about, labels=list(labels))


def _counter(name: str, about: str, labels: Mapping[str, str]) -> Metric:
    return CounterMetricFamily(name, about, labels=list(labels))


@final
class _Collector(Collector):
    def __init__(self, summaries: list[Summary], now_s: float) -> None:
        self._summaries, self._now_s = summaries, now_s

    def collect(self) -> Iterable[Metric]:
        metrics = _Metrics()
        for summary in self._summaries:
            _run(metrics, summary, self._now_s)
            _learner(metrics, summary)
            _tasks(metrics, summary)
            _replay(metrics, summary)
            _workers(metrics, summary, self._now_s)
        return metrics.found.values()


def _run(metrics: _Metrics, summary: Summary, now_s: float) -> None:
    run = summary.run
    for state in STATES:
        is_it = float(summary.state == state)
        metrics.add("gato_run_state", "1 for the state of the run.", is_it, run=run, state=state)
    last = summary.last_s or None
    about = "Time of the newest record of the run, in seconds since 1970."
    metrics.add("gato_run_last_record_timestamp_seconds", about, last, run=run)
    alerts = Counter(alert.kind for alert in standing_alerts(summary, now_s))
    metrics.add("gato_alerts", "Alerts that stand.", alerts.total(), run=run)
    for kind, count in alerts.items():
        metrics.add("gato_alerts_by_kind", "Alerts that stand.", count, run=run, kind=kind)


def _learner(metrics: _Metrics, summary: Summary) -> None:
    run, learner = summary.run, summary.learner
    if learner is None:
        return

    def add(name: str, about: str, value: float | None, **labels: str) -> None:
        metrics.add(f"gato_learner_{name}", about, value, run=run, **labels)

    add("updates", "Updates made.", learner.step)
    add("updates_planned", "Updates that the run will make.", learner.num_updates)
    add("loss", "Mean loss of the last report.", learner.loss.value)
    add("learning_rate", "Learning rate.", learner.learning_rate)
    add("gradient_norm", "Norm of the gradient before clipping.", learner.gradient_norm)
    add("tokens_per_second", "Tokens trained on.", summary.learner_rate("tokens"))
    add("wait_ratio", "Share of time without a batch.", summary.learner_rate("wait_s"))
    add("blocked_ratio", "Share of time publishing, saving.", summary.learner_rate("blocked_s"))
    add("mfu_ratio", "Model FLOPs by those possible.", learner.mfu)
    add("memory_bytes", "The most that the learner has held.", learner.memory_bytes)
    accuracy = sum(learner.accuracy_by_task.values(), Mean())
    add("accuracy_ratio", "Share of targets that are right.", accuracy.value)
    for task, loss in learner.loss_by_task.items():
        add("task_loss", "Mean loss of the last report.", loss.value, task=task)
    for what, spent_s in learner.seconds.items():
        share = spent_s / learner.wall_s if learner.wall_s > 0 else None
        add("time_ratio", "Share of time by what it goes into.", share, phase=what)


def _tasks(metrics: _Metrics, summary: Summary) -> None:
    run = summary.run
    for name, task in summary.tasks.items():
        labels = {"run": run, "task": name}
        failed = float(task.num_failed)
        about = "Evaluations without a return."
        metrics.count("gato_evaluations_failed", about, failed, **labels)
        if task.newest is None:
            continue
        _, score = task.newest
        about = "Mean return of the newest evaluation"
        metrics.add("gato_return", f"{about}.", score.returns.mean, **labels)
        normalised = summary.normalised(name, score)
        about = f"{about}; 0: random, 1: the teacher."
        metrics.add("gato_return_normalised", about, normalised, **labels)
        about = "Updates of the weights that were evaluated last."
        metrics.add("gato_evaluated_updates", about, score.learner_step, **labels)
        metrics.add("gato_evaluated_episodes", "Its episodes.", score.returns.count, **labels)
    for by in MEASURES:
        over = summary.aggregate(by)
        if over is not None:
            about = "Interquartile mean over tasks, and its interval of 95 %."
            for bound, value in (("iqm", over.iqm), ("low", over.low), ("high", over.high)):
                metrics.add("gato_iqm", about, value, run=run, by=by, bound=bound)


def _replay(metrics: _Metrics, summary: Summary) -> None:
    run, replay = summary.run, summary.replay
    if replay is None:
        return

    def add(name: str, about: str, value: float | None, **labels: str) -> None:
        metrics.add(f"gato_replay_{name}", about, value, run=run, **labels)

    def count(name: str, about: str, value: float, **labels: str) -> None:
        metrics.count(f"gato_replay_{name}", about, value, run=run, **labels)

    add("fill_ratio", "Stored bytes by capacity.", replay.fill if replay.capacity_bytes else None)
    add("stored_bytes", "Bytes of stored episodes.", replay.stored_bytes)
    add("steps", "Stored steps.", replay.steps)
    for task, episodes in replay.episodes.items():
        add("episodes", "Stored episodes.", episodes, task=task)
    count("inserted_tokens", "Tokens of all episodes ever inserted.", replay.inserted_tokens)
    count("read_tokens", "Tokens read by the learner.", replay.read_tokens)
    count("evicted_episodes", "Episodes that made room for others.", replay.evicted)
    for reason, episodes in replay.refused.items():
        count("rejected_episodes", "Episodes rejected at ingest.", episodes, reason=reason)
    add("waiting", "Callers that wait.", replay.writers_waiting, side="writers")
    add("waiting", "Callers that wait.", replay.readers_waiting, side="readers")


def _workers(metrics: _Metrics, summary: Summary, now_s: float) -> None:
    run, workers = summary.run, summary.current_workers(now_s)
    places = Counter((worker.newest.role, worker.latest.node) for worker in workers.values())
    for (role, node), number in places.items():
        about = "Workers that have reported lately."
        metrics.add("gato_workers", about, number, run=run, role=role, node=node)
    about = "Environment steps of all workers."
    metrics.add("gato_env_steps_per_second", about, summary.env_steps_per_s(now_s), run=run)
    behind = summary.oldest_weights_played(now_s)
    about = "For how long there had been newer weights than the oldest played."
    metrics.add("gato_weights_age_seconds", about, behind[1] if behind else None, run=run)
