"""A run's folder made of its copy, on the node that is its home from then on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.journal.epoch_file import read_epoch, write_epoch
from cluster.runs.disk_space import MIN_FREE_BYTES, require_space
from cluster.storage.claims import claim_tenure, last_claimed
from cluster.storage.manifest import Manifest, ShardCopy, get, get_into, newest_manifest
from cluster.storage.place import Place
from gato.processes import is_alive
from replay.storage.packs import restore_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was made of a copy."""

    manifest: Manifest
    episodes: int


def find_copy(place: Place) -> Manifest:
    """The newest whole copy of a run.

    Raises:
        ValueError: There is none.
        PlaceAway: The place cannot be read.
    """
    found = newest_manifest(place)
    if found is None:
        raise ValueError(f"there is no whole copy of run {place.run_id} in the storage {place.url}")
    return found


def restore(place: Place, folder: Path, where: str) -> Restored:
    """Make the run's folder of its newest copy, and have this home be the run's only one.

    Files are made beside the folder and take its place at the end, so that one that fails leaves
    nothing. What the folder held before (what was needed to watch the run from here, or the run as
    it was when this was its home) stays in FOLDER.before-N.

    Args:
        place: Of the run.
        folder: Of the run here.
        where: This home, for people.

    Raises:
        RunMoved: Another home claimed the run at the same moment.
        PlaceAway: The place cannot be read, or a file of the copy is damaged.
        ValueError: There is no whole copy.
        OSError: The disk is full. The run is this home's then, and is not anywhere until the same
            command has succeeded here.
    """
    num_bytes = sum(stored.num_bytes for stored in find_copy(place).all_stored())
    require_space(folder.parent, num_bytes + MIN_FREE_BYTES)
    for left in folder.parent.glob(f".{folder.name}.*.restore"):
        if not is_alive(int(left.name.split(".")[-2]), None):
            shutil.rmtree(left, ignore_errors=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.restore")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    try:
        # The run is claimed first: a home that still writes stops, and the copy is its last.
        tenure = claim_tenure(place, draft, where)
        manifest = find_copy(place)
        for name in (*manifest.files, *manifest.journal, *manifest.shards):
            if not (draft / name).resolve().is_relative_to(draft.resolve()):
                raise ValueError(f"the copy of run {place.run_id} names {name!r}, outside of a run")
        for name, stored in manifest.files.items():
            get_into(place, stored, draft / name)
        for name, pieces in manifest.journal.items():
            _write(draft / "journal" / name, b"".join(get(place, piece) for piece in pieces))
        about = draft / "run.json"
        about.write_text(json.dumps({**json.loads(about.read_text()), "name": folder.name}))
        episodes = sum(
            _restore_shard(place, draft / name, shard) for name, shard in manifest.shards.items()
        )
        journal = draft / "journal"
        journal.mkdir(exist_ok=True)
        write_epoch(journal, max(read_epoch(journal), manifest.epoch, last_claimed(place)))
        if folder.exists():
            _set_aside(folder, tenure.number)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Restored(manifest=manifest, episodes=episodes)


def _set_aside(folder: Path, number: int) -> None:
    """It is not the run any more, nor watches it."""
    for name in ("run", "home"):
        if (folder / f"{name}.json").is_file():
            (folder / f"{name}.json").rename(folder / f"{name}-before.json")
    folder.rename(folder.with_name(f"{folder.name}.before-{number}"))


def _restore_shard(place: Place, folder: Path, shard: ShardCopy) -> int:
    def packs() -> Iterator[bytes]:
        for pack in shard.packs:
            yield get(place, pack)

    total_bytes = sum(pack.num_bytes for pack in shard.packs)
    return restore_store(folder, get(place, shard.state), packs(), total_bytes=total_bytes)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
