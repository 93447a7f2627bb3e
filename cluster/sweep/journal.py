"""The journal of a sweep: a file of records, a line each, that everything about it is read from."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cluster.journal.codec import decode_as, encode
from cluster.journal.records import Event
from cluster.sweep.space import Value

FILE = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A trial and the settings that it begins with."""

    trial: int
    settings: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation of a trial, whose checkpoint was saved before."""

    trial: int
    generation: int
    """How often it went on from another trial's checkpoint before."""
    step: int
    """Updates made."""
    score: float
    """Interquartile mean of the normalised returns over tasks. Of one task without references: its
    mean return."""
    loss: float | None = None
    """Mean loss since the last report; None if it is not known."""
    returns: Mapping[str, float] = field(default_factory=dict[str, float])
    """Mean return by task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """`asha` stopped a trial at a rung."""

    trial: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploited:
    """`pbt` lets a trial go on from another one's checkpoint, with changed settings."""

    trial: int
    generation: int
    """Of the trial from now on."""
    donor: int
    step: int
    """Of the donor's checkpoint."""
    score: float
    """The donor's."""
    settings: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial that goes no further."""

    trial: int
    how: Literal["finished", "diverged", "failed"]
    """failed: `gato sweep resume` tries it again."""
    reason: str = ""


SweepRecord = Planned | Report | Stopped | Exploited | Ended | Event
KINDS: Mapping[str, type[SweepRecord]] = {
    kind.__name__: kind for kind in (Planned, Report, Stopped, Exploited, Ended, Event)
}


class SweepJournal:
    """Reads and writes the records of one sweep. One process writes, others may read.

    journal = SweepJournal(folder)
    journal.append(Report(trial=1, generation=0, step=100, score=0.4))
    records = journal.read()
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def append(self, record: SweepRecord) -> None:
        """Add a record; on return it is on the disk."""
        line = encode(record, time_s=time.time()).encode() + b"\n"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with open(os.open(self._file, flags, 0o600), "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # a line that a killed process did not finish
                    line = b"\n" + line
            file.write(line)
            os.fsync(file.fileno())

    def read(self) -> list[SweepRecord]:
        """All records, in order.

        A line that a killed process did not finish, and records of a newer version, are left out.
        """
        if not self._file.is_file():
            return []
        lines = self._file.read_bytes().decode(errors="replace").split("\n")
        found = (decode_as(line, KINDS) for line in lines if line)
        return [entry[1] for entry in found if entry is not None]
