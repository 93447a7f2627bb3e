"""Raw windows: observations, actions and rewards as they were stored, for learners that read no
tokens.

Shape letters: N windows, T steps of each, P steps of all windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from gato.task import Task
from replay.sampling.arena import Arena, as_bytes, cut_in_chunks, gather
from replay.sampling.collate import DamagedDraw
from replay.sampling.sample_info import SampleInfo
from replay.sampling.window_draw import WindowDraw
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.record import CHUNK_STEPS, IMAGE_BYTES, step_bytes
from replay.storage.store import EpisodeStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """N windows of one task. Steps beyond a window's length are zeros. Arrays may be views of one
    block of memory."""

    observations: Mapping[str, Shaped[np.ndarray, "N T ..."]]
    actions: Shaped[np.ndarray, "N T ..."]
    """Labels instead of actions, if the episode has labels."""
    rewards: Float[np.ndarray, "N T"]
    length: Int64[np.ndarray, " N"]
    at_end: Bool[np.ndarray, " N"]
    """Whether the window's last step is its episode's last."""
    terminated: Bool[np.ndarray, " N"]
    """Whether the window's last step ended the episode, rather than truncated it."""
    info: SampleInfo


class WindowReader:
    """Reads drawn windows, through an arena of its own.

    reader = WindowReader(store, cache_bytes=1 << 28)
    arrays = reader.read(task, draw, steps=64)
    """

    def __init__(self, store: EpisodeStore, *, cache_bytes: int) -> None:
        self._store = store
        self._arena = Arena(cache_bytes)

    def read(self, task: Task, draw: WindowDraw, steps: int) -> dict[str, np.ndarray]:
        """Columns [N, steps, ...] by name, `o/` before those of observations, and `at_end` and
        `terminated` [N].

        Raises:
            DamagedDraw: if an episode is damaged.
            EpisodeGone: if one was evicted since it was drawn.
        """
        known = self._store.index.look_up(draw.number)
        if not known.steps.all():
            gone = draw.number[known.steps == 0].tolist()
            raise EpisodeGone("an episode that was drawn was evicted", gone)
        columns = [
            (f"o/{name}", spec.dtype, spec.shape)
            for name, spec in sorted(task.observations.items())
        ]
        columns += [
            ("actions", task.action.dtype, task.action.shape),
            ("rewards", np.dtype(np.float32), ()),
        ]
        is_image = [step_bytes(dtype.str, shape) >= IMAGE_BYTES for _, dtype, shape in columns]
        # Aligned, so that a column is a plain view of the rows.
        small = np.dtype(
            [column for column, chunked in zip(columns, is_image, strict=True) if not chunked],
            align=True,
        )
        rows = gather(
            self._arena, draw.number.tolist(), draw.start, draw.length, small.itemsize,
            lambda number: self._load_small(self._header(number), small),
        ).reshape(-1).view(small)  # fmt: skip
        out = {name: rows[name] for name in small.names or ()}
        for (name, dtype, shape), chunked in zip(columns, is_image, strict=True):
            if chunked:
                out[name] = (
                    self._images(name, draw, step_bytes(dtype.str, shape))
                    .view(dtype)
                    .reshape(-1, *shape)
                )
        out = {name: _spread(values, draw.length, steps) for name, values in out.items()}
        out["at_end"] = draw.start + draw.length == known.steps
        out["terminated"] = out["at_end"] & known.terminated
        return out

    def _header(self, number: int) -> Header:
        header = self._store.episodes.get(number)
        if header is None:
            raise EpisodeGone(f"episode {number} was evicted", [number])
        return header

    def _load_small(self, header: Header, small: np.dtype) -> np.ndarray:
        """All columns except images, next to each other, so that one step is one row."""
        made = np.empty(header.steps, small)
        for name in small.names or ():
            made[name] = self._load(header, name, 0, header.steps)
        return made.view(np.uint8).reshape(header.steps, small.itemsize)

    def _images(self, name: str, draw: WindowDraw, width: int) -> np.ndarray:
        """A column that is stored in chunks, as rows of bytes, all windows one after another."""
        cut = cut_in_chunks(draw.start, draw.length, CHUNK_STEPS)
        keys = [
            (number, name, chunk)
            for number, chunk in zip(draw.number[cut.of].tolist(), cut.chunk.tolist(), strict=True)
        ]

        def load(key: tuple[int, str, int]) -> np.ndarray:
            header, start = self._header(key[0]), key[2] * CHUNK_STEPS
            return as_bytes(self._load(header, name, start, min(start + CHUNK_STEPS, header.steps)))

        return gather(self._arena, keys, cut.start, cut.length, width, load)

    def _load(self, header: Header, name: str, start: int, stop: int) -> np.ndarray:
        if name == "actions" and "labels" in header.columns:
            name = "labels"
        try:
            return self._store.column(header, name, start, stop)
        except DamagedEpisode as problem:
            raise DamagedDraw(header, str(problem)) from problem


def _spread(rows_P: np.ndarray, length: np.ndarray, steps: int) -> np.ndarray:
    """Consecutive steps as [N, steps, ...], zeros behind the steps of a short window."""
    if len(rows_P) == len(length) * steps:
        return rows_P.reshape(len(length), steps, *rows_P.shape[1:])
    out = np.zeros((len(length), steps, *rows_P.shape[1:]), rows_P.dtype)
    out[np.arange(steps) < length[:, None]] = rows_P
    return out
