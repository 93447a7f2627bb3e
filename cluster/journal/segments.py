"""Numbered lines of text in files of one folder, read from any of them on while they are
written."""

from __future__ import annotations

import re
import zlib
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, final

# number, CRC-32 of number and text, text
LINE = re.compile(rb"(\d{1,18}) ([0-9a-f]{8}) (.*)\n")


class Line(NamedTuple):
    """A text with its number: 1, 2, 3..."""

    number: int
    text: str


def has_lines(folder: Path) -> bool:
    """True if lines were written to `folder`."""
    return any(file.stat().st_size for _, file in segments_of(folder))


@final
class SegmentReader:
    """Reads lines in order, from any number on, also while another process appends.

    Lines that are damaged are left out; the numbers of the others are what they were.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BufferedReader | None = None
        self._segment = 0
        """Number of the first line of the segment that is open."""
        self._passed = 0
        """Number of the last line that was read from it."""

    def read(self, after: int, *, count: int = 1000, max_bytes: int = 4 << 20) -> list[Line]:
        """Up to `count` lines, or `max_bytes`, with numbers above `after`; none if there are none
        yet."""
        if self._file is None or after != self._passed:
            self._seek(after)
        lines: list[Line] = []
        size = 0
        while len(lines) < count and size < max_bytes:
            found = self._next()
            if found is None:
                break
            if found.number > after:
                lines.append(found)
                size += len(found.text)
        self._passed = lines[-1].number if lines else after
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _seek(self, after: int) -> None:
        self.close()
        firsts = [first for first, _ in segments_of(self._folder)]
        older = [first for first in firsts if first <= after + 1]
        self._passed = after
        self._open(max(older, default=min(firsts, default=0)))

    def _open(self, segment: int, at: int = 0) -> None:
        self.close()
        try:
            self._file = segment_path(self._folder, segment).open("rb")
            self._file.seek(at)
            self._segment = segment
        except FileNotFoundError:  # none yet, or dropped just now: sought again by the next read
            self._file = None

    def _next(self) -> Line | None:
        """The next whole line, from this segment or the next one."""
        while self._file is not None:
            line = self._line()
            if line is None:
                later = [first for first, _ in segments_of(self._folder) if first > self._segment]
                if not later:
                    return None
                line = self._line()  # what was written before the next segment was begun
                if line is None:
                    self._open(min(later))
                    continue
            found = unpack(line)
            if found is not None:
                return found
        return None

    def _line(self) -> bytes | None:
        if self._file is None:
            return None
        at = self._file.tell()
        line = self._file.readline()
        if line and not line.endswith(b"\n"):
            # Not written to its end yet, or cut off when its writer starts again: what was read of
            # it must not stay in the buffer.
            self._open(self._segment, at)
        return line if line.endswith(b"\n") else None


def pack(number: int, text: str) -> bytes:
    """A line as it lies in its file."""
    body = text.encode()
    assert b"\n" not in body
    return b"%d %08x %b\n" % (number, zlib.crc32(body, number & 0xFFFFFFFF), body)


def unpack(line: bytes) -> Line | None:
    """The line, or None if it is damaged."""
    found = LINE.fullmatch(line)
    if found is None:
        return None
    number, body = int(found[1]), found[3]
    if zlib.crc32(body, number & 0xFFFFFFFF) != int(found[2], 16):
        return None
    try:
        return Line(number, body.decode())
    except UnicodeDecodeError:
        return None


def segment_path(folder: Path, first: int) -> Path:
    return folder / f"{first:012d}.log"


def segments_of(folder: Path) -> list[tuple[int, Path]]:
    """The files in order, with the number of the first line of each."""
    files = [(file.stem, file) for file in folder.glob("*.log")]
    return sorted((int(stem), file) for stem, file in files if stem.isdecimal())
