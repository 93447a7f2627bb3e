"""One writer for a folder: a lock that its process holds for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

LOCK_WAIT_S = 2.0
"""Time for a process that has just died to finish and let go of the lock."""


def take_lock(file: Path, refusal: Callable[[], str]) -> int:
    """A descriptor that holds the lock; a process that inherits it holds it, too.

    Raises:
        ValueError: Another process holds it; the text is that of `refusal`.
    """
    lock_fd = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    deadline_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock_fd
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                os.close(lock_fd)
                raise ValueError(refusal()) from None
            time.sleep(0.02)
