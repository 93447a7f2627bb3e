"""Parquet files with an episode a row: found, checked, and read row by row, with one episode in
memory.

JAT and RLlib share this form; `jat` and `rllib` read the contents of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gato.episode import BadEpisode, Episode
from gato.task import Task
from replay.formats.reader import DAMAGE, Attempt, Known
from replay.formats.schema import Misfit, episode_key, file_digests, guess_task, unknown_task

LOOKED_AT = 20
"""Rows, at most, that are read to see whether a file is of its task."""
BUFFER_BYTES = 1 << 20
"""Bytes of a column that are read at once. Otherwise pyarrow reads a whole group of rows into
memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row and the key of its episode. `values` is None if the key is known, or if the row cannot
    be read."""

    key: str
    file: Path
    values: Any
    """A `RecordBatch` of one row."""
    problem: str = ""
    """Why it cannot be read."""

    @property
    def where(self) -> str:
        """Name of the row in messages."""
        return f"{self.file.name}, row {self.key.rpartition(':')[2]}"


def find_files(path: Path) -> list[Path]:
    """The Parquet files of a folder and of those in it, in order; of a file itself."""
    if path.is_dir():
        return sorted(found for found in path.rglob("*.parquet") if found.is_file())
    return [path] if path.suffix.lower() == ".parquet" and path.is_file() else []


def shown(file: Path, path: Path) -> str:
    """Name of a file in the info of its episodes: its path within the imported folder."""
    return str(file.relative_to(path)) if path.is_dir() else file.name


def column_names(path: Path) -> list[str]:
    """The columns of the files at `path`. Raises ValueError if there are none, one is damaged, or
    they differ."""
    files = find_files(path)
    if not files:
        raise ValueError(f"no file {path}" if path.suffix else f"{path} holds no *.parquet")
    schemas = {tuple(_opened(file).schema_arrow.names): file for file in files}
    if len(schemas) > 1:
        names = ", ".join(
            f"{file.name} has {', '.join(names)}" for names, file in list(schemas.items())[:2]
        )
        raise ValueError(
            f"the files of {path} hold different things: {names}; import them one by one"
        )
    return list(next(iter(schemas)))


def column_types(file: Path) -> dict[str, Any]:
    """The types of a file's columns, as pyarrow names them."""
    return {field.name: field.type for field in _opened(file).schema_arrow}


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as problem:
        raise ValueError(
            f"{file} is damaged, or not a Parquet file: {' '.join(str(problem).split())}"
        ) from problem


def num_rows(files: Sequence[Path]) -> int:
    """How many episodes the files hold."""
    return sum(_opened(file).metadata.num_rows for file in files)


def largest(files: Sequence[Path], column: str) -> int | None:
    """The largest number in a column of lists, from the files' own statistics; None if they do
    not say."""
    most: int | None = None
    for file in files:
        metadata = _opened(file).metadata
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for place in range(row_group.num_columns):
                leaf = row_group.column(place)
                if leaf.path_in_schema.split(".")[0] != column:
                    continue
                if leaf.statistics is None or not leaf.statistics.has_min_max:
                    return None
                most = max(most or 0, int(leaf.statistics.max))
    return most


def rows(files: Sequence[Path], form: str, columns: Sequence[str], known: Known) -> Iterator[Row]:
    """Every row of the files, those of a known key without values. Of a damaged group the rows that
    are left have none."""
    for file, digest in file_digests(form, files, known).items():
        opened, index = _opened(file), 0
        for group in range(opened.metadata.num_row_groups):
            count = opened.metadata.row_group(group).num_rows
            keys = [episode_key(form, file.stem, digest, index + place) for place in range(count)]
            index += count
            are_known = [known(key) for key in keys]
            if all(are_known):
                yield from (Row(key=key, file=file, values=None) for key in keys)
                continue
            done = 0
            try:
                batches = opened.iter_batches(
                    batch_size=1, row_groups=[group], columns=list(columns), use_threads=False
                )
                for batch in batches:
                    done += 1
                    yield Row(
                        key=keys[done - 1], file=file, values=None if are_known[done - 1] else batch
                    )
            except (pa.ArrowException, OSError) as problem:
                problem_text = f"{file} is damaged: {' '.join(str(problem).split())}"
                for key, is_known in list(zip(keys, are_known, strict=True))[done:]:
                    yield Row(
                        key=key, file=file, values=None, problem="" if is_known else problem_text
                    )


def attempts(
    found: Iterator[Row], make: Callable[[Row], Episode | None]
) -> Iterator[Attempt | None]:
    """Rows as `Reading` accepts them: None for known ones, attempts for the others."""

    def made(row: Row) -> Episode | None:
        if row.problem:
            raise BadEpisode(row.problem)
        return make(row)

    for row in found:
        yield (
            None
            if row.values is None and not row.problem
            else Attempt(what=row.where, make=partial(made, row))
        )


def require_fit(found: Iterator[Row], make: Callable[[Row], Episode | None], path: Path) -> None:
    """Raises ValueError if none of the first rows fits, and one is of another environment: before
    anything is stored, and without reading everything. Bad rows among good ones are counted
    later."""
    misfit: Misfit | None = None
    for row in islice(found, LOOKED_AT):
        try:
            if row.values is not None and make(row) is not None:
                return
        except Misfit as problem:
            misfit = misfit or problem
        except DAMAGE:
            continue
    if misfit is not None:
        raise misfit


def task_of(
    path: Path, files: Sequence[Path], tasks: Mapping[str, Task], task: Task | None, what: str
) -> Task:
    """The task of files: the one given, or what their names or those of folders above them say.
    Raises ValueError if none does, or if they say different ones."""
    root = path.absolute() if path.is_dir() else path.absolute().parent
    named_inside: dict[str, Path] = {}
    for file in files:
        inside = file.absolute().relative_to(root)
        own = guess_task(
            _names([inside.stem, *(folder.name for folder in inside.parents if folder.name)]), tasks
        )
        if own is not None:
            named_inside.setdefault(own.name, file)
    if len(named_inside) > 1:
        (one, file), (other, other_file) = list(named_inside.items())[:2]
        raise ValueError(
            f"{path} holds files of several tasks: {file.relative_to(path)} is of {one},"
            f" {other_file.relative_to(path)} of {other}; import them one by one"
        )
    if task is not None:
        return task
    if named_inside:
        return tasks[next(iter(named_inside))]
    names = [folder.name for folder in (root, *root.parents)]
    found = guess_task(_names(names), tasks)
    if found is None:
        raise unknown_task(
            str(path),
            tasks,
            [files[0].stem, *names[:1]],
            f" from its name or its folder's ({what})",
        )
    return found


def _names(names: Iterable[str]) -> list[str]:
    return [name.removesuffix("env") for name in names]  # RLlib's folder: hopperenv
