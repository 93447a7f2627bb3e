"""Records of a sender's liking: any header, any values, with checksums that are right."""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gato.episode import Episode
from replay.storage.record import MAGIC, pack, record_to_bytes


def header_of(data: bytes) -> dict[str, Any]:
    """The JSON header of a record."""
    return json.loads(data[12 : 12 + int.from_bytes(data[8:12], "little")])


def payload_of(data: bytes) -> bytes:
    """What follows the header."""
    return data[12 + int.from_bytes(data[8:12], "little") :]


def record_of(header: Mapping[str, Any] | bytes, payload: bytes = b"") -> bytes:
    """A record with a checksum that matches its header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (
        MAGIC
        + zlib.crc32(text).to_bytes(4, "little")
        + len(text).to_bytes(4, "little")
        + text
        + payload
    )


def valued(payload: bytes) -> bytes:
    """A value with a checksum that matches it."""
    return zlib.crc32(payload).to_bytes(4, "little") + payload


def changed(episode: Episode, **fields: Any) -> bytes:
    """The episode's record with other fields in its header."""
    data = record_to_bytes(pack(episode))
    return record_of(header_of(data) | fields, payload_of(data))


def with_values(
    episode: Episode,
    change: Callable[[list[tuple[int, int, bytes]]], Sequence[tuple[int, int, bytes]]],
) -> bytes:
    """The episode's record with other values: (column, chunk, checksum and payload)."""
    data = record_to_bytes(pack(episode))
    header, rest = header_of(data), payload_of(data)
    values: list[tuple[int, int, bytes]] = []
    for column, chunk, length in header["values"]:
        values.append((column, chunk, rest[:length]))
        rest = rest[length:]
    made = change(values)
    header["values"] = [[column, chunk, len(value)] for column, chunk, value in made]
    return record_of(header, b"".join(value for _, _, value in made))
