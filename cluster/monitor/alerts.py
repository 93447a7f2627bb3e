"""What somebody should look at: a loss that is not finite, a learner without progress, a task left
alone, a run that failed or was killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.journal.records import Event, Record
from cluster.monitor.format import duration_text
from gato.metrics import LearnerReport

if TYPE_CHECKING:
    from cluster.monitor.summary import Summary

NO_PROGRESS = "no progress"
NO_PROGRESS_S = 30.0
SLOW = 3.0
"""A learner whose reports take longer is named after so many times the last one's duration."""
KINDS = frozenset({NO_PROGRESS, "task failed", "failed", "dead", "journal lost"})
NOT_FINITE = "not finite"
BEGINS = frozenset({"started", "resumed"})
MAX_ALERTS = 20


def is_alert(event: Event) -> bool:
    """Whether an event of the journal is one that somebody should look at."""
    return event.kind in KINDS or NOT_FINITE in event.text


def alerts_after(alerts: Sequence[Event], record: Record) -> tuple[Event, ...]:
    """The alerts that stand after one more record. A report of the learner ends those of no
    progress, a start of the run all."""
    match record:
        case LearnerReport():
            return tuple(alert for alert in alerts if alert.kind != NO_PROGRESS)
        case Event() if record.kind in BEGINS:
            return ()
        case Event() if is_alert(record):
            others = (a for a in alerts if (a.kind, a.text) != (record.kind, record.text))
            return (*others, record)[-MAX_ALERTS:]
        case _:
            return tuple(alerts)


def standing_alerts(summary: Summary, now_s: float) -> list[Event]:
    """The alerts of a run at a wall-clock time: those of its journal, and a learner that is silent
    for longer than it should be."""
    alerts, learner = list(summary.alerts), summary.learner
    if (
        learner is None
        or summary.state != "running"
        or learner.step >= learner.num_updates
        or any(alert.kind == NO_PROGRESS for alert in alerts)
    ):
        return alerts
    silent_s = now_s - summary.learner_s
    if silent_s > max(NO_PROGRESS_S, SLOW * learner.wall_s):
        text = f"the learner has made no update for {duration_text(silent_s)}"
        alerts.append(Event(kind=NO_PROGRESS, text=text, time_s=summary.learner_s))
    return alerts
