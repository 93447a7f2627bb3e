"""The files of checkpoints: each in one folder, complete or absent, with checksums.

A checkpoint is written under another name, synced and renamed. Its `checkpoint.json` has the
SHA-256 of each other file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gato.files import damaged
from gato.processes import is_alive

FIX = (
    "remove the checkpoint's folder (the run then goes on from the one before it), or copy it again"
)
RECORD = "checkpoint.json"
DRAFT, REPLACED, DAMAGED = ".draft-", ".replaced-", "damaged-"
BEST = "best"


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{RECORD}"))


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a whole checkpoint, or one that `clean_up` brings back."""
    return any(any(folder.glob(f"{before}step-*/{RECORD}")) for before in ("", REPLACED))


def write_checkpoint(
    final: Path, tensors: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]
) -> None:
    """Write the checkpoint `final`, whose folder must exist.

    Args:
        final: Its folder. One that is there is replaced.
        tensors: By file, without `.safetensors`; in the memory of the host, contiguous.
        record: What `checkpoint.json` says besides the checksums; plain JSON values.

    Raises:
        OSError: It cannot be written (a full disk). Nothing of it is left, and one that was there
            is untouched.
    """
    folder, draft = final.parent, final.parent / f"{DRAFT}{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()
        try:
            for name, of_file in tensors.items():
                save_file(dict(of_file), draft / f"{name}.safetensors")
        except SafetensorError as problem:
            raise OSError(
                f"cannot write the checkpoint {final.name} into {folder}: {problem}"
            ) from problem
        files = {path.name: _checksum(path) for path in sorted(draft.iterdir())}
        text = json.dumps({**record, "files": files}, indent=1, sort_keys=True)
        (draft / RECORD).write_text(text)
        for path in (*draft.iterdir(), draft):
            _sync(path)
        replaced = folder / f"{REPLACED}{final.name}"
        if final.exists():
            final.rename(replaced)
        draft.rename(final)
        _sync(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_old(folder: Path, *, keep: int, written: Path) -> None:
    """Delete all but the newest `keep` checkpoints and the one just written."""
    for old in list_checkpoints(folder)[:-keep]:
        if old != written:
            shutil.rmtree(old, ignore_errors=True)


def keep_as_best(path: Path, note: Mapping[str, object]) -> bool:
    """Make `best` next to a checkpoint the same checkpoint: its files by other names (hard links),
    which stay when it is deleted.

    Args:
        path: The checkpoint's folder.
        note: Why it is the best; `best.json` says it.

    Returns:
        False if the checkpoint is not there, or is deleted meanwhile.
    """
    best, draft = path.with_name(BEST), path.with_name(f"{DRAFT}{os.getpid()}-{BEST}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()
        for file in path.iterdir():
            (draft / file.name).hardlink_to(file)
        (draft / "best.json").write_text(json.dumps(note, indent=1, sort_keys=True))
        _sync(draft / "best.json")
        _sync(draft)
        if not (draft / RECORD).is_file():
            return False
        replaced = best.with_name(f"{REPLACED}{BEST}")
        if best.exists():  # set aside, until its successor is there
            shutil.rmtree(replaced, ignore_errors=True)
            best.rename(replaced)
        draft.rename(best)
        _sync(best.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        return True
    except FileNotFoundError:
        return False
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def clean_up(folder: Path) -> None:
    """Remove what killed processes left: drafts, and checkpoints that were being replaced, which
    come back if their successor is missing."""
    for draft in folder.glob(f"{DRAFT}*"):
        pid = draft.name.removeprefix(DRAFT).partition("-")[0]
        if not pid.isdecimal() or not is_alive(int(pid), None):
            shutil.rmtree(draft, ignore_errors=True)
    for replaced in folder.glob(f"{REPLACED}*"):
        final = folder / replaced.name.removeprefix(REPLACED)
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(final)


def set_aside(path: Path) -> None:
    """Rename a damaged checkpoint, so that nothing takes it for a whole one."""
    aside = path.with_name(f"{DAMAGED}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        path.rename(aside)


def read_tensors(file: Path, record: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's file, whose checksum is verified if the record has one.

    Raises:
        DamagedFile: The file is damaged or missing.
    """
    try:
        expected = record.get("files", {}).get(file.name)
        if expected is not None and _checksum(file) != expected:
            raise damaged(
                file, f"its bytes are not those that {RECORD} has the SHA-256 of", fix=FIX
            )
        return load_file(file)
    except FileNotFoundError as problem:
        raise damaged(file, "it is missing", fix=FIX) from problem
    except SafetensorError as problem:
        raise damaged(file, problem, fix=FIX) from problem


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
