"""The journal of a run as it lies in the run's folder, read without a server."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import final

from cluster.journal.codec import decode
from cluster.journal.journal import START, Entry
from cluster.journal.segments import SegmentReader

LOOK_EVERY_S = 0.1


@final
class JournalFile:
    """Reads what a `JournalWriter` writes, during the run and after it; as `Journal`, with the same
    ids."""

    def __init__(self, folder: Path) -> None:
        self._lines = SegmentReader(folder)
        self._closed = threading.Event()

    def read(
        self, after_id: str = START, *, block_s: float = 0.0, count: int = 1000
    ) -> list[Entry]:
        """Up to `count` entries after `after_id`, in order; if there are none, wait for one up to
        `block_s`.

        Records of a kind that this version does not know are left out.
        """
        deadline_s = time.monotonic() + block_s
        after = int(after_id.partition("-")[0])
        while True:
            lines = self._lines.read(after, count=count)
            known = [
                Entry(f"{line.number}-0", *found)
                for line in lines
                if (found := decode(line.text)) is not None
            ]
            if known or self._closed.is_set() or (not lines and time.monotonic() >= deadline_s):
                return known
            if lines:
                after = lines[-1].number
            else:
                self._closed.wait(LOOK_EVERY_S)

    def read_all(self) -> list[Entry]:
        """Every entry, from the first to the newest; one `read` stops after some megabytes."""
        entries: list[Entry] = []
        while more := self.read(entries[-1].id if entries else START):
            entries += more
        return entries

    def close(self) -> None:
        """End a `read` that waits."""
        self._closed.set()
