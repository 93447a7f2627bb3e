"""Which importer reads a source, told by the form of its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gato.episode import Episode
from gato.task import Task
from replay.importers.d4rl import read_d4rl
from replay.importers.minari import PREFIX, read_minari

READABLE = "a D4RL file (*.hdf5, *.h5), the folder of a Minari data set, or minari:ID"


def read_source(source: str, tasks: Mapping[str, Task], task: Task | None = None) -> Iterator[Episode]:
    """The episodes of a file, a folder or `minari:ID`. ValueError, at once, where the source cannot be read."""
    if source.startswith(PREFIX):
        return read_minari(source, tasks, task)
    path = Path(source).expanduser()
    if path.is_dir():
        return read_minari(path, tasks, task)
    if path.suffix.lower() in (".hdf5", ".h5"):
        return read_d4rl(path, tasks, task)
    raise ValueError(f"cannot read {source!r}; what can be read: {READABLE}")
