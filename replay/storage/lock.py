"""Locks on a store's folder: one process writes to it, and its file is not swapped while a process
has it open.

The kernel releases them when a process dies, so a killed writer does not block the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

WRITING = "writing.lock"
"""Held by the process that writes."""
OPEN = "open.lock"
"""Shared by all processes that have the store open; held exclusively while its file is swapped."""
RETRY_S = 0.05
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


class FolderLock:
    """One lock, held until `release`, or until the process dies.

    lock = FolderLock(folder, WRITING, wait_s=5.0)

    Raises ValueError if another process holds it for longer than `wait_s`.
    """

    def __init__(
        self, folder: Path, name: str, *, shared: bool = False, wait_s: float = 0.0
    ) -> None:
        self._descriptor = _open(folder / name, may_be_missing=shared)
        deadline = time.monotonic() + wait_s
        while not self._taken(shared):
            if time.monotonic() >= deadline:
                holder = self._holder() if name == WRITING else ""
                self.release()
                does = "writes to" if name == WRITING else "swaps" if shared else "reads"
                raise ValueError(
                    f"another process{holder} {does} {folder}; try again when it has ended"
                )
            time.sleep(RETRY_S)
        if name == WRITING:
            self._sign()

    def _taken(self, shared: bool) -> bool:
        if self._descriptor is None:
            return True
        try:
            fcntl.flock(
                self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
            )
        except BlockingIOError:
            return False
        return True

    def _sign(self) -> None:
        """Write this process's number into the file, for the messages of others."""
        if self._descriptor is not None:
            try:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
            except OSError:  # another user's file, or no space: the lock holds all the same
                pass

    def _holder(self) -> str:
        text = os.pread(self._descriptor, 20, 0) if self._descriptor is not None else b""
        return f" ({text.decode()})" if text.isdigit() else ""

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.release()


def _open(file: Path, *, may_be_missing: bool) -> int | None:
    """The file's descriptor. None for a reader without write permission, where no process can swap
    either."""
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if problem.errno not in _UNWRITABLE:
            raise
        try:
            return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            if may_be_missing:
                return None
            raise problem from None
