"""Integrity: what LMDB trusts is looked at before it is opened, and small numbers carry
checksums."""

from __future__ import annotations

import zlib
from pathlib import Path

from lmdb.verify import VerifyError, verify

LOCK_BYTES = 8192
"""Of LMDB's lock file, for its 126 readers."""
MEND = "put back a copy of it, or open it with read_only=True and add what can be read to a new one"


def reserve_lock_file(folder: Path) -> None:
    """LMDB maps its lock file and writes to it as to memory, which on a full disk ends the process
    by a signal: what it takes is taken here, where a full disk is an error."""
    with (folder / "lock.mdb").open("ab") as file:
        file.write(bytes(max(0, LOCK_BYTES - file.tell())))


def check_structure(folder: Path) -> None:
    """LMDB trusts its file: a damaged page may end the process by a signal, or hide episodes. So
    all pages but the insides of large values, which have checksums of ours, are looked at first: a
    million small or a quarter of a million large values a second, fewer where the file is not in
    memory. ValueError where one is damaged."""
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
            f" problems); {MEND}"
        )


def number_to_bytes(number: int) -> bytes:
    return b"%d %08x" % (number, zlib.crc32(b"%d" % number))


def number_from_bytes(value: bytes) -> int:
    """The number; without its checksum, where an earlier release wrote it. ValueError where it is
    damaged."""
    digits, _, checksum = bytes(value).partition(b" ")
    if checksum and int(checksum, 16) != zlib.crc32(digits):
        raise ValueError(f"{bytes(value)!r} does not match its checksum")
    return int(digits)
