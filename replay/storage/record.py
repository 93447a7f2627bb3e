"""Records: an episode as a header and values with checksums, the same in transit and on disk.

A small column is one value. Images are stored in compressed chunks of a few steps, so that reading
a window costs only the steps that it shows. The sender compresses them; replay only checks that
they can be decompressed.

Bytes of a record: `MAGIC`, CRC-32 of the header, length of the header (4 bytes each, little
endian), the header in JSON, the values one after another.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lz4.block
import numpy as np
from jaxtyping import Shaped

from gato.episode import BadEpisode, Episode
from gato.version import Version
from replay.storage.dedup import SequenceKey, split_key
from replay.storage.header import Columns, DamagedEpisode, Header

MAGIC = b"GEP2"
MAX_HEADER_BYTES = 2 << 20
"""Of the JSON header of a record, which may take 30 times its bytes of memory while it is
parsed."""
CHUNK_STEPS = 8
"""Steps of images in one compressed chunk."""
IMAGE_BYTES = 4096
"""A column with at least this many bytes a step is stored in chunks."""
MAX_RATIO = 256
"""LZ4 cannot expand one byte to more than 255. What claims more is rejected before any memory is
taken for it."""
Values = Mapping[tuple[int, int], bytes | memoryview]
"""(column, chunk) to a CRC-32 of the payload (4 bytes) and the payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An episode ready to be sent or stored."""

    header: Header
    key: SequenceKey
    """The header's key in its two parts."""
    values: Values


def record_of(header: Header, values: Values) -> Record:
    """The record of a header and its values; the key is split here, and nowhere else after it."""
    return Record(header=header, key=split_key(header.key), values=values)


