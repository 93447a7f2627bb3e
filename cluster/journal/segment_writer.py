"""Appends numbered lines of text to files of one folder, and drops the oldest files."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import final

from cluster.journal.file_lock import take_lock
from cluster.journal.segments import pack, segment_path, segments_of, unpack

MAX_ENTRIES = 500_000
MAX_BYTES = 512 << 20
"""The oldest segments go while there are more lines or bytes than this."""


@final
class SegmentWriter:
    """Appends lines.

    with SegmentWriter(folder) as lines:
        number = lines.append("text")

    A line that `append` has returned from outlives kill -9 of the process, because the kernel has
    it; `sync` makes it outlive a power cut, too.
    """

    def __init__(
        self, folder: Path, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        """Cut off a line that was not written to its end, and go on after the last whole one.

        Raises:
            ValueError: Another process writes here, or the folder cannot be written.
        """
        self._folder = folder
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._mutex = threading.Lock()
        self._sizes: dict[int, int] = {}
        """Bytes of each segment, by the number of its first line."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as undo:
                self._lock_fd = take_lock(
                    folder / "lock",
                    lambda: f"another process writes the journal in {folder}; stop that run first",
                )
                undo.callback(os.close, self._lock_fd)
                self._sizes = {first: file.stat().st_size for first, file in segments_of(folder)}
                start = max(self._sizes, default=1)
                self._last, whole_bytes = _last_whole_line(segment_path(folder, start), start)
                self._fd = _open_segment(folder, start)
                os.ftruncate(self._fd, whole_bytes)
                self._sizes[start] = whole_bytes
                undo.pop_all()
        except OSError as problem:
            raise ValueError(
                f"cannot write the journal in {folder} ({problem.strerror}); free some space or"
                " give yourself the right to write there"
            ) from problem

    @property
    def first(self) -> int:
        """Number of the oldest line that is kept."""
        return min(self._sizes)

    @property
    def last(self) -> int:
        """Number of the newest line; 0 if there is none."""
        return self._last

    def append(self, text: str) -> int:
        """Add a line and return its number.

        Raises:
            OSError: It is not written, not even in part: the disk is full or failed.
        """
        with self._mutex:
            number = self._last + 1
            line = pack(number, text)
            if self._sizes[self._current] + len(line) > self._max_bytes // 8 or (
                number - self._current >= max(1, self._max_entries // 8)
            ):
                self._begin_segment(number)
            size = os.fstat(self._fd).st_size
            # Before the write: a signal that ends it here never has the number given again. A
            # number without a line is passed over.
            self._last = number
            try:
                if os.write(self._fd, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(self._fd, size)
                self._last = number - 1
                raise
            self._sizes[self._current] = size + len(line)
            return number

    def sync(self) -> None:
        """Put all lines on the disk itself. Raises OSError if that fails."""
        with self._mutex:
            descriptor = os.dup(self._fd)
        try:
            os.fdatasync(descriptor)  # without the mutex: appends go on meanwhile
        finally:
            os.close(descriptor)

    def close(self) -> None:
        with self._mutex:
            os.close(self._fd)
            os.close(self._lock_fd)
            self._fd = -1  # an append that comes too late fails

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _current(self) -> int:
        return max(self._sizes)

    def _begin_segment(self, first: int) -> None:
        os.fdatasync(self._fd)
        before, self._fd = self._fd, _open_segment(self._folder, first)
        os.close(before)
        self._sizes = {**self._sizes, first: 0}
        while len(self._sizes) > 1 and (
            first - self.first > self._max_entries - self._max_entries // 8
            or sum(self._sizes.values()) > self._max_bytes - self._max_bytes // 8
        ):
            oldest = self.first
            segment_path(self._folder, oldest).unlink(missing_ok=True)
            self._sizes = {n: size for n, size in self._sizes.items() if n != oldest}


def _open_segment(folder: Path, first: int) -> int:
    path = segment_path(folder, first)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    if is_new:  # its name must outlive a power cut, too
        parent = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    return descriptor


def _last_whole_line(path: Path, first: int) -> tuple[int, int]:
    """Number of the last whole line of a segment, and the bytes up to its end."""
    number, size, at = first - 1, 0, 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                at += len(line)
                found = unpack(line)
                if found is not None:
                    number, size = found.number, at
    return number, size
