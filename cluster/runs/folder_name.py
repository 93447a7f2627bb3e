"""Names of runs, and their folders: each is taken in one step, by a folder that is whole."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from gato.processes import is_alive

MOST_LETTERS = 64
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_LETTERS - 1}}}")
RESERVED = ("data", "sweeps")
"""Folders beside the runs that are something else."""
LEFT_S = 60.0
"""After so long without a change a draft was left."""
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""What a rename to a name that is taken raises: of a folder with files, or of a file."""


class RunExists(ValueError):
    """A run of that name is there."""


def numbered(name: str) -> Iterator[str]:
    """The name, then name-2, name-3..., of which each is as short as a name must be."""
    yield name
    for number in count(2):
        suffix = f"-{number}"
        yield name[: MOST_LETTERS - len(suffix)] + suffix


def take_name(name: str, base: Path, fill: Callable[[Path, str], None], *, is_exact: bool) -> str:
    """Make a new folder in `base`: whole, or not at all. A folder without files is taken, too.

    Args:
        name: Of the folder; else name-2, name-3..., unless `is_exact`.
        base: Where it lies.
        fill: Writes what is in it into a folder, given the name that this will have.
        is_exact: Whether it must have this name.

    Returns:
        Its name.

    Raises:
        RunExists: The name is taken, and `is_exact`.
        ValueError: The name cannot name a folder, or the folder cannot be made.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a run; use letters, digits, dots, dashes and underscores, at"
            f" most {MOST_LETTERS}"
        )
    if name in RESERVED:
        raise ValueError(
            f"{name!r} cannot name a run: {base / name} is kept for other things; choose another"
            " --name"
        )
    draft = base / f".{os.getpid()}.{secrets.token_hex(4)}.new"
    try:
        draft.mkdir(parents=True, mode=0o700)
        _remove_left(base)
        for candidate in numbered(name):
            fill(draft, candidate)
            if _has_taken(draft, base / candidate):
                return candidate
            if is_exact:
                raise RunExists(f"there is a run {name} in {base}; choose another --name")
        raise AssertionError("names have no end")
    except OSError as error:
        if base.exists() and not base.is_dir():
            raise ValueError(
                f"{base} is not a folder; set GATO_RUNS to one that can be written"
            ) from None
        raise ValueError(
            f"cannot make {base / name} ({error.strerror}); set GATO_RUNS to another folder"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _has_taken(draft: Path, final: Path) -> bool:
    """Rename the draft, unless the name is taken: in one step, so that two starts never share a
    folder."""
    try:
        draft.rename(final)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True


def _remove_left(base: Path) -> None:
    """Remove the drafts of killed processes. Young ones stay: another machine may be making them,
    on a disk that is shared."""
    for left in base.glob(".*.new"):
        pid = left.name.split(".")[1]
        with suppress(OSError):
            is_old = time.time() - left.stat().st_mtime > LEFT_S
            if is_old and pid.isdecimal() and not is_alive(int(pid), None):
                shutil.rmtree(left, ignore_errors=True)
