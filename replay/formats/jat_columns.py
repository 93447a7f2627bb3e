"""Columns of a JAT row: nested lists as arrays, and images in three channels.

Shape letters: T steps, H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt8
from PIL import Image

from gato.episode import BadEpisode
from replay.formats import parquet

STACKED = 4
"""Frames in the channels of one image."""


def list_of(row: parquet.Row, name: str) -> Any:
    """What a row has in a column, one entry a step."""
    column = row.values.column(name)
    if column.null_count or not len(column[0].values):
        raise BadEpisode(f"{row.where} has nothing in {name}")
    return column[0].values


def array_of(row: parquet.Row, name: str) -> np.ndarray:
    """A list of numbers, or of lists of as many numbers each, of one row."""
    return numbers_of(list_of(row, name), f"{name} of {row.file.name}")


def numbers_of(values: Any, what: str) -> np.ndarray:
    """Nested lists as an array: the lists of each level must be of one length."""
    shape = [len(values)]
    while (
        pa.types.is_list(values.type)
        or pa.types.is_large_list(values.type)
        or pa.types.is_fixed_size_list(values.type)
    ):
        lengths = np.unique(
            pc.call_function("list_value_length", [values]).to_numpy(zero_copy_only=False)
        )
        if len(lengths) != 1 or not lengths[0] >= 1:
            raise ValueError(
                f"{what}: lists of {lengths.tolist()} numbers, expected as many in each step"
            )
        shape.append(int(lengths[0]))
        values = values.flatten()
    if values.null_count:
        raise BadEpisode(f"{what}: {values.null_count} of its values are missing")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def frames_of(values: Any, what: str) -> UInt8[np.ndarray, "T H W 3"]:
    """Images, as files in the file or as nested lists, in three channels; of four, which are the
    last four frames, the last."""
    if pa.types.is_struct(values.type):
        values = values.field("bytes")
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        if values.null_count:
            raise ValueError(f"{what}: images kept outside of the file; embed them first")
        images = (np.asarray(Image.open(io.BytesIO(image.as_buffer()))) for image in values)
        return _filled(images, len(values), what)
    frames = numbers_of(values, what)
    if frames.ndim == 4 and frames.shape[1] == STACKED != frames.shape[3]:
        frames = np.moveaxis(frames, 1, 3)
    if frames.dtype.kind not in "iu" or not 0 <= frames.min() <= frames.max() <= 255:
        raise ValueError(f"{what}: {frames.dtype} values, expected whole numbers from 0 to 255")
    return _filled((frame.astype(np.uint8) for frame in frames), len(frames), what)


def _filled(
    images: Iterator[np.ndarray], num_steps: int, what: str
) -> UInt8[np.ndarray, "T H W 3"]:
    """All images in one array, so that they are not held twice."""
    first = _rgb(next(images), what)
    out = np.empty((num_steps, *first.shape), np.uint8)
    out[0] = first
    for step, image in enumerate(images, start=1):
        frame = _rgb(image, what)
        if frame.shape != first.shape:
            raise ValueError(f"{what}: images of shape {first.shape} and of {frame.shape}")
        out[step] = frame
    return out


def _rgb(frame: np.ndarray, what: str) -> UInt8[np.ndarray, "H W 3"]:
    if (
        frame.dtype != np.uint8
        or frame.ndim not in (2, 3)
        or (frame.ndim == 3 and frame.shape[2] not in (1, 3, STACKED))
    ):
        raise ValueError(
            f"{what}: an image of shape {frame.shape} and {frame.dtype}, expected 84x84x4 of uint8"
        )
    if frame.ndim == 3 and frame.shape[2] == 3:
        return frame
    return np.repeat((frame if frame.ndim == 2 else frame[..., -1])[..., None], 3, axis=-1)
