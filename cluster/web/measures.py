"""What each record says in numbers: the names and values of the lines on the page's second tab."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cluster.monitor.summary import Summary
from gato.metrics import LearnerReport, ReplayStats


def learner_values(report: LearnerReport) -> dict[str, float]:
    """Of a report of the learner. One that tells of a publication alone has no loss and no
    gradient."""
    wall_s = report.wall_s
    values = {f"learner/version/{report.version.epoch}": float(report.version.number)}
    if wall_s > 0 and report.tokens:
        values |= {
            "learner/tokens per s": report.tokens / wall_s,
            "learner/waits": report.wait_s / wall_s,
            "learner/blocked": report.blocked_s / wall_s,
            "learner/mfu": report.mfu,
            **{f"learner/time/{part}": s / wall_s for part, s in report.seconds.items()},
        }
    if report.loss.count:
        values |= {
            "learner/loss": report.loss.value,
            "learner/learning rate": report.learning_rate,
            "learner/gradient norm": report.gradient_norm,
        }
    values |= {f"learner/loss/{task}": mean.value for task, mean in report.loss_by_task.items()}
    values |= {
        f"learner/accuracy/{task}": mean.value for task, mean in report.accuracy_by_task.items()
    }
    values |= {f"learner/gradient norm/{part}": norm for part, norm in report.norm_by_part.items()}
    if report.memory_bytes:
        values["learner/memory bytes"] = float(report.memory_bytes)
    return values


def replay_values(
    stats: ReplayStats, before: tuple[float, ReplayStats] | None, time_s: float
) -> dict[str, float]:
    """Of the state of replay, with rates since the state `before` and its time."""
    values = {
        "replay/fill": stats.fill if stats.capacity_bytes else 0.0,
        "replay/stored bytes": float(stats.stored_bytes),
        "replay/steps": float(stats.steps),
        "replay/episodes": float(sum(stats.episodes.values())),
        "replay/rejected": float(sum(stats.refused.values())),
        "replay/evicted": float(stats.evicted),
        "replay/duplicates": float(stats.duplicates),
        "replay/writers waiting": float(stats.writers_waiting),
        "replay/readers waiting": float(stats.readers_waiting),
    }
    values |= {f"replay/episodes/{task}": float(n) for task, n in stats.episodes.items()}
    for task, sources in stats.sources.items():
        for kind, amount in sources.items():
            values[f"replay/episodes/{task}/{kind}"] = float(amount.episodes)
    if before is not None and time_s > before[0] and before[1].incarnation == stats.incarnation:
        span_s = time_s - before[0]
        for name in ("inserted_tokens", "read_tokens"):
            gained = getattr(stats, name) - getattr(before[1], name)
            if gained >= 0:
                values[f"replay/{name.removesuffix('_tokens')} tokens per s"] = gained / span_s
    return values


def player_values(summary: Summary, now_s: float) -> dict[str, float]:
    """Of all workers that reported lately."""
    workers = summary.current_workers(now_s)
    worked_s = math.fsum(worker.worked_s for worker in workers.values())
    values = {
        "workers/number": float(len(workers)),
        "workers/env steps per s": math.fsum(w.env_steps_per_s() for w in workers.values()),
        "workers/refused": float(sum(sum(w.refused.values()) for w in summary.workers.values())),
    }
    if worked_s > 0:
        values["workers/waits"] = math.fsum(w.wait_s for w in workers.values()) / worked_s
    for name, age in ages(summary, now_s).items():
        values[f"workers/weights {name}"] = age
    by_role: dict[str, float] = {}
    for worker in workers.values():
        role = worker.newest.role
        by_role[role] = by_role.get(role, 0) + 1
    return values | {f"workers/number/{role}": count for role, count in by_role.items()}


def ages(summary: Summary, now_s: float) -> Mapping[str, float]:
    """Median and 95th percentile of the age of the weights that workers play, in seconds and in
    versions; empty where nobody plays weights."""
    playing = [w for w in summary.current_workers(now_s).values() if w.age_versions is not None]
    if not playing:
        return {}
    seconds = sorted(worker.age_s or 0.0 for worker in playing)
    versions = sorted(float(worker.age_versions or 0) for worker in playing)
    return {
        "age p50 s": _quantile(seconds, 0.5),
        "age p95 s": _quantile(seconds, 0.95),
        "age p50 versions": _quantile(versions, 0.5),
        "age p95 versions": _quantile(versions, 0.95),
    }


def _quantile(values: list[float], share: float) -> float:
    """The smallest of the sorted `values` that at least `share` of them do not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def finite_only(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
