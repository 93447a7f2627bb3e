"""The newest records of a journal in a run's folder, without reading all of it."""

from __future__ import annotations

import os
from pathlib import Path

from cluster.journal.codec import decode
from cluster.journal.journal import Entry
from cluster.journal.segments import segments_of, unpack


def newest_entries(folder: Path, max_bytes: int) -> list[Entry]:
    """The entries in the last `max_bytes` of the journal, in order; none if there is no journal.

    Damaged lines, and records of a kind that this version does not know, are left out.
    """
    pieces: list[bytes] = []
    left = max_bytes
    for _, file in reversed(segments_of(folder)):
        if left <= 0:
            break
        try:
            with file.open("rb") as segment:
                size = segment.seek(0, os.SEEK_END)
                segment.seek(max(0, size - left))
                piece = segment.read(left)
        except FileNotFoundError:  # an old one was dropped just now
            break
        if len(piece) < size:
            piece = piece.partition(b"\n")[2]  # the first line is cut
        pieces.append(piece)
        left -= size
    lines = b"".join(reversed(pieces)).splitlines(keepends=True)
    return [
        Entry(f"{line.number}-0", *found)
        for raw in lines
        if (line := unpack(raw)) is not None and (found := decode(line.text)) is not None
    ]
