"""One sentence on who waits for whom: learner, replay, workers, cores."""

from __future__ import annotations

import math
import re

from cluster.monitor.format import percent_text
from cluster.monitor.summary import Summary

MIN_SHARE = 0.02
"""Smaller shares of the time are not worth a word."""


def waits_text(summary: Summary, now_s: float) -> str:
    """Who waits, such as "learner waits 12% for replay; 3 workers wait for a core"; "nobody waits"
    if nobody does, empty before there is anything to say."""
    if summary.learner is None and summary.replay is None:
        return ""
    says: list[str] = []
    waits, blocked = summary.learner_rate("wait_s"), summary.learner_rate("blocked_s")
    if waits is not None and waits >= MIN_SHARE:
        says.append(f"learner waits {percent_text(waits)} for replay")
    if blocked is not None and blocked >= MIN_SHARE:
        says.append(f"publishing and saving take {percent_text(blocked)} of the learner's time")
    replay = summary.replay
    if replay is not None and replay.who_waits.startswith("readers"):
        says.append(f"replay waits for workers ({replay.who_waits})")
    elif replay is not None and replay.who_waits and not replay.who_waits.startswith("nobody"):
        says.append(replay.who_waits)
    held = _held_back(summary, now_s)
    if held is not None and held >= MIN_SHARE:
        says.append(f"workers wait {percent_text(held)} for replay")
    cores = _waiting_for_cores(summary)
    if cores:
        says.append(f"{cores} worker{' waits' if cores == 1 else 's wait'} for a core")
    return "; ".join(says) or "nobody waits"


def _held_back(summary: Summary, now_s: float) -> float | None:
    """The share of their time that workers waited for replay, over their recent reports."""
    reports = [
        report for worker in summary.current_workers(now_s).values() for _, report in worker.recent
    ]
    worked_s = math.fsum(report.wall_s for report in reports)
    return math.fsum(report.wait_s for report in reports) / worked_s if worked_s > 0 else None


def _waiting_for_cores(summary: Summary) -> int:
    """How many workers have no core, as the supervisor said last."""
    for event in reversed(summary.events):
        if event.kind in ("scaled", "workers wait", "workers play", "resumed", "started"):
            found = re.search(r"play, (\d+) waits? for|play, (\d+) waits?:", event.text)
            return int(found[1] or found[2]) if found else 0
    return 0
