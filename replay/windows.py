"""Windows as they were stored, for learners of other kinds: observations, actions and rewards instead of tokens.

Shape letters: N windows, T steps of each, P steps of all windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from gato.task import Task
from replay.cache import Arena, as_bytes, cut_in_chunks, gather
from replay.compose import DamagedDraw
from replay.draw import Draw
from replay.header import DamagedEpisode, Header
from replay.info import SampleInfo
from replay.record import CHUNK_STEPS, IMAGE_BYTES, step_bytes
from replay.store import EpisodeGone, EpisodeStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """N windows of one task. Steps of a window beyond its length are zeros."""

    observations: Mapping[str, Shaped[np.ndarray, "N T ..."]]
    actions: Shaped[np.ndarray, "N T ..."]
    """What was done, or what a teacher would have done, where that is known."""
    rewards: Float[np.ndarray, "N T"]
    length: Int64[np.ndarray, " N"]
    at_end: Bool[np.ndarray, " N"]
    """Whether the window's last step is its episode's last."""
    terminated: Bool[np.ndarray, " N"]
    """Whether the episode ended there for good, and was not cut."""
    info: SampleInfo


class WindowReader:
    """Reads windows that were drawn, from warm memory of its own.

    reader = WindowReader(store, cache_bytes=1 << 28)
    arrays = reader.read(task, draw, steps=64)
    """

    def __init__(self, store: EpisodeStore, *, cache_bytes: int) -> None:
        self._store = store
        self._arena = Arena(cache_bytes)

    def read(self, task: Task, draw: Draw, steps: int) -> dict[str, np.ndarray]:
        """Columns [N, steps, ...] by name, `o/` before those of observations, and `at_end` and `terminated` [N].

        DamagedDraw where an episode is damaged, EpisodeGone where one was evicted in between.
        """
        numbers, which = np.unique(draw.number, return_inverse=True)
        headers = [self._header(number) for number in numbers.tolist()]
        specs = {f"o/{name}": (spec.dtype, spec.shape) for name, spec in task.observations.items()}
        specs |= {"actions": (task.action.dtype, task.action.shape), "rewards": (np.dtype(np.float32), ())}
        out: dict[str, np.ndarray] = {}
        for name, (dtype, shape) in specs.items():
            width = step_bytes(dtype.str, shape)
            # What is kept in chunks is read in chunks, and the rest whole.
            chunk_steps = CHUNK_STEPS if width >= IMAGE_BYTES else int(max(header.steps for header in headers))
            rows = self._rows(name, headers, which, draw, chunk_steps, width)
            out[name] = _spread(rows.view(dtype).reshape(-1, *shape), draw.length, steps)
        out["at_end"] = draw.start + draw.length == np.array([header.steps for header in headers])[which]
        out["terminated"] = out["at_end"] & np.array([header.terminated for header in headers])[which]
        return out

    def _header(self, number: int) -> Header:
        header = self._store.episodes.get(number)
        if header is None:
            raise EpisodeGone(f"episode {number} was evicted")
        return header

    def _rows(
        self, name: str, headers: list[Header], which: np.ndarray, draw: Draw, chunk_steps: int, width: int
    ) -> np.ndarray:
        """Rows of bytes of one column, of all windows one after another."""
        cut = cut_in_chunks(draw.start, draw.length, chunk_steps)
        both, piece = np.unique(np.stack([which[cut.of], cut.chunk]), axis=1, return_inverse=True)
        pairs: list[tuple[int, int]] = [(k, chunk) for k, chunk in both.T.tolist()]
        keys = [(headers[k].number, name, chunk) for k, chunk in pairs]

        def load(i: int) -> np.ndarray:
            header, start = headers[pairs[i][0]], pairs[i][1] * chunk_steps
            return self._load(header, name, start, min(start + chunk_steps, header.steps))

        return gather(self._arena, keys, piece.reshape(-1), cut.start, cut.length, width, load)

    def _load(self, header: Header, name: str, start: int, stop: int) -> np.ndarray:
        if name == "actions" and "labels" in header.columns:
            name = "labels"
        try:
            return as_bytes(self._store.column(header, name, start, stop))
        except DamagedEpisode as problem:
            raise DamagedDraw(header, str(problem)) from problem


def _spread(rows_P: np.ndarray, length: np.ndarray, steps: int) -> np.ndarray:
    """Steps one after another as [N, steps, ...], zeros behind those of a short window."""
    if len(rows_P) == len(length) * steps:
        return rows_P.reshape(len(length), steps, *rows_P.shape[1:])
    out = np.zeros((len(length), steps, *rows_P.shape[1:]), rows_P.dtype)
    out[np.arange(steps) < length[:, None]] = rows_P
    return out
