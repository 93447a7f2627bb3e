"""Integrity: LMDB's file is verified before it is opened, and small numbers have checksums."""

from __future__ import annotations

import zlib
from pathlib import Path

from lmdb.verify import VerifyError, verify

LOCK_BYTES = 8192
"""Size of LMDB's lock file, for its 126 readers."""
HOW_TO_FIX = (
    "restore a copy of it, or open it with read_only=True and add what can be read to a new one"
)


def reserve_lock_file(folder: Path) -> None:
    """Take the disk space of LMDB's lock file, so that a full disk raises an OSError here.

    LMDB maps the file and writes to it as to memory, which on a full disk ends the process by a
    signal.
    """
    with (folder / "lock.mdb").open("ab") as file:
        file.write(bytes(max(0, LOCK_BYTES - file.tell())))


def check_structure(folder: Path) -> None:
    """Verify all pages of a store's file, except the insides of large values, which have checksums.

    LMDB trusts its file: a damaged page may end the process by a signal, or hide episodes. It
    verifies a million small or a quarter of a million large values a second, fewer if the file is
    not in memory.

    Raises:
        ValueError: if a page is damaged.
    """
    file = folder / "data.mdb"
    if not file.is_file() or not file.stat().st_size:
        return
    try:
        problems = verify(str(folder))
    except VerifyError as problem:
        problems = [str(problem)]
    if problems:
        raise ValueError(
            f"the replay store in {folder} is damaged: {problems[0]} (one of {len(problems)}"
            f" problems); {HOW_TO_FIX}"
        )


def number_to_bytes(number: int) -> bytes:
    return b"%d %08x" % (number, zlib.crc32(b"%d" % number))


def number_from_bytes(value: bytes) -> int:
    """The inverse of `number_to_bytes`; earlier releases wrote no checksum. Raises ValueError if it
    is damaged."""
    digits, _, checksum = bytes(value).partition(b" ")
    if checksum and int(checksum, 16) != zlib.crc32(digits):
        raise ValueError(f"{bytes(value)!r} does not match its checksum")
    return int(digits)
