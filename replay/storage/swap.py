"""Putting a compacted file in the place of a store's file."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path


def require_closed(folder: Path) -> None:
    """Raises ValueError if LMDB's own lock shows a process that does not take our locks. The next
    process to open the store creates LMDB's table of readers again."""
    try:
        descriptor = os.open(folder / "lock.mdb", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    except OSError as problem:
        raise ValueError(
            f"another process has {folder} open; try again when it has ended"
        ) from problem
    finally:
        os.close(descriptor)


def match_owner(file: Path, copy: Path) -> None:
    """Give the copy the permissions and the owner of the file."""
    about = file.stat()
    shutil.copymode(file, copy)
    if about.st_uid != os.geteuid():
        os.chown(copy, about.st_uid, about.st_gid)


def sync_folder(folder: Path) -> None:
    """Write a rename in the folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
