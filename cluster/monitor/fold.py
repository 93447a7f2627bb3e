"""The journal of a run, folded record by record into its status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cluster.journal.journal import START, JournalReader
from cluster.journal.records import Event, Record
from cluster.monitor.alerts import alerts_after
from cluster.monitor.scores import Scale, TaskState
from cluster.monitor.summary import WINDOW_S, Summary, WorkerState
from gato.metrics import (
    AssignmentProgress,
    Evaluation,
    LearnerReport,
    ReplayStats,
    WorkerReport,
)
from gato.version import Version

MAX_EVENTS = 50
MAX_PUBLICATIONS = 512
STATES: Mapping[str, str] = {
    "starting": "starting",
    "started": "running",
    "resumed": "running",
    "stopping": "stopping",
    "stopped": "stopped",
    "finished": "finished",
    "failed": "failed",
}
"""Kinds of events that change the state of the run, and the state after them."""


def fold(summary: Summary, entry_id: str, time_s: float, record: Record) -> Summary:
    """`summary` after one more entry. An entry that was folded before changes nothing."""
    if _order(entry_id) <= _order(summary.last_id):
        return summary
    first_s = time_s if summary.first_s is None else min(time_s, summary.first_s)
    # A wall clock that is set back takes the run's time with it: else no worker would be heard of.
    is_set_back = time_s < summary.last_s - WINDOW_S
    last_s = time_s if is_set_back else max(time_s, summary.last_s)
    summary = replace(summary, last_id=entry_id, first_s=first_s, last_s=last_s)
    alerts = alerts_after(summary.alerts, record)
    if alerts != summary.alerts:
        summary = replace(summary, alerts=alerts)
    match record:
        case Evaluation():
            task = summary.tasks.get(record.task, TaskState()).after(record)
            return replace(summary, tasks={**summary.tasks, record.task: task})
        case LearnerReport():
            return _learned(summary, time_s, record)
        case WorkerReport() | AssignmentProgress():
            known = summary.workers.get(record.worker)
            if isinstance(record, WorkerReport):
                worker = _worked(summary, known, time_s, record)
            else:
                worker = _at_work(summary, known, time_s, record)
            return replace(summary, workers={**summary.workers, record.worker: worker})
        case ReplayStats():
            return replace(summary, replay=record)
        case Event():
            state = STATES.get(record.kind, summary.state)
            if record.kind == "resumed":  # the workers of before are gone
                summary = replace(summary, workers={})
            return replace(summary, state=state, events=(*summary.events, record)[-MAX_EVENTS:])


def _learned(summary: Summary, time_s: float, record: LearnerReport) -> Summary:
    if not record.loss.count and summary.learner is not None:
        # The last report tells of a publication alone: the rest is still what it was.
        before = summary.learner
        waits = record.wait_s > 0  # one without a batch makes no use of its device
        record = replace(
            record,
            loss=before.loss,
            gradient_norm=before.gradient_norm,
            mfu=record.mfu if waits else before.mfu,
            loss_by_task=before.loss_by_task,
            accuracy_by_task=record.accuracy_by_task or before.accuracy_by_task,
            norm_by_part=record.norm_by_part or before.norm_by_part,
        )
    published_s = summary.published_s
    if record.version not in published_s:
        kept = sorted({**published_s, record.version: time_s}.items())[-MAX_PUBLICATIONS:]
        published_s = dict(kept)
    recent = (
        *(old for old in summary.learner_recent if abs(time_s - old[0]) < WINDOW_S),
        (time_s, record),
    )
    return replace(
        summary, learner=record, learner_s=time_s, learner_recent=recent, published_s=published_s
    )


def _at_work(
    summary: Summary, known: WorkerState | None, time_s: float, record: AssignmentProgress
) -> WorkerState:
    if known is None:  # its first assignment takes long
        nothing = WorkerReport(
            worker=record.worker,
            role=record.role,
            task=record.task,
            version=record.version,
            episodes=0,
            env_steps=0,
            wall_s=0.0,
        )
        known = WorkerState(latest=nothing, time_s=time_s)
    age_versions, age_s = _age(summary, record.version, time_s)
    recent = tuple(old for old in known.recent if abs(time_s - old[0]) < WINDOW_S)
    return replace(
        known, time_s=time_s, at=record, age_versions=age_versions, age_s=age_s, recent=recent
    )


def _age(
    summary: Summary, played: Version | None, time_s: float
) -> tuple[int | None, float | None]:
    """How old the weights are that a worker plays: in versions, and in seconds since newer ones;
    None where it plays none."""
    if played is None:
        return None, None
    newer_s = [seen_s for version, seen_s in summary.published_s.items() if version > played]
    newest = max(summary.published_s, default=played)
    # After a restart of the learner numbers go on, so that their difference counts publications of
    # both epochs.
    age_versions = max(0, newest.number - played.number) if newest > played else 0
    return age_versions, max(0.0, time_s - min(newer_s)) if newer_s else 0.0


def _worked(
    summary: Summary, known: WorkerState | None, time_s: float, record: WorkerReport
) -> WorkerState:
    known = known or WorkerState(latest=record, time_s=time_s)
    age_versions, age_s = _age(summary, record.version, time_s)
    dropped = {f"dropped: {reason}": count for reason, count in record.dropped.items()}
    lost = {
        **record.refused,
        **dropped,
        **({f"failed: {record.failed}": 1} if record.failed else {}),
    }
    reasons = {*known.refused, *lost}
    recent = (old for old in known.recent if abs(time_s - old[0]) < WINDOW_S)
    return WorkerState(
        latest=record,
        time_s=time_s,
        age_versions=age_versions,
        age_s=age_s,
        recent=(*recent, (time_s, record)),
        wait_s=known.wait_s + record.wait_s,
        worked_s=known.worked_s + record.wall_s,
        refused={
            reason: known.refused.get(reason, 0) + lost.get(reason, 0) for reason in sorted(reasons)
        },
    )


def killed(summary: Summary) -> Summary:
    """The run whose process, on this machine, is gone without a last word."""
    text = f"its process is gone; gato resume {summary.run} goes on from its last checkpoint"
    # At the time of its last record, so that who looks again finds the same event.
    event = Event(kind="dead", text=text, time_s=summary.last_s)
    return replace(
        summary,
        state="dead",
        events=(*summary.events, event),
        alerts=alerts_after(summary.alerts, event),
    )


def _order(entry_id: str) -> tuple[int, int]:
    time_ms, _, number = entry_id.partition("-")
    return int(time_ms), int(number or 0)


def read_summary(journal: JournalReader, run: str, scales: Mapping[str, Scale]) -> Summary:
    """What all records of a run come to, from the first to the newest."""
    summary, last = Summary(run=run, scales=scales), START
    while entries := journal.read(last):
        for entry in entries:
            summary = fold(summary, *entry)
        last = entries[-1].id
    return summary
