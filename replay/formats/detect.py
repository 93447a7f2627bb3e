"""Detection: which importer reads a source, from its name and its contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from gato.task import Task
from replay.formats import parquet
from replay.formats.atari_frames import one_frame, with_frames_before
from replay.formats.convert import ALLOW_CLIPPING
from replay.formats.d4rl import read_d4rl
from replay.formats.dqn_replay import holds_dqn_replay, read_dqn_replay
from replay.formats.jat import read_jat
from replay.formats.lerobot import holds_lerobot, read_lerobot
from replay.formats.minari.folder import PREFIX
from replay.formats.minari.importer import read_minari
from replay.formats.reader import (
    NO_OPTIONS,
    FindTask,
    ImportOptions,
    Known,
    Reading,
    nothing_known,
)
from replay.formats.records.passages import find_texts, read_texts
from replay.formats.records.questions import (
    EASY_VQA,
    easy_vqa_folder,
    holds_questions,
    read_questions,
)
from replay.formats.records.table import holds_records, read_table
from replay.formats.rllib import COLUMN, read_rllib

ODD = (
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    NotImplementedError,
)
"""Exceptions of malformed metadata, besides ValueError and OSError."""
HDF5 = (".hdf5", ".h5")
READABLE = (
    "easy-vqa, text (*.txt), Parquet with text or with images and text or a folder of either, the"
    " folder of a LeRobot v3 data set or of questions about images (train/questions.json), a D4RL"
    " file (*.hdf5, *.h5), the folder of a Minari data set, or minari:ID, a JAT or RLlib file"
    " (*.parquet) or a folder of such, or a folder of the DQN replay data set"
    " ($store$_observation_ckpt.0.gz ...)"
)


class ReadRecords(Protocol):
    """What an importer of records is called with."""

    def __call__(
        self, path: Path, task: Task | None, *, name: str, known: Known, find_task: FindTask
    ) -> Reading: ...


def read_source(
    source: str,
    tasks: Mapping[str, Task],
    task: Task | None = None,
    *,
    known: Known = nothing_known,
    options: ImportOptions = NO_OPTIONS,
) -> Reading:
    """The episodes of a file, a folder or `minari:ID`. Raises ValueError at once if the source
    cannot be read.

    An episode whose key is `known` is skipped before its data is read. The report names data of
    other forms in the folder, which is not read.
    """
    shown = one_frame(task) if task is not None else None
    try:
        reading = _read(source, tasks, shown, known, options)
    except ODD as problem:  # malformed metadata
        raise ValueError(
            f"{source} cannot be read: {type(problem).__name__}"
            f" ({' '.join(str(problem).split())[:200]}) in its metadata"
        ) from problem
    if task is not None and shown is not task:
        reading.change = partial(with_frames_before, task=task)
        reading.report.notes.append(
            f"converted: the {len(task.observations)} frames of a step are those of the steps"
            " before"
        )
    if not source.startswith(PREFIX) and (path := Path(source).expanduser()).is_dir():
        reading.report.left_out += passed_over(path)
    return reading


def passed_over(folder: Path) -> list[str]:
    """A line for each form of data in a folder that `read_source` does not read because it reads
    another one."""
    is_minari = any((inside / "metadata.json").is_file() for inside in (folder, folder / "data"))
    is_dqn = not is_minari and holds_dqn_replay(folder)
    hdf5 = [file for suffix in HDF5 for file in folder.rglob(f"*{suffix}") if file.is_file()]
    arrow_or_parquet = parquet.find_files(folder)
    if is_minari:  # its own files are in data/, or next to metadata.json
        inside = folder / "data" if (folder / "data" / "metadata.json").is_file() else folder
        hdf5 = [file for file in hdf5 if file.parent != inside]
        arrow_or_parquet = [file for file in arrow_or_parquet if file.parent.parent != inside]
    others = [("HDF5", hdf5), ("Parquet", arrow_or_parquet if is_minari or is_dqn else [])]
    if is_minari and holds_dqn_replay(folder):
        others.append(("the DQN replay data set", sorted(folder.rglob("*_ckpt.*.gz"))))
    return [
        f"{folder} also holds {len(files):,} file{'s' if len(files) > 1 else ''} of {form}"
        f" ({sorted(files)[0].relative_to(folder)}{' ...' if len(files) > 1 else ''}) which"
        f" {'were' if len(files) > 1 else 'was'} not read; import by themselves what you need"
        for form, files in others
        if files
    ]


def needless(
    source: str, tasks: Mapping[str, Task], task: Task | None = None, *, options: ImportOptions
) -> list[str]:
    """Allowed subjects without which the source can be opened just as well. Single episodes are not
    read."""
    found: list[str] = []
    for subject in sorted(options.allowed - {ALLOW_CLIPPING}):
        try:
            read_source(
                source, tasks, task, options=replace(options, allowed=options.allowed - {subject})
            )
        except (ValueError, OSError):
            continue
        found.append(subject)
    return found


def _is_minari(path: Path) -> bool:
    """Whether a folder is one of Minari's."""
    return any((folder / "metadata.json").is_file() for folder in (path, path / "data"))


def _holds_episodes(path: Path) -> bool:
    """Whether a folder holds episodes of an environment: texts beside them are notes on them."""
    return path.is_dir() and (
        _is_minari(path)
        or holds_dqn_replay(path)
        or any(file.suffix.lower() in HDF5 for file in path.iterdir())
    )


def _read_recorded(
    source: str, path: Path, task: Task | None, known: Known, options: ImportOptions
) -> Reading | None:
    """The importer of a source that holds text, or images and text; None if it holds neither."""
    if options.find_task is None:
        return None
    read: ReadRecords | None = None
    if source == EASY_VQA and not path.exists():
        read, path = read_questions, easy_vqa_folder()
    elif path.is_dir() and holds_lerobot(path):
        read = read_lerobot
    elif path.is_dir() and holds_questions(path):
        read = read_questions
    elif parquet.find_files(path):
        read = read_table if holds_records(parquet.column_names(path)) else None
    elif find_texts(path) and not _holds_episodes(path):
        read = read_texts
    name = options.name or path.stem
    return read and read(path, task, name=name, known=known, find_task=options.find_task)


def _read(
    source: str, tasks: Mapping[str, Task], task: Task | None, known: Known, options: ImportOptions
) -> Reading:
    """By the importer of its form."""
    if source.startswith(PREFIX):
        return read_minari(source, tasks, task, known=known, options=options)
    path = Path(source).expanduser()
    recorded = _read_recorded(source, path, task, known, options)
    if recorded is not None:
        return recorded
    if _is_minari(path):
        return read_minari(path, tasks, task, known=known, options=options)
    if holds_dqn_replay(path):
        return read_dqn_replay(path, tasks, task, known=known, options=options)
    if path.suffix.lower() == ".parquet" or parquet.find_files(path):
        reads_rllib = COLUMN in parquet.column_names(path)
        return (read_rllib if reads_rllib else read_jat)(
            path, tasks, task, known=known, options=options
        )
    if path.is_dir():
        return read_minari(path, tasks, task, known=known, options=options)
    if path.suffix.lower() in HDF5:
        return read_d4rl(path, tasks, task, known=known, options=options)
    raise ValueError(f"cannot read {source!r}; what can be read: {READABLE}")
