"""Journals of runs for tests: records, written as a supervisor writes them."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.journal.codec import encode
from cluster.journal.records import Record
from cluster.journal.segment_writer import SegmentWriter
from cluster.runs.folder import RunFolder
from gato.metrics import LearnerReport, Mean
from gato.version import Version

BEGIN_S = 1_700_000_000.0


def written(
    run: RunFolder, records: Iterable[Record], *, begin_s: float = BEGIN_S, every_s: float = 1.0
) -> RunFolder:
    """The run, with these records in its folder, `every_s` seconds apart."""
    with SegmentWriter(run.path / "journal") as lines:
        for place, record in enumerate(records):
            lines.append(encode(record, time_s=begin_s + every_s * place))
    return run


def learner_report(step: int, *, loss: float = 1.5, num_updates: int = 1000) -> LearnerReport:
    """The learner's, at an update."""
    return LearnerReport(
        step=step,
        num_updates=num_updates,
        version=Version(1, step),
        loss=Mean(4 * loss, 4),
        learning_rate=1e-4,
        gradient_norm=1.0,
        tokens=25_000,
        wall_s=2.0,
        wait_s=0.5,
    )
