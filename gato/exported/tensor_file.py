"""Files in the safetensors format, read strictly and written, without the safetensors package.

The format: eight bytes with the header's length (little-endian), the header (a JSON object that
names dtype, shape and place of each tensor), and the tensors' bytes one after another.
https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gato.files import damaged

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}
"""Bfloat16 is kept as uint16, because NumPy has no such dtype."""
MOST_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
CHECKSUM = "crc32"
"""The key of metadata with the checksum of all tensors' bytes, which the format itself lacks."""
FIX = "export the policy again, or copy the file again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """Arrays by name, and texts by key."""

    metadata: Mapping[str, str]
    arrays: Mapping[str, Shaped[np.ndarray, ...]]


def read_tensors(file: Path) -> TensorFile:
    """All of a file, checked: every byte belongs to one tensor, and the checksum, if there is one,
    is right.

    Raises:
        ValueError: If it is not such a file, or damaged; the text says what is wrong.
        OSError: If it cannot be read.
    """
    try:
        raw = np.fromfile(file, np.uint8)
        header, begin = _header(raw)
        return _tensors(header, raw[begin:])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise damaged(file, problem, fix=FIX) from problem


def _header(raw: Shaped[np.ndarray, " bytes"]) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors begin."""
    if len(raw) < 8:
        raise ValueError(f"it has {len(raw)} bytes, expected a safetensors file")
    (num_bytes,) = struct.unpack("<Q", raw[:8].tobytes())
    if num_bytes > min(MOST_HEADER_BYTES, len(raw) - 8):
        raise ValueError(
            f"its header would have {num_bytes:,} bytes, the file has {len(raw):,}; it is cut off"
            " or not a safetensors file"
        )
    header = json.loads(raw[8 : 8 + num_bytes].tobytes(), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__}, expected an object")
    return header, 8 + num_bytes


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _tensors(header: dict[str, Any], data: Shaped[np.ndarray, " bytes"]) -> TensorFile:
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is not texts by name")
    arrays: dict[str, np.ndarray] = {}
    end = 0
    for name, about in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = about["dtype"], about["shape"], about["data_offsets"]
        if dtype not in DTYPES:
            raise ValueError(f"{name} has dtype {dtype}, expected one of {', '.join(DTYPES)}")
        if not all(isinstance(size, int) and size >= 0 for size in (*shape, first, last)):
            raise ValueError(f"{name} has a shape or place that is not of whole numbers")
        if first != end or last - first != math.prod(shape) * DTYPES[dtype].itemsize:
            raise ValueError(
                f"{name} of shape {shape} is at bytes {first} to {last}, expected it after {end}"
            )
        if last > len(data):
            raise ValueError(f"it is cut off: {name} ends at {last:,} of {len(data):,} bytes")
        # A copy has the alignment of its dtype, whatever the header's length is.
        arrays[name] = data[first:last].copy().view(DTYPES[dtype]).reshape(shape)
        end = last
    if end != len(data):
        raise ValueError(f"{len(data) - end:,} bytes follow the last tensor")
    expected = metadata.get(CHECKSUM)
    if expected is not None and int(expected) != zlib.crc32(data.data):
        raise ValueError("its checksum differs: bytes of the tensors have changed")
    return TensorFile(metadata=metadata, arrays=arrays)


def write_tensors(file: Path, tensors: TensorFile, *, replace: bool = False) -> None:
    """Write a file that is complete or absent: as a draft, synced, then renamed.

    Args:
        file: Its folder must exist.
        tensors: uint16 arrays are written as bfloat16. A checksum is added to the metadata.
        replace: Whether a file of this name is replaced.

    Raises:
        ValueError: If there is a file of this name, and not `replace`.
        OSError: If it cannot be written; nothing is left then.
    """
    # Wide dtypes first, so that each tensor is aligned.
    arrays = dict(
        sorted(tensors.arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    )
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    checksum = end = 0
    for name, array in arrays.items():
        first, end = end, end + array.nbytes
        header[name] = {
            "dtype": names[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [first, end],
        }
        checksum = zlib.crc32(np.ascontiguousarray(array).data, checksum)
    header = {METADATA: {**tensors.metadata, CHECKSUM: str(checksum)}, **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for array in arrays.values():
                out.write(np.ascontiguousarray(array).data)
            out.flush()
            os.fsync(out.fileno())
        require_absent(file, replace=replace)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def require_absent(file: Path, *, replace: bool) -> None:
    """Raises ValueError if there is a file of this name, and not `replace`; or a folder."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file in it, such as policy.safetensors")
    if file.exists() and not replace:
        raise ValueError(f"{file} is there already; name another file, or add --force")
