"""Copies a run from its home's disk to a place: only what is new, and then a manifest that names
all of it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.journal.epoch_file import read_epoch
from cluster.journal.segments import segments_of
from cluster.runs.replay_location import stores_of
from cluster.storage.claims import Tenure, require_tenure
from cluster.storage.manifest import (
    Manifest,
    ShardCopy,
    Stored,
    newest_manifest,
    put,
    put_from,
    to_bytes,
)
from cluster.storage.place import Place
from learner.checkpoints.files import BEST, list_checkpoints
from replay.storage.packs import PACK_BYTES, look, opened_to_copy

SMALL = ("config.yaml", "run.json", "scales.json", "text.model", "journal/epoch")
"""Files that are copied whole whenever they have changed."""
KEPT_MANIFESTS = 2
MANY_PIECES = 32
"""So many small pieces become one."""


class Copier:
    """Copies one run during one tenure.

    copier = Copier(folder, place, tenure)
    copied_s = copier.copy()       # all that was acknowledged before `copied_s` is there now
    """

    def __init__(self, folder: Path, place: Place, tenure: Tenure) -> None:
        self._folder = folder
        self._place = place
        self._tenure = tenure
        self._last: Manifest | None = None
        self._is_known = False
        self._before: list[Manifest] = []
        self._seen: dict[str, tuple[int, int]] = {}
        """Which file or folder was copied, and when that had changed last."""

    def copy(self) -> float:
        """Copy what is new. Returns the wall-clock time that the copy is of.

        Raises:
            RunMoved: Another home has the run.
            PlaceAway: The place cannot be read or written; the last whole copy is still there.
            OSError, ValueError: A file of the run cannot be read.
        """
        begun_s = time.time()
        require_tenure(self._place, self._tenure)
        if not self._is_known:
            self._last = newest_manifest(self._place, self._tenure.number)
            self._is_known = True
        seen = dict(self._seen)
        try:
            self._write(begun_s)
        except BaseException:
            self._seen = seen  # what no manifest names is not copied
            raise
        return begun_s

    def _write(self, begun_s: float) -> None:
        last = self._last
        number = last.number + 1 if last is not None else 1
        manifest = Manifest(
            tenure=self._tenure.number,
            number=number,
            name=self._folder.name,
            time_s=begun_s,
            # Checkpoints before episodes: none is from a later time than the store it is used with.
            files=self._files(number),
            shards=self._shards(number),
            journal=self._journal(number),
            epoch=read_epoch(self._folder / "journal"),
        )
        # A home that was away may hold up the next one for as long as one copy takes.
        require_tenure(self._place, self._tenure)
        self._place.put(manifest.path, to_bytes(manifest))
        self._last = manifest
        self._clean(manifest)

    def _path(self, number: int, what: str) -> str:
        return f"files/{self._tenure.number:06d}-{number:09d}/{what}"

    def _files(self, number: int) -> dict[str, Stored]:
        had = self._last.files if self._last is not None else {}
        files: dict[str, Stored] = {}
        for name in SMALL:
            file = self._folder / name
            if not file.is_file():
                continue
            changed = _changed(file)
            if name in had and self._seen.get(name) == changed:
                files[name] = had[name]
            else:
                files[name] = put(self._place, self._path(number, name), file.read_bytes())
                self._seen[name] = changed
        return files | self._checkpoints(number, {n: s for n, s in had.items() if n not in SMALL})

    def _checkpoints(self, number: int, had: Mapping[str, Stored]) -> dict[str, Stored]:
        """The newest two and the best. One that the learner replaces or deletes meanwhile is left
        out."""
        files: dict[str, Stored] = {}
        kept = self._folder / "checkpoints"
        best = [kept / BEST] if (kept / BEST).is_dir() else []
        for checkpoint in [*list_checkpoints(kept)[-2:], *best]:
            folder = f"checkpoints/{checkpoint.name}"
            try:
                # A learner that went back to an earlier one comes by the same step again.
                changed = _changed(checkpoint)
                if self._seen.get(folder) == changed:
                    files |= {name: had[name] for name in had if name.startswith(f"{folder}/")}
                    continue
                copied = {
                    f"{folder}/{file.name}": put_from(
                        self._place, self._path(number, f"{folder}/{file.name}"), file
                    )
                    for file in sorted(checkpoint.iterdir())
                }
                if _changed(checkpoint) != changed:
                    continue
            except FileNotFoundError:
                continue
            self._seen[folder] = changed
            files |= copied
        return files

    def _journal(self, number: int) -> dict[str, Sequence[Stored]]:
        had = self._last.journal if self._last is not None else {}
        return {
            file.name: self._segment(number, file, had.get(file.name, ()))
            for _, file in segments_of(self._folder / "journal")
        }

    def _segment(self, number: int, file: Path, had: Sequence[Stored]) -> Sequence[Stored]:
        had = [] if len(had) >= MANY_PIECES else list(had)
        begun = had[-1].first + had[-1].num_bytes if had else 0
        length = file.stat().st_size
        if length < begun:  # a line that was cut off when its writer started again
            had, begun = [], 0
        if length == begun:
            return had
        with file.open("rb") as lines:
            lines.seek(begun)
            data = lines.read(length - begun)
        path = self._path(number, f"journal/{file.name}")
        return [*had, put(self._place, path, data, first=begun)]

    def _shards(self, number: int) -> dict[str, ShardCopy]:
        had = self._last.shards if self._last is not None else {}
        shards: dict[str, ShardCopy] = {}
        for store in stores_of(self._folder / "replay"):
            name = store.relative_to(self._folder).as_posix()
            known = had[name].packs if name in had else ()
            shards[name] = self._shard(number, store, name, known)
        return shards

    def _shard(self, number: int, store: Path, name: str, had: Sequence[Stored]) -> ShardCopy:
        packs, part = _without_small(had), 0
        with opened_to_copy(store) as database:
            while True:
                seen = look(database, first=packs[-1].last + 1 if packs else 0)
                if (pack := seen.pack) is not None:
                    path = self._path(number, f"{name}/{part}.pack")
                    ends = {"first": pack.first, "last": pack.last}
                    packs.append(put(self._place, path, pack.data, **ends))
                    part += 1
                if seen.state is not None:
                    break
        state = put(self._place, self._path(number, f"{name}/state"), seen.state)
        # The last pack stays whatever became of its episodes: it says up to where they were copied.
        return ShardCopy(
            state=state,
            packs=(*(pack for pack in packs[:-1] if _any(pack, seen.kept)), *packs[-1:]),
        )

    def _clean(self, newest: Manifest) -> None:
        """Delete what no manifest of the last few names, of this tenure and of those before."""
        self._before = [*self._before, newest][-KEPT_MANIFESTS:]
        needed = {path for manifest in self._before for path in (manifest.path, *manifest.paths())}
        if len(self._before) < KEPT_MANIFESTS:
            return
        # By name, so that what a process left that was killed goes, too.
        for folder in ("manifests", "files"):
            for path in self._place.names(folder):
                tenure = path.split("/")[1].partition("-")[0]
                is_ours = tenure.isdecimal() and int(tenure) <= self._tenure.number
                if is_ours and path not in needed:
                    self._place.delete(path)


def _changed(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_ino, about.st_mtime_ns


def _without_small(packs: Sequence[Stored]) -> list[Stored]:
    """Packs without the last few, if these are many and small: their episodes are packed again."""
    last = packs[-MANY_PIECES:]
    if len(last) == MANY_PIECES and sum(pack.num_bytes for pack in last) < PACK_BYTES:
        return list(packs[:-MANY_PIECES])
    return list(packs)


def _any(pack: Stored, kept: Sequence[int]) -> bool:
    """Whether any of a pack's episodes is among those kept, which are in order."""
    at = bisect_left(kept, pack.first)
    return at < len(kept) and kept[at] <= pack.last
