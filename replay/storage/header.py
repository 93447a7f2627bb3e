"""Headers: the facts on a stored episode without its columns, as bytes with a checksum; disk space
of values."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gato.episode import is_by_agent, is_held_out
from gato.version import Version

SCHEMA = 2
"""1: whole keys were stored. 2: intervals of sequence numbers (`replay.storage.dedup`)."""
MARK = b"\x01"
"""Prefix of a header with a checksum. Older headers have none and begin with a brace."""
PAGE_BYTES = 4096
"""LMDB stores a value larger than half a page in whole pages of its own."""
ENTRY_BYTES = 48
"""Key, node header and checksum, next to a value that shares a page."""


class DamagedEpisode(ValueError):
    """A stored record does not match its checksum."""


class NewerStore(ValueError):
    """A store that a newer release wrote, which this one would misread."""


Columns = Mapping[str, tuple[str, tuple[int, ...]]]
"""Column to dtype and shape of one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The facts on an episode without its columns."""

    number: int
    """Order of insertion; -1 while it is not stored."""
    key: str
    task: str
    source: str
    steps: int
    episode_return: float
    seed: int
    terminated: bool
    truncated: bool
    version: Version | None
    info: Mapping[str, str]
    columns: Columns
    stored_bytes: int
    tokens: int
    schema: int = SCHEMA

    @property
    def by_agent(self) -> bool:
        return is_by_agent(self.source)

    @property
    def held_out(self) -> bool:
        """Whether it is kept for evaluations, and never drawn for training."""
        return is_held_out(self.source)


FIELDS = tuple(field.name for field in fields(Header))


def header_to_bytes(header: Header) -> bytes:
    text = json.dumps({name: getattr(header, name) for name in FIELDS}).encode()
    return MARK + zlib.crc32(text).to_bytes(4, "little") + text


def header_from_bytes(value: bytes) -> Header:
    """The inverse of `header_to_bytes`.

    Raises:
        DamagedEpisode: if the checksum is wrong.
        NewerStore: if a newer release wrote it.
    """
    text = value if value[:1] == b"{" else value[5:]
    if text is not value and (
        value[:1] != MARK or zlib.crc32(text) != int.from_bytes(value[1:5], "little")
    ):
        raise DamagedEpisode("the header does not match its checksum")
    try:
        # decoded here: json would guess the encoding of bytes first
        plain: dict[str, Any] = json.loads(text.decode())
        if plain["schema"] > SCHEMA:
            raise NewerStore(
                f"an episode has schema {plain['schema']}, this release reads up to {SCHEMA};"
                " update gato-ray"
            )
        plain["version"] = Version(*plain["version"]) if plain["version"] else None
        plain["columns"] = {
            name: (dtype, tuple(shape)) for name, (dtype, shape) in plain["columns"].items()
        }
        return Header(**plain)
    except NewerStore:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as problem:  # an old header without a checksum
        raise DamagedEpisode(f"the header cannot be read: {problem}") from problem


def disk_bytes(value_bytes: int) -> int:
    """Bytes of LMDB's file that a value takes: whole pages of its own, or its share of a page that
    is two thirds full."""
    used = value_bytes + ENTRY_BYTES
    return -(-used // PAGE_BYTES) * PAGE_BYTES if used > PAGE_BYTES // 2 else used * 3 // 2


def numbered(
    header: Header, value_bytes: Iterable[int], number: int, tokens: int
) -> tuple[Header, bytes]:
    """The header as it is stored, with the disk space of its episode, and its bytes.

    `value_bytes`: the length of each value of the episode.
    """
    unsized = replace(header, number=number, tokens=tokens, stored_bytes=0)
    # The header contains its own size: 20 bytes stand for the digits that are not known yet.
    size = sum(map(disk_bytes, value_bytes)) + disk_bytes(len(header_to_bytes(unsized)) + 20)
    sized = replace(unsized, stored_bytes=size)
    return sized, header_to_bytes(sized)
