"""Manifests: each names all files of one copy of a run, with their lengths and checksums."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cluster.storage.place import Place, PlaceAway

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file at the place; it never changes."""

    path: str
    num_bytes: int
    crc: int
    first: int = 0
    """Of a pack: the number of its first episode. Of a journal's piece: its first byte."""
    last: int = 0
    """Of a pack: the number of its last episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCopy:
    """The copy of one store of episodes."""

    state: Stored
    packs: tuple[Stored, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One whole copy of a run."""

    tenure: int
    number: int
    """1, 2, 3... within a tenure."""
    name: str
    """The run's."""
    time_s: float
    """Wall-clock time when the copy was begun: all that was acknowledged before is in it."""
    epoch: int
    files: Mapping[str, Stored]
    """Whole files, by their path in the run's folder."""
    journal: Mapping[str, Sequence[Stored]] = field(default_factory=dict)
    """The pieces of each segment, by its name."""
    shards: Mapping[str, ShardCopy] = field(default_factory=dict)
    """By the store's path in the run's folder."""

    @property
    def path(self) -> str:
        return f"manifests/{self.tenure:06d}-{self.number:09d}"

    def all_stored(self) -> list[Stored]:
        """All files that it names."""
        stored = [
            *self.files.values(),
            *(piece for many in self.journal.values() for piece in many),
        ]
        for shard in self.shards.values():
            stored += [shard.state, *shard.packs]
        return stored

    def paths(self) -> set[str]:
        """The paths of all files that it names."""
        return {stored.path for stored in self.all_stored()}


def to_bytes(manifest: Manifest) -> bytes:
    text = json.dumps({"format": FORMAT, **asdict(manifest)}).encode()
    return b"%08x\n" % zlib.crc32(text) + text


def from_bytes(data: bytes) -> Manifest | None:
    """The inverse of `to_bytes`; None if it was not written to its end.

    Raises:
        ValueError: A newer release wrote it.
    """
    head, _, text = data.partition(b"\n")
    if head != b"%08x" % zlib.crc32(text):
        return None
    plain: dict[str, Any] = json.loads(text)
    if plain.pop("format") != FORMAT:
        raise ValueError("the copy of the run was written by a newer release; update gato-ray")
    return Manifest(
        **{name: plain[name] for name in ("tenure", "number", "name", "time_s", "epoch")},
        files={path: Stored(**each) for path, each in plain["files"].items()},
        journal={
            name: tuple(Stored(**piece) for piece in many)
            for name, many in plain["journal"].items()
        },
        shards={
            path: ShardCopy(
                state=Stored(**shard["state"]),
                packs=tuple(Stored(**pack) for pack in shard["packs"]),
            )
            for path, shard in plain["shards"].items()
        },
    )


def newest_manifest(place: Place, tenure: int | None = None) -> Manifest | None:
    """The newest whole one, of a tenure or of the last that has any; None if there is none.

    Raises:
        PlaceAway: The place cannot be read.
    """
    for path in reversed(place.names("manifests")):
        if tenure is None or path.startswith(f"manifests/{tenure:06d}-"):
            found = from_bytes(place.get(path))
            if found is not None:
                return found
    return None


def put(place: Place, path: str, data: bytes, *, first: int = 0, last: int = 0) -> Stored:
    """Write a file of a copy."""
    place.put(path, data)
    return Stored(path=path, num_bytes=len(data), crc=zlib.crc32(data), first=first, last=last)


def put_from(place: Place, path: str, file: Path) -> Stored:
    """Write a file of this machine. Raises OSError if it cannot be read."""
    num_bytes, crc = place.put_from(path, file)
    return Stored(path=path, num_bytes=num_bytes, crc=crc)


def get_into(place: Place, stored: Stored, file: Path) -> None:
    """Read a file of a copy into one of this machine. Raises PlaceAway if it is not what was
    written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if place.get_into(stored.path, file) != (stored.num_bytes, stored.crc):
        raise damaged(place, stored)


def get(place: Place, stored: Stored) -> bytes:
    """Read a file of a copy. Raises PlaceAway if it is not what was written."""
    data = place.get(stored.path)
    if len(data) != stored.num_bytes or zlib.crc32(data) != stored.crc:
        raise damaged(place, stored)
    return data


def damaged(place: Place, stored: Stored) -> PlaceAway:
    """Says that a file is not what was written."""
    return PlaceAway(f"storage at {place.url}: {stored.path} is damaged")
