"""Which importer reads a source, told by the form of its name and, where that is not enough, by what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gato.task import Task
from replay.importers import parquet
from replay.importers.d4rl import read_d4rl
from replay.importers.dqn_replay import holds_dqn_replay, read_dqn_replay
from replay.importers.jat import read_jat
from replay.importers.minari import read_minari
from replay.importers.minari_folder import PREFIX
from replay.importers.reading import NO_OPTIONS, ImportOptions, Known, Reading, nothing_known
from replay.importers.rllib import COLUMN, read_rllib

ODD = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError, NotImplementedError)
"""What reading metadata raises that has not the form it should have, beside ValueError and OSError."""
READABLE = (
    "a D4RL file (*.hdf5, *.h5), the folder of a Minari data set, or minari:ID, a JAT or RLlib file (*.parquet) or a "
    "folder of such, or a folder of the DQN replay data set ($store$_observation_ckpt.0.gz ...)"
)


def read_source(
    source: str,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a file, a folder or `minari:ID`. ValueError, at once, where the source cannot be read.

    An episode whose key is `known` is skipped before its data is read.
    """
    try:
        return _read(source, tasks, task, known, options)
    except ODD as problem:  # of metadata, whose forms are without end
        raise ValueError(
            f"{source} cannot be read: {type(problem).__name__} ({' '.join(str(problem).split())[:200]}) in what it says of itself"
        ) from problem


def _read(source: str, tasks: Mapping[str, Task], task: Task | None, known: Known, options: ImportOptions) -> Reading:
    if source.startswith(PREFIX):
        return read_minari(source, tasks, task, known=known, options=options)
    path = Path(source).expanduser()
    if path.is_dir() and any((folder / "metadata.json").is_file() for folder in (path, path / "data")):
        return read_minari(path, tasks, task, known=known, options=options)
    if holds_dqn_replay(path):
        return read_dqn_replay(path, tasks, task, known=known, options=options)
    if path.suffix.lower() == ".parquet" or parquet.find_files(path):
        reads_rllib = COLUMN in parquet.column_names(path)
        return (read_rllib if reads_rllib else read_jat)(path, tasks, task, known=known, options=options)
    if path.is_dir():
        return read_minari(path, tasks, task, known=known, options=options)
    if path.suffix.lower() in (".hdf5", ".h5"):
        return read_d4rl(path, tasks, task, known=known, options=options)
    raise ValueError(f"cannot read {source!r}; what can be read: {READABLE}")
