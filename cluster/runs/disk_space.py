"""Whether a folder has room for a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MIN_FREE_BYTES = 200 << 20
"""Below this nothing is started: it would end in the middle for want of space."""


FULL_BYTES = 1 << 20


def is_full(folder: Path) -> bool:
    """Whether a folder's disk has no room for what a run writes now and then."""
    return shutil.disk_usage(folder).free < FULL_BYTES


def require_space(folder: Path | str, min_bytes: int | None = None) -> None:
    """Refuse a folder that cannot be written or that has less than `min_bytes` (default:
    `MIN_FREE_BYTES`) free."""
    folder = Path(folder)
    min_bytes = MIN_FREE_BYTES if min_bytes is None else min_bytes
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}); choose another folder"
        ) from error
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < min_bytes:
        raise ValueError(
            f"{folder} has {free_bytes / 1e9:.1f} GB free, the run needs {min_bytes / 1e9:.1f} GB; "
            "free some or choose another folder"
        )