def step_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of one step of a column."""
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def chunk_steps(dtype: str, shape: tuple[int, ...], steps: int) -> int:
    """Steps in one value of a column: all of them, or those of a compressed chunk."""
    return CHUNK_STEPS if step_bytes(dtype, shape) >= IMAGE_BYTES else steps


def pack(episode: Episode) -> Record:
    """The episode as a record. Images are compressed; other columns stay as they are."""
    arrays = {f"o/{name}": array for name, array in sorted(episode.observations.items())}
    arrays |= {"actions": episode.actions, "rewards": episode.rewards}
    if episode.labels is not None:
        arrays["labels"] = episode.labels
    values: dict[tuple[int, int], bytes | memoryview] = {}
    columns: dict[str, tuple[str, tuple[int, ...]]] = {}
    for index, (name, array) in enumerate(arrays.items()):
        columns[name] = (array.dtype.str, array.shape[1:])
        each = chunk_steps(*columns[name], len(array))
        is_chunked = step_bytes(*columns[name]) >= IMAGE_BYTES
        for chunk, start in enumerate(range(0, len(array), each)):
            raw = np.ascontiguousarray(array[start : start + each]).tobytes()
            payload = lz4.block.compress(raw, store_size=False) if is_chunked else raw
            values[index, chunk] = zlib.crc32(payload).to_bytes(4, "little") + payload
    header = Header(
        number=-1,
        key=episode.key,
        task=episode.task,
        source=episode.source,
        steps=episode.num_steps,
        episode_return=episode.episode_return,
        seed=episode.seed,
        terminated=episode.terminated,
        truncated=episode.truncated,
        version=episode.version,
        info=dict(episode.info),
        columns=columns,
        stored_bytes=0,
        tokens=0,
    )
    return record_of(header, values)


def crc_matches(value: bytes | memoryview) -> bool:
    """Whether the payload of a value matches its checksum."""
    return zlib.crc32(memoryview(value)[4:]) == int.from_bytes(value[:4], "little")


def open_value(
    value: bytes | memoryview, dtype: str, shape: tuple[int, ...], steps: int
) -> Shaped[np.ndarray, "T ..."]:
    """The steps of one value [steps, *shape]; a read-only view if it is not compressed.

    Raises:
        DamagedEpisode: if its checksum or its size is wrong, or it cannot be decompressed.
    """
    payload = memoryview(value)[4:]
    if not crc_matches(value):
        raise DamagedEpisode("does not match its checksum")
    each = step_bytes(dtype, shape)
    if each >= IMAGE_BYTES:
        # Before decompressing, which takes the memory that is claimed.
        if steps * each > len(payload) * MAX_RATIO:
            raise DamagedEpisode(f"{len(payload)} bytes cannot hold {steps} steps")
        try:
            payload = lz4.block.decompress(payload, uncompressed_size=steps * each)
        except lz4.block.LZ4BlockError as problem:
            raise DamagedEpisode(f"cannot be decompressed: {problem}") from problem
    if len(payload) != steps * each:
        raise DamagedEpisode(f"holds {len(payload)} bytes, expected {steps * each}")
    return np.frombuffer(payload, dtype).reshape(steps, *shape)


def episode_of(header: Header, arrays: Mapping[str, Shaped[np.ndarray, "T ..."]]) -> Episode:
    """The episode of a header and its columns, by name."""
    return Episode(
        key=header.key,
        task=header.task,
        source=header.source,
        observations={name[2:]: array for name, array in arrays.items() if name.startswith("o/")},
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        labels=arrays.get("labels"),
        terminated=header.terminated,
        truncated=header.truncated,
        seed=header.seed,
        version=header.version,
        info=header.info,
    )


def record_to_bytes(record: Record) -> bytes:
    """The record as bytes."""
    plain = asdict(record.header) | {
        "values": [[*place, len(value)] for place, value in record.values.items()]
    }
    text = json.dumps(plain).encode()
    lead = MAGIC + zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return b"".join([lead, text, *record.values.values()])


def record_from_bytes(data: bytes) -> Record:
    """The inverse of `record_to_bytes`; the values are views of `data`.

    Only the header is checked; see `replay.ingest` for the rest. Its return, number, tokens and
    stored bytes are not taken from the sender.

    Raises:
        BadEpisode: if the header is damaged, or these are not the bytes of a record.
    """
    if data[:4] != MAGIC:
        raise BadEpisode(f"not an episode record: begins with {data[:4]!r}, expected {MAGIC!r}")
    header_bytes = int.from_bytes(data[8:12], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise BadEpisode(
            f"a header of {header_bytes:,} bytes is too large, expected at most"
            f" {MAX_HEADER_BYTES:,}"
        )
    text = data[12 : 12 + header_bytes]
    if zlib.crc32(text) != int.from_bytes(data[4:8], "little"):
        raise BadEpisode("damaged episode record: its header does not match its checksum")
    try:
        return _decode(json.loads(text), memoryview(data), 12 + header_bytes)
    except BadEpisode:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RecursionError,
    ) as problem:
        raise BadEpisode(
            f"not an episode record: {type(problem).__name__} in its header ({problem})"
        ) from problem


def _decode(plain: dict[str, Any], data: memoryview, start: int) -> Record:
    """The record of a parsed header and of the values from byte `start` on.

    A checksum only proves that the bytes arrived as they were sent, so every field is checked.
    """
    texts = [
        plain["key"],
        plain["task"],
        plain["source"],
        *(text for pair in plain["info"].items() for text in pair),
    ]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("key, task, source and info must be texts")
    values: dict[tuple[int, int], bytes | memoryview] = {}
    for column, chunk, length in plain["values"]:
        if not 4 <= length <= len(data) - start:
            raise ValueError(f"a value of {length} bytes in a record with {len(data) - start} left")
        if (int(column), int(chunk)) in values:
            raise ValueError(f"chunk {chunk} of column {column} comes twice")
        values[int(column), int(chunk)] = data[start : start + length]
        start += length
    if start != len(data):
        raise ValueError(f"{len(data) - start} bytes follow the last value")
    columns: Columns = {
        str(name): (str(dtype), tuple(map(int, shape)))
        for name, (dtype, shape) in plain["columns"].items()
    }
    header = Header(
        number=-1,
        key=plain["key"],
        task=plain["task"],
        source=plain["source"],
        steps=int(plain["steps"]),
        episode_return=0.0,
        seed=int(plain["seed"]),
        terminated=bool(plain["terminated"]),
        truncated=bool(plain["truncated"]),
        version=Version(*map(int, plain["version"])) if plain["version"] else None,
        info=plain["info"],
        columns=columns,
        stored_bytes=0,
        tokens=0,
    )
    return record_of(header, values)
