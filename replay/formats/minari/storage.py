"""Minari's files: an episode is a group of an HDF5 file, or a folder of Arrow or Parquet files.

Images are JPEG if the data set says so (Minari 0.5 on, unless it was made with
`jpeg_encoding=False`); they are decoded here, a block of steps at a time, so that an episode of
large frames is never whole in memory before it is shrunk.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset
from PIL import Image

from replay.formats.hdf5 import opened as opened_hdf5

HDF5_FILE = "main_data.hdf5"
COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations")
FORMATS = ("hdf5", "arrow", "parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One array of an episode: its length, and a function that reads some rows."""

    length: int
    rows: Callable[[int, int], np.ndarray]
    """Rows [start, stop), decoded; texts as objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An episode as it is on disk. Observations by path, such as `in/order` of a nested Dict;
    `""` for a plain one."""

    observations: Mapping[str, Column]
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    labels: np.ndarray | None
    """Labels, if `replay.formats.minari.export` wrote the data set and its episodes have labels."""
    attributes: Mapping[str, Any]


class MinariStorage:
    """The episodes of one data set's folder, by number. Raises OSError, KeyError or ValueError if
    it is damaged."""

    def __init__(
        self, folder: Path, data_format: str, observation_space: Mapping[str, Any]
    ) -> None:
        self._folder = folder
        self._format = data_format
        self._spaces = dict(leaves(observation_space))

    def content_files(self) -> list[Path]:
        """The files with the episodes."""
        if self._format == "hdf5":
            return [self._folder / HDF5_FILE]
        files = sorted(self._folder.glob(f"*/*.{self._format}"))
        if not files:
            raise ValueError(f"{self._folder} holds no episodes")
        return files

    @contextmanager
    def opened(self) -> Generator[Callable[[int], Record]]:
        """Yields a function that reads an episode by its number. Columns may be read until the
        block ends."""
        if self._format != "hdf5":
            yield self._arrow_record
            return
        with opened_hdf5(self._folder / HDF5_FILE) as file:
            yield lambda index: self._hdf5_record(file, index)

    def indices(self) -> list[int]:
        """Numbers of the episodes on disk, in order, whatever the metadata says."""
        if self._format != "hdf5":
            names = [folder.name for folder in self._folder.iterdir() if folder.is_dir()]
        else:
            with opened_hdf5(self._folder / HDF5_FILE) as file:
                names = [str(name).removeprefix("episode_") for name in file]
        return sorted(int(name) for name in names if name.isdecimal())

    def _hdf5_record(self, file: Any, index: int) -> Record:
        if f"episode_{index}" not in file:
            raise OSError(f"no episode {index} in {HDF5_FILE}")
        group: Any = file[f"episode_{index}"]
        if file.get(f"episode_{index}", getclass=True) is not h5py.Group:
            raise OSError(f"episode {index} is not a group")
        missing = [name for name in COLUMNS if name not in group]
        if missing:
            raise OSError(f"episode {index} has no {', '.join(missing)}")
        odd = [
            name
            for name in COLUMNS[1:]
            if not (isinstance(group[name], h5py.Dataset) and group[name].shape)
        ]
        if odd:
            raise OSError(f"episode {index} has {', '.join(odd)} without a row for each step")
        observations = {
            path: _hdf5_column(_member(group["observations"], path), space)
            for path, space in self._spaces.items()
        }
        return Record(
            observations=observations,
            actions=group["actions"][()],
            rewards=group["rewards"][()],
            terminations=group["terminations"][()],
            truncations=group["truncations"][()],
            labels=(
                group["infos/labels"][()]
                if "infos/labels" in group and "gato_key" in group.attrs
                else None
            ),
            attributes=dict(group.attrs),
        )

    def _arrow_record(self, index: int) -> Record:
        folder = self._folder / str(index)
        files = [str(file) for file in sorted(folder.glob(f"*.{self._format}"))]
        if not files:
            raise OSError(f"no episode {index}")
        try:
            data = pyarrow.dataset.dataset(files, format=self._format)
            # encoded images are small
            table = data.to_table(columns=list(COLUMNS)).combine_chunks()
        except (pa.ArrowException, OSError, ValueError) as problem:
            raise OSError(
                f"episode {index} is damaged: {' '.join(str(problem).split())}"
            ) from problem
        # the last row of an episode has its last observation, without an action or a reward
        steps = table.num_rows - 1
        attributes = folder / "metadata.json"
        observed = _one_chunk(table, "observations")
        return Record(
            observations={
                path: _arrow_column(_field(observed, path), space)
                for path, space in self._spaces.items()
            },
            actions=_plain(_one_chunk(table, "actions"))[:steps],
            rewards=_plain(_one_chunk(table, "rewards"))[:steps],
            terminations=_plain(_one_chunk(table, "terminations"))[:steps],
            truncations=_plain(_one_chunk(table, "truncations"))[:steps],
            labels=None,
            attributes=json.loads(attributes.read_text()) if attributes.is_file() else {},
        )


