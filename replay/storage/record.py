"""Records: an episode as a header and values with checksums, the same on the way to replay and on
its disk.

A small column is one value. Images are kept in compressed chunks of a few steps, so that a window
costs only what it shows; whoever sends an episode compresses them, and replay only checks that they
can be opened.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import lz4.block
import numpy as np

from gato.episode import MAX_STEPS, BadEpisode, Episode, check_episode, check_header_bytes
from gato.task import ArraySpec, Task
from gato.version import Version
from replay.storage.header import Columns, DamagedEpisode, Header

MAGIC = b"GEP2"
CHUNK_STEPS = 8
"""Steps of images in one compressed chunk."""
IMAGE_BYTES = 4096
"""A column with at least this many bytes a step is kept in chunks."""
MAX_RATIO = 256
"""LZ4 cannot make more than 255 bytes of one: what claims more is refused before any memory is
taken for it."""
MAX_VERSION = 1 << 53
"""Epochs and numbers of versions are below: they must fit the index's columns, and differences of
them as well."""
REWARDS = ("<f4", ())
Values = Mapping[tuple[int, int], bytes | memoryview]
"""(column, chunk) to a CRC-32 of the payload and the payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An episode ready to be sent or stored."""

    header: Header
    values: Values


def step_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of one step of a column."""
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def chunk_steps(dtype: str, shape: tuple[int, ...], steps: int) -> int:
    """Steps in one value of a column: all of them, or those of a compressed chunk."""
    return CHUNK_STEPS if step_bytes(dtype, shape) >= IMAGE_BYTES else steps


def pack(episode: Episode) -> Record:
    """The episode as a record; images are compressed here, everything else stays as it is."""
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
    return Record(header=header, values=values)


def crc_matches(value: bytes | memoryview) -> bool:
    """Whether a value is as it was packed."""
    return zlib.crc32(memoryview(value)[4:]) == int.from_bytes(value[:4], "little")


def open_value(
    value: bytes | memoryview, dtype: str, shape: tuple[int, ...], steps: int
) -> np.ndarray:
    """The steps of one value, as a read-only view where it is not compressed. DamagedEpisode where
    its checksum is wrong."""
    payload = memoryview(value)[4:]
    if not crc_matches(value):
        raise DamagedEpisode("does not match its checksum")
    each = step_bytes(dtype, shape)
    if each >= IMAGE_BYTES:
        if steps * each > len(payload) * MAX_RATIO:
            raise DamagedEpisode(f"{len(payload)} bytes cannot hold {steps} steps")
        try:
            payload = lz4.block.decompress(payload, uncompressed_size=steps * each)
        except lz4.block.LZ4BlockError as problem:
            raise DamagedEpisode(f"cannot be decompressed: {problem}") from problem
    if len(payload) != steps * each:
        raise DamagedEpisode(f"holds {len(payload)} bytes, expected {steps * each}")
    return np.frombuffer(payload, dtype).reshape(steps, *shape)


