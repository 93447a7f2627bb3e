"""All series of a run in one file: CSV or Parquet, with a row for each sample."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cluster.exporters.series import Sample

COLUMNS = ("name", "step", "time_s", "value")
ROWS_OF_GROUP = 100_000
"""Of a Parquet file, held in memory at a time."""


def write_csv(file: Path, samples: Iterable[Sample]) -> int:
    """Write the samples; how many there were."""
    count = 0
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        for sample in samples:
            writer.writerow(sample)
            count += 1
    return count


def write_parquet(file: Path, samples: Iterable[Sample]) -> int:
    """Write the samples; how many there were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.dictionary(pa.int32(), pa.string()), pa.int64(), pa.float64(), pa.float64())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    count = 0
    with pq.ParquetWriter(file, schema) as writer:
        for rows in _groups(samples):
            columns = list(zip(*rows, strict=True))
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            count += len(rows)
    return count


def _groups(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    for sample in samples:
        group.append(sample)
        if len(group) >= ROWS_OF_GROUP:
            yield group
            group = []
    if group:
        yield group


WRITERS: dict[str, Callable[[Path, Iterable[Sample]], int]] = {
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def write_samples(file: Path, samples: Iterable[Sample]) -> int:
    """Write a file of the kind that its name ends in; whole, or not at all.

    Raises:
        ValueError: The name ends in something else, or the file cannot be written.
    """
    write = WRITERS.get(file.suffix.lower())
    if write is None:
        raise ValueError(f"{file} must end in {' or '.join(WRITERS)}")
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        count = write(draft, samples)
        os.replace(draft, file)
    except OSError as problem:
        raise ValueError(
            f"cannot write {file} ({problem.strerror}); name a file in a folder that is there"
        ) from problem
    finally:
        draft.unlink(missing_ok=True)
    return count
