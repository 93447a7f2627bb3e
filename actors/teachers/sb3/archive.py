"""Reads the zip that Stable-Baselines3's `save` writes; every size is checked before it is read.

`policy.pth` holds tensors only, which PyTorch reads without running code. `data` is JSON; objects
in it are pickles in base64, next to their readable parts. Only the readable parts are read.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

MOST_DATA_BYTES = 2**26
"""Largest JSON in a zip, unpacked: 64 MiB; real ones have some kilobytes."""
MOST_POLICY_BYTES = 2**29
"""Largest tensors of a policy, unpacked: 512 MiB; networks for arrays of numbers have some
megabytes."""
MOST_MEMBERS = 10_000
"""Most files in one archive, so that its list of names stays small."""
DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
)
"""What reading a damaged file may raise, by the documentation of pickle and zipfile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The content of a zip of Stable-Baselines3."""

    path: Path
    data: Mapping[str, Any]
    """The algorithm's attributes, as far as they are readable."""
    state: Mapping[str, Shaped[np.ndarray, ...]]
    """The policy's tensors by name, floating-point ones as float32."""
    version: str
    """Of Stable-Baselines3, or empty."""

    def readable(self, name: str) -> dict[str, Any]:
        """The readable parts of one entry of `data`, without the pickle; empty if there is none."""
        return {
            key: value
            for key, value in (self.data.get(name) or {}).items()
            if key != ":serialized:"
        }


def read_archive(path: Path) -> Archive:
    """Read a zip. Raises ValueError if it is not one of Stable-Baselines3, is damaged, holds
    pickles or is too large."""
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a zip, or does not exist; give a file that"
            " Stable-Baselines3's `save` wrote"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            _require_known(path, names)
            content = member(archive, "data", MOST_DATA_BYTES, path)
            weights = member(archive, "policy.pth", MOST_POLICY_BYTES, path)
            has_version = "_stable_baselines3_version" in names
            version = (
                member(archive, "_stable_baselines3_version", 1000, path) if has_version else b""
            )
        data = json.loads(content)
    except TooLargeError:
        raise
    except _UnknownFileError as problem:
        raise ValueError(str(problem)) from problem
    except DAMAGED as problem:
        raise ValueError(
            f"{path} is damaged: {problem}; copy it again, or save the policy again"
        ) from problem
    entries = ("policy_kwargs", "policy_class", "observation_space", "action_space")
    if not (
        isinstance(data, dict) and all(isinstance(data.get(name) or {}, dict) for name in entries)
    ):
        raise ValueError(
            f"data of {path} are not what Stable-Baselines3 writes; save the policy again with its"
            " `save`"
        )
    return Archive(
        path=path,
        data=data,
        state=_tensors(path, weights),
        version=version.decode(errors="replace").strip(),
    )


class TooLargeError(ValueError):
    """A file that unpacks to more than its reader accepts."""


class _UnknownFileError(Exception):
    """A zip that is not of Stable-Baselines3."""


def _require_known(path: Path, names: list[str]) -> None:
    pickles = [name for name in names if name.endswith((".pkl", ".pickle"))]
    if pickles:
        raise _UnknownFileError(
            f"{path} holds a pickle, {pickles[0]}, which may run programs; Stable-Baselines3 writes"
            " none"
        )
    if not {"data", "policy.pth"} <= set(names):
        raise _UnknownFileError(
            f"{path} is not of Stable-Baselines3, version 1 or 2: it has {', '.join(names[:10])},"
            " no policy.pth"
        )


def member(archive: zipfile.ZipFile, name: str, most_bytes: int, path: Path) -> bytes:
    """The content of one file in a zip. Raises TooLargeError if it unpacks to more than
    `most_bytes`, before it is unpacked."""
    if len(archive.namelist()) > MOST_MEMBERS:
        raise TooLargeError(
            f"{path} holds {len(archive.namelist()):,} files, at most {MOST_MEMBERS:,} are read"
        )
    stated_bytes = archive.getinfo(name).file_size
    if stated_bytes <= most_bytes:
        # A header may state less than there is: unpack no more than the limit in any case.
        with archive.open(name) as file:
            content = file.read(most_bytes + 1)
        if len(content) <= most_bytes:
            return content
        stated_bytes = len(content)
    raise TooLargeError(
        f"{name} of {path} unpacks to {stated_bytes / 2**20:,.0f} MiB or more, at most"
        f" {most_bytes / 2**20:,.0f} MiB are read"
    )


def _tensors(path: Path, weights: bytes) -> dict[str, Shaped[np.ndarray, ...]]:
    """The tensors of `policy.pth`, which is a zip itself, or, of PyTorch before 1.6, a plain
    file."""
    import torch

    if zipfile.is_zipfile(io.BytesIO(weights)):
        try:
            with zipfile.ZipFile(io.BytesIO(weights)) as archive:
                total_bytes = sum(info.file_size for info in archive.infolist())
        except DAMAGED as problem:
            raise ValueError(
                f"policy.pth of {path} is damaged: {problem}; save the policy again"
            ) from problem
        if total_bytes > MOST_POLICY_BYTES:
            raise TooLargeError(
                f"policy.pth of {path} unpacks to {total_bytes / 2**20:,.0f} MiB, at most"
                f" {MOST_POLICY_BYTES / 2**20:,.0f} MiB are read"
            )
    try:
        state = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
        # A tensor's strides may repeat a few bytes: its true size shows only in a copy.
        total_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        if total_bytes > MOST_POLICY_BYTES:
            raise TooLargeError(
                f"policy.pth of {path} has {total_bytes / 2**20:,.0f} MiB of tensors, at most"
                f" {MOST_POLICY_BYTES / 2**20:,.0f} MiB are read"
            )
        arrays = {str(name): tensor.numpy() for name, tensor in state.items()}
        return {
            name: np.asarray(a, np.float32) if a.dtype.kind == "f" else a
            for name, a in arrays.items()
        }
    except TooLargeError:
        raise
    except DAMAGED as problem:
        raise ValueError(
            f"policy.pth of {path} holds more than tensors, or is damaged: a pickle in it may run"
            " programs, and is not read. Save the policy again with Stable-Baselines3's `save`"
        ) from problem
