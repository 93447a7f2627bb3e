"""Whether a source may go on in a data set that was filled before: it is what it was, and is taken
as the same task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gato.episode import Episode
from replay.formats.minari.folder import PREFIX
from replay.storage.dedup import split_key
from replay.storage.store import EpisodeStore


class _Stream(NamedTuple):
    """The parts of a key `form:stem:digest:index` without its index."""

    form: str
    stem: str
    digest: str


def absolute(origin: str) -> str:
    """A source as about.json keeps it: a path whole, anything else (`minari:ID`, `record TASK`) as
    it is."""
    path = Path(origin).expanduser()
    return origin if origin.startswith(PREFIX) or not path.exists() else str(path.resolve())


class SourceCheck:
    """Refuses episodes that would be stored a second time under other keys, or under another task.

    check = SourceCheck("mine", path, source="/data/hopper.hdf5", source_before="/data/hopper.hdf5",
    store=store) reading = read_source("hopper.hdf5", tasks, known=check.known)
    episode = next(reading, None)
    check.require(episode, reading.report.task)     # after each episode, and after the last
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        source: str,
        source_before: str | None,
        store: EpisodeStore | None,
    ) -> None:
        """`source_before`: what about.json names; None if it names nothing. `store`: None if
        nothing was stored so far."""
        self._name = name
        self._path = path
        self._source = source
        self._source_before = source_before or source
        self._store = store
        self._tasks: dict[str, set[str]] = {}
        """Tasks of the episodes that were stored before this import, by stream."""
        for header in store.episodes.values() if store else ():
            self._tasks.setdefault(split_key(header.key)[0], set()).add(header.task)
        self._asked: set[str] = set()
        """Streams of which the source has episodes, as far as it was read."""
        self._unchecked: list[str] = []

    def known(self, key: str) -> bool:
        """Whether an episode of this key is stored. An importer asks for every key of its source,
        in order."""
        stream = split_key(key)[0]
        if stream not in self._asked:
            self._asked.add(stream)
            self._unchecked.append(stream)
        return self._store is not None and self._store.known(key)

    def require(self, episode: Episode | None, task: str) -> None:
        """ValueError if `episode` (None: the source has no more) may not be stored here. `task`:
        what all of the source is taken as; empty if the source does not say."""
        if not self._tasks or not (self._unchecked or episode):
            return
        unchecked, self._unchecked = self._unchecked, []
        for stream in unchecked:
            self._require_task(self._tasks.get(stream, set()), task)
        stream = split_key(episode.key)[0] if episode else ""
        if not episode or stream in self._tasks or stream not in self._asked:
            return
        missing = [before for before in self._tasks if before not in self._asked]
        if missing and self._source != self._source_before:
            raise ValueError(
                f"data set {self._name!r} was made of {self._source_before}, this is"
                f" {self._source}; {self._fix}"
            )
        new = _parts(stream)
        if any(_is_other(before, new) for before in map(_parts, missing)):
            raise ValueError(
                f"{self._source} changed since it was imported (or is another file of that name):"
                f" its episodes would be stored twice in data set {self._name!r}; {self._fix} to"
                " import it again"
            )
        for before, tasks in self._tasks.items():
            if (_parts(before).form, _parts(before).digest) == (new.form, new.digest):
                self._require_task(tasks, task)
                raise ValueError(
                    f"{new.stem} of {self._source} was imported into data set {self._name!r}"
                    f" before, as {_parts(before).stem}: its episodes would be stored twice;"
                    f" {self._fix}, or take the copy away"
                )

    def _require_task(self, before: set[str], task: str) -> None:
        if task and before - {task}:
            raise ValueError(
                f"the episodes of {self._source} were imported into data set {self._name!r} as"
                f" {', '.join(sorted(before))}; this is {task}: {self._fix}"
            )

    @property
    def _fix(self) -> str:
        return f"give another --name, or remove {self._path}"


SHARD = re.compile(r"(.*)-\d+-of-(\d+)(.*)", re.S)
"""The name of a file that is one of several, such as train-00000-of-00002-ab12."""


def _is_other(before: _Stream, new: _Stream) -> bool:
    """Whether a stream that is gone was the same file before it changed, or one of another number
    of shards of the same data."""
    if before.form != new.form:
        return False
    was, now = SHARD.fullmatch(before.stem), SHARD.fullmatch(new.stem)
    is_cut_anew = was is not None and now is not None and was[1] == now[1] and was[2] != now[2]
    return before.stem == new.stem or is_cut_anew


def _parts(stream: str) -> _Stream:
    form, _, rest = stream.rstrip(":").partition(":")
    stem, _, digest = rest.rpartition(":")
    return _Stream(form, stem, digest)