def leaves(space: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parts of a nested space by path, as a task names them; a plain space is one part, without
    a name."""
    kind = space.get("type")
    if kind not in ("Dict", "Tuple"):
        yield before, space
        return
    parts: Any = space["subspaces"]
    digits = len(str(len(parts) - 1))
    named = (
        parts.items()
        if kind == "Dict"
        else ((f"{place:0{digits}}", part) for place, part in enumerate(parts))
    )
    for name, part in named:
        yield from leaves(part, f"{before}/{name}" if before else name)


def shape_of(space: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of one step of a plain space."""
    if "shape" in space:
        return tuple(space["shape"])
    if space.get("type") == "MultiBinary":
        return tuple(np.atleast_1d(space["n"]).tolist())
    return np.shape(space.get("nvec", 0))


def _member(found: Any, path: str) -> Any:
    """The part of a nested group; the places of a Tuple are called `_index_0` there."""
    for name in path.split("/") if path else ():
        found = found[name if name in found else f"_index_{int(name) if name.isdigit() else name}"]
    return found


def _hdf5_column(data: Any, space: Mapping[str, Any]) -> Column:
    if space.get("type") == "Text":
        return Column(
            length=len(data), rows=lambda start, stop: np.array(data.asstr()[start:stop], object)
        )
    if _holds_jpeg(data.ndim == 1 + len(shape_of(space)), space):
        return Column(
            length=len(data),
            rows=lambda start, stop: _decoded([bytes(row) for row in data[start:stop]]),
        )
    return Column(length=len(data), rows=lambda start, stop: np.asarray(data[start:stop]))


def _holds_jpeg(as_it_is: bool, space: Mapping[str, Any]) -> bool:
    return not as_it_is and space.get("dtype") == "uint8" and len(shape_of(space)) in (2, 3)


def _decoded(images: list[bytes]) -> np.ndarray:
    try:
        return np.stack([np.asarray(Image.open(io.BytesIO(image)), np.uint8) for image in images])
    except SyntaxError as problem:  # what Pillow raises for a broken header
        raise ValueError(f"a frame is not an image: {problem}") from problem


def _one_chunk(table: pa.Table, name: str) -> Any:
    column = table[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _field(values: Any, path: str) -> Any:
    """The part of a nested struct; the places of a Tuple are called `0` there."""
    for name in path.split("/") if path else ():
        names = [field.name for field in values.type]
        values = values.field(name if name in names else str(int(name) if name.isdigit() else name))
    return values


def _arrow_column(values: Any, space: Mapping[str, Any]) -> Column:
    if pa.types.is_binary(values.type):
        return Column(
            length=len(values), rows=lambda start, stop: _decoded(values[start:stop].to_pylist())
        )
    if space.get("type") == "Text":
        return Column(
            length=len(values),
            rows=lambda start, stop: np.array(values[start:stop].to_pylist(), object),
        )
    shape = shape_of(space)
    return Column(
        length=len(values), rows=lambda start, stop: _plain(values[start:stop]).reshape(-1, *shape)
    )


def _plain(values: Any) -> np.ndarray:
    """Numbers, or lists of as many numbers each, as an array."""
    if pa.types.is_fixed_size_list(values.type):
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
    return values.to_numpy(zero_copy_only=False)
