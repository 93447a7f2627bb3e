"""The records of a journal: what a run writes down as it goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from gato.metrics import (
    AssignmentProgress,
    Evaluation,
    LearnerReport,
    ReplayStats,
    WorkerReport,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to the run, for people to read."""

    kind: str
    """A word: started, stopped, failed, worker died, replay restarted, rejected, scaled..."""
    text: str
    time_s: float = field(default_factory=time.time)
    """Wall-clock time."""


Record = Evaluation | LearnerReport | WorkerReport | AssignmentProgress | ReplayStats | Event
RECORDS: Mapping[str, type[Record]] = {
    kind.__name__: kind
    for kind in (Evaluation, LearnerReport, WorkerReport, AssignmentProgress, ReplayStats, Event)
}
"""Every kind of record, by the name that it has in the stream."""
