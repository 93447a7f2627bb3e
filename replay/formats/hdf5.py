"""Opening HDF5 files of other projects: locked files are distinguished from damaged ones."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import h5py

LOCKED = ("unable to lock file", "resource temporarily unavailable")
"""Parts of HDF5's message for a file that another program writes to."""


@contextmanager
def opened(path: Path) -> Generator[h5py.File]:
    """The file, to read. Raises ValueError if another program has it open to write, or if it cannot
    be opened."""
    try:
        file = h5py.File(path, "r")
    except PermissionError as problem:
        raise ValueError(
            f"{path} may not be read: {problem.strerror}; change its permissions"
        ) from problem
    except OSError as problem:
        text = str(problem).lower()
        if problem.errno == errno.EAGAIN or any(word in text for word in LOCKED):
            raise ValueError(
                f"{path} is locked: another program writes to it; close that first, or set"
                " HDF5_USE_FILE_LOCKING=FALSE if none does"
            ) from problem
        raise ValueError(f"{path} is damaged: {problem}; copy it again") from problem
    with file:
        yield file
