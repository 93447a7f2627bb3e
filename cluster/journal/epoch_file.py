"""The number of the last epoch that a run gave out, kept in its folder."""

from __future__ import annotations

import os
from pathlib import Path

from gato.files import damaged


class EpochNotKept(ValueError):
    """An epoch could not be written, as on a full disk."""


def read_epoch(folder: Path) -> int:
    """The last epoch; 0 if there was none.

    Raises:
        ValueError: The file is damaged.
    """
    file = folder / "epoch"
    try:
        text = file.read_text()
    except FileNotFoundError:
        return 0
    if not text.strip().isdecimal():
        fix = "write a number above every epoch that `gato watch` has shown into it"
        raise damaged(file, f"it holds {text[:20]!r}, expected a number", fix=fix)
    return int(text)


def write_epoch(folder: Path, epoch: int) -> None:
    """Keep `epoch`; on return it outlives a power cut.

    Raises:
        EpochNotKept: It cannot be written.
    """
    file = folder / "epoch"
    try:
        draft = folder / f"epoch.{os.getpid()}.tmp"
        with draft.open("w") as out:
            out.write(f"{epoch}\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, file)
        parent = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except OSError as problem:
        raise EpochNotKept(
            f"cannot write {file} ({problem.strerror}): a learner starts only with an epoch that is"
            " kept; free some space, then gato resume"
        ) from problem
