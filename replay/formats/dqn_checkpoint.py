"""Checkpoints of the DQN replay data set: four gzipped arrays each, the frames read as a stream.

Shape letters: N steps of a checkpoint, T steps of an episode, H height, W width.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

COLUMNS = ("observation", "action", "reward", "terminal")
NAME = re.compile(r"\$store\$_observation_ckpt\.(\d+)\.gz")
FORMAT = f"each checkpoint has files $store$_{{{','.join(COLUMNS)}}}_ckpt.N.gz"
BLOCK_BYTES = 1 << 20
DAMAGE = (OSError, EOFError, zlib.error, ValueError)
"""What gzip and NumPy raise for bytes that are not what they should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The four files of one checkpoint."""

    number: int
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The small columns of a checkpoint."""

    actions: Integer[np.ndarray, " N"]
    rewards: Float[np.ndarray, " N"]
    terminals: Bool[np.ndarray, " N"]


def find_checkpoints(path: Path) -> list[Checkpoint]:
    """By number. Raises ValueError if one lacks a file."""
    folder = path / "replay_logs" if (path / "replay_logs").is_dir() else path
    found = (NAME.fullmatch(file.name) for file in folder.iterdir())
    checkpoints: list[Checkpoint] = []
    for number in sorted(int(match[1]) for match in found if match):
        files = {column: folder / f"$store$_{column}_ckpt.{number}.gz" for column in COLUMNS}
        missing = [file.name for file in files.values() if not file.is_file()]
        if missing:
            raise ValueError(f"{folder} lacks {', '.join(missing)}; {FORMAT}")
        checkpoints.append(Checkpoint(number=number, files=files))
    return checkpoints


def frame_shape(checkpoint: Checkpoint) -> tuple[int, int]:
    file = checkpoint.files["observation"]
    try:
        with gzip.GzipFile(file) as stream:
            shape = _header(stream)
    except DAMAGE as problem:
        raise _damaged(file, problem) from problem
    return shape[1], shape[2]


def _header(stream: gzip.GzipFile) -> tuple[int, int, int]:
    """The shape of the observations, which follow in the stream."""
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version} of NumPy's format")
    shape, is_column_major, dtype = read(stream)
    if len(shape) != 3 or dtype != np.uint8 or is_column_major:
        raise ValueError(
            f"observations of shape {shape} and {dtype}, expected (steps, height, width) of uint8"
        )
    return shape[0], shape[1], shape[2]


def _damaged(file: Path, problem: Exception) -> ValueError:
    return ValueError(
        f"{file} is damaged, or not of the DQN replay data set: {' '.join(str(problem).split())}"
    )


def read_steps(checkpoint: Checkpoint) -> Steps:
    columns: dict[str, np.ndarray] = {}
    for name in COLUMNS[1:]:
        file = checkpoint.files[name]
        try:
            with gzip.GzipFile(file) as stream:
                columns[name] = np.lib.format.read_array(stream, allow_pickle=False)
        except DAMAGE as problem:
            raise _damaged(file, problem) from problem
    shapes = {name: values.shape for name, values in columns.items()}
    if (
        len(set(shapes.values())) != 1
        or len(shapes["action"]) != 1
        or columns["action"].dtype.kind not in "iu"
    ):
        raise ValueError(
            f"checkpoint {checkpoint.number}: columns of shapes {shapes}; expected one number a"
            " step in each"
        )
    if columns["reward"].dtype.kind not in "fiu" or not np.isin(columns["terminal"], (0, 1)).all():
        raise ValueError(
            f"checkpoint {checkpoint.number}: rewards of {columns['reward'].dtype}, or terminals"
            f" other than 0 and 1; {FORMAT}"
        )
    return Steps(
        actions=columns["action"].astype(np.int64),
        rewards=columns["reward"].astype(np.float32),
        terminals=columns["terminal"].astype(np.bool_),
    )


class Frames:
    """The frames of a checkpoint, read forwards from the stream. Raises ValueError if it is
    damaged."""

    def __init__(self, file: Path, *, num_steps: int) -> None:
        self._file = file
        self._stream = gzip.GzipFile(file)
        self._step = 0
        self._damage: ValueError | None = None
        try:
            found_steps, *self._size = _header(self._stream)
        except DAMAGE as problem:
            self.close()
            raise _damaged(file, problem) from problem
        if found_steps != num_steps:
            self.close()
            raise ValueError(
                f"{file} has {found_steps} observations, but there are {num_steps} actions"
            )

    def read(self, start: int, stop: int) -> UInt8[np.ndarray, "T H W 3"]:
        """The frames of steps [start, stop), grey in all three channels; those before them are
        passed over."""
        if self._damage is not None:
            raise self._damage  # what comes after the damage cannot be reached in the stream
        height, width = self._size
        out = np.empty((stop - start, height, width, 3), np.uint8)
        try:
            _pass_over(self._stream, (start - self._step) * height * width)
            for frame in out:
                grey = np.frombuffer(_exactly(self._stream, height * width), np.uint8).reshape(
                    height, width
                )
                frame[:] = grey[..., None]
        except DAMAGE as problem:
            self._damage = _damaged(self._file, problem)
            raise self._damage from problem
        self._step = stop
        return out

    def close(self) -> None:
        self._stream.close()


def _pass_over(stream: gzip.GzipFile, num_bytes: int) -> None:
    while num_bytes:
        num_bytes -= len(_exactly(stream, min(num_bytes, BLOCK_BYTES)))


def _exactly(stream: gzip.GzipFile, num_bytes: int) -> bytes:
    block = stream.read(num_bytes)
    if len(block) != num_bytes:
        raise EOFError("it ends in the midst of an episode")
    return block