def unpack(record: Record) -> Episode:
    """The whole episode. DamagedEpisode where a value is damaged."""
    header = record.header
    arrays: dict[str, np.ndarray] = {}
    for index, (name, (dtype, shape)) in enumerate(header.columns.items()):
        each = chunk_steps(dtype, shape, header.steps)
        parts = [
            open_value(record.values[index, chunk], dtype, shape, min(each, header.steps - start))
            for chunk, start in enumerate(range(0, header.steps, each))
        ]
        arrays[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return episode_of(header, arrays)


def episode_of(header: Header, arrays: Mapping[str, np.ndarray]) -> Episode:
    """The episode of a header and its columns."""
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
    """The record as bytes: magic, CRC-32 and length of a JSON header, the header, the values one
    after another."""
    plain = asdict(record.header) | {
        "values": [[*place, len(value)] for place, value in record.values.items()]
    }
    text = json.dumps(plain).encode()
    lead = MAGIC + zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return b"".join([lead, text, *record.values.values()])


def record_from_bytes(data: bytes) -> Record:
    """The record of `record_to_bytes`; its values are views. BadEpisode where it is damaged or was
    never one."""
    if data[:4] != MAGIC:
        raise BadEpisode(f"not an episode record: begins with {data[:4]!r}, expected {MAGIC!r}")
    start = 12 + check_header_bytes(int.from_bytes(data[8:12], "little"))
    text = data[12:start]
    if zlib.crc32(text) != int.from_bytes(data[4:8], "little"):
        raise BadEpisode("damaged episode record: its header does not match its checksum")
    try:
        return _decode(json.loads(text), memoryview(data), start)
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
    """What a record says, whoever wrote it: a checksum only proves that it came as it was sent."""
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
    return Record(header=header, values=values)


def check_record(record: Record, task: Task) -> Record:
    """The door: the record with its true return, or BadEpisode with the reason. It takes the memory
    of one chunk.

    Sizes are compared with what the task shows before anything is decompressed, so a claim costs
    nothing.
    """
    header = record.header
    if not 1 <= header.steps <= MAX_STEPS:
        raise BadEpisode(
            f"episode {header.key} has {header.steps} steps, expected 1 to {MAX_STEPS}"
        )
    _check_texts_and_version(header)
    expected: dict[str, ArraySpec] = {f"o/{name}": spec for name, spec in task.observations.items()}
    expected |= {"actions": task.action, "labels": task.action}
    shown = {name for name in header.columns if name.startswith("o/")}
    if shown != {f"o/{name}" for name in task.observations}:
        raise BadEpisode(
            f"episode {header.key} observes {sorted(n[2:] for n in shown)}, task {task.name}"
            f" {sorted(task.observations)}"
        )
    arrays: dict[str, np.ndarray] = {}
    wanted = 0
    for index, (name, (dtype, shape)) in enumerate(header.columns.items()):
        spec = expected.get(name)
        _check_layout(
            header, name, (dtype, shape), REWARDS if spec is None else (spec.dtype.str, spec.shape)
        )
        each = chunk_steps(dtype, shape, header.steps)
        num_chunks = -(-header.steps // each)
        wanted += num_chunks
        if wanted > len(record.values):
            raise BadEpisode(
                f"episode {header.key} claims {header.steps} steps, it is damaged or a value is"
                " missing"
            )
        try:
            for chunk in range(num_chunks):
                opened = open_value(
                    record.values[index, chunk],
                    dtype,
                    shape,
                    min(each, header.steps - chunk * each),
                )
                # each is looked at here, so that one step may stand for all below
                if num_chunks > 1:
                    problem = spec.problem_with(opened, name) if spec else None
                    if problem:
                        raise BadEpisode(
                            f"episode {header.key} of {header.task}: {problem} of chunk {chunk}"
                        )
                    opened = np.broadcast_to(opened[:1, ...], (header.steps, *shape))
                arrays[name] = opened
        except (DamagedEpisode, KeyError) as problem:
            raise BadEpisode(
                f"episode {header.key} of {header.task}: {name} is damaged: {problem}"
            ) from problem
    if wanted != len(record.values) or not {"actions", "rewards"} <= set(arrays):
        raise BadEpisode(
            f"episode {header.key} is damaged: it has {sorted(arrays)} in {len(record.values)}"
            " values"
        )
    episode = episode_of(header, arrays)
    check_episode(episode, task)
    return replace(record, header=replace(header, episode_return=episode.episode_return))


def _check_texts_and_version(header: Header) -> None:
    try:
        "".join(
            [header.key, header.task, header.source, *header.info, *header.info.values()]
        ).encode()
    except UnicodeEncodeError as problem:
        raise BadEpisode(
            f"episode {header.key!r} is damaged: a text of its header is no text: {problem}"
        ) from problem
    if header.version is not None and not all(0 <= part < MAX_VERSION for part in header.version):
        raise BadEpisode(f"episode {header.key} is damaged: its version is {header.version}")


def _check_layout(
    header: Header,
    name: str,
    layout: tuple[str, tuple[int, ...]],
    expected: tuple[str, tuple[int, ...]],
) -> None:
    """Refuse, before memory is taken, a column that is not as the task shows it. dtypes are
    compared as they are written: NumPy reads more into a text than an array of numbers could be
    of."""
    if expected is REWARDS and name != "rewards":
        raise BadEpisode(
            f"episode {header.key} is damaged: it has a column {name}, which is none of task"
            f" {header.task}'s"
        )
    for what, is_so, should_be in zip(("dtype", "shape"), layout, expected, strict=True):
        if is_so != should_be:
            raise BadEpisode(
                f"episode {header.key} of {header.task}: {name} has {what} {is_so} in each step,"
                f" expected {should_be}"
            )
