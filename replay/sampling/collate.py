"""Collation: drawn windows become a batch of tokens, gathered from the arena.

`gato.packing.RowWriter` defines what a batch is; this builds the same one, fast. The tokens of an
episode are made once, when it is first read, and its patches chunk by chunk; both stay in memory
while there is room. The other columns come from templates (`replay.sampling.templates`).

Shape letters: B rows of L tokens, R rows of one task, W windows, P pieces (prompts and windows), T
steps, S tokens in a step, m patches in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from gato.sequence import PATCH, Batch, StepLayout
from replay.sampling.arena import Arena, as_bytes, cut_in_chunks, gather
from replay.sampling.memory import keep_freed_memory
from replay.sampling.templates import Rows, Templates
from replay.sampling.window_draw import WindowDraw
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.record import CHUNK_STEPS
from replay.storage.store import EpisodeStore

TOKENS_SHARE = 0.25
"""Share of the arena's memory for tokens; the rest is for patches."""
PATCH_BYTES = PATCH * PATCH * 3


class DamagedDraw(Exception):
    """An episode that was drawn is damaged, as its reading showed."""

    def __init__(self, header: Header, reason: str) -> None:
        super().__init__(reason)
        self.header = header


class Collator:
    """Builds batches of window draws. One thread at a time.

    collator = Collator(store, layouts, num_rows=64, row_tokens=1024, loss_on_prompt=True,
                        cache_bytes=1 << 30)
    batch = collator.batch([(0, draw, told_B)])
    """

    def __init__(
        self,
        store: EpisodeStore,
        layouts: Sequence[StepLayout],
        *,
        num_rows: int,
        row_tokens: int,
        loss_on_prompt: bool,
        cache_bytes: int,
    ) -> None:
        """`layouts`: of each task, in the order of the tasks' indices."""
        keep_freed_memory()
        self._store = store
        self._layouts = layouts
        self._shape = (num_rows, row_tokens)
        self._tokens = Arena(int(cache_bytes * TOKENS_SHARE))
        self._patches = Arena(cache_bytes - int(cache_bytes * TOKENS_SHARE))
        self._scratch = np.empty(0, np.uint8)
        self._templates = Templates(layouts, row_tokens=row_tokens, loss_on_prompt=loss_on_prompt)

    def batch(self, draws: Sequence[tuple[int, WindowDraw, Bool[np.ndarray, " B"]]]) -> Batch:
        """The batch of some tasks' draws.

        Args:
            draws: of each task its index, its windows, and which rows of the batch tell their
                return-to-go.

        Raises:
            DamagedDraw: if an episode is damaged.
            EpisodeGone: if one was evicted since it was drawn.
        """
        B, L = self._shape
        tasks = [(index, draw, told_B, Rows(draw)) for index, draw, told_B in draws]
        # If one task has all rows, each position is written below and need not be cleared first.
        is_whole = len(tasks) == 1 and len(tasks[0][3].row) == B
        new = np.empty if is_whole else np.zeros
        ids, place, segment = (new((B, L), np.int32) for _ in range(3))
        is_target = new((B, L), np.bool_)
        task_index = np.zeros(B, np.int64)
        patches: list[dict[str, np.ndarray]] = []
        num_patches = 0
        for index, draw, told_B, rows in tasks:
            layout = self._layouts[index]
            task_index[rows.row] = index
            # 1. Ids of all steps, one after another [T, S]. They tell the return-to-go; rows that
            #    must not tell it get the separator in its place.
            pieces = _Pieces.of(draw)
            ids_TS = self._ids(layout, pieces)
            steps = _Steps(rows, draw, L // layout.tokens_per_step)
            if layout.num_return_tokens:
                ids_TS[~told_B[rows.row[steps.row_T]], 0] = layout.layout.separator
            # 2. Spread over this task's rows [R, used]; the rest of each row is padding.
            #    A slice, if all rows are this task's, is several times faster than a list of rows.
            used = steps.fit * layout.tokens_per_step
            at = slice(None) if is_whole else rows.row
            ids[at, :used] = steps.spread(ids_TS)
            ids[at, used:] = 0
            # 3. Place, segment and target depend only on the lengths of the windows.
            self._templates.write(index, rows, draw, at, (place, segment, is_target))
            # Except that padding of texts is no target, which the ids tell.
            if layout.texts or layout.writes_text:
                text = layout.is_target(ids[at, :used].reshape(-1, layout.tokens_per_step)).reshape(
                    len(rows.row), used
                )
                is_target[at, :used] &= text
            # 4. Patches of images, with their positions in the flat batch (row * L + column).
            if layout.num_patches:
                first_T = rows.row[steps.row_T] * L + steps.column_T * layout.tokens_per_step
                found = self._patches_of(layout, pieces, first_T)
                found["patch_leaders"] += num_patches
                num_patches += len(found["patches"])
                patches.append(found)
        if not patches:
            patches = [_NO_PATCHES]
        joined = {name: _joined([part[name] for part in patches]) for name in patches[0]}
        return Batch(
            ids=ids,
            place=place,
            segment=segment,
            is_target=is_target,
            task_index=task_index,
            episode_keys=(),  # the mixture knows them
            **joined,
        )

    def _ids(self, layout: StepLayout, pieces: _Pieces) -> Int32[np.ndarray, "T S"]:
        """Ids of the steps of all pieces, in memory that the next call uses again. Steps tell their
        returns, if the layout has them."""
        width = 4 * layout.tokens_per_step
        size = int(pieces.length.sum()) * width
        if len(self._scratch) < size:
            self._scratch = np.empty(size, np.uint8)
        rows = gather(
            self._tokens,
            pieces.number.tolist(),
            pieces.start,
            pieces.length,
            width,
            lambda number: self._load_ids(layout, number),
            out=self._scratch[:size].reshape(-1, width),
        )
        return rows.view(np.int32)

    def _header(self, number: int) -> Header:
        header = self._store.episodes.get(number)
        if header is None:
            raise EpisodeGone(f"episode {number} was evicted", [number])
        return header

    def _load_ids(self, layout: StepLayout, number: int) -> UInt8[np.ndarray, "T width"]:
        """Ids of all steps of an episode, as rows of bytes."""
        header = self._header(number)
        images = {f"o/{name}" for name, _ in layout.images}
        names = [name for name in header.columns if name not in images]
        try:
            with self._store.views(header, names, 0, header.steps) as columns:
                returns = None
                if layout.num_return_tokens:
                    returns = np.cumsum(columns["rewards"][::-1], dtype=np.float64)[::-1]
                # The loss is on labels, where there are labels.
                actions = columns.get("labels", columns["actions"])
                observed = {
                    name[2:]: values for name, values in columns.items() if name.startswith("o/")
                }
                # Images become no ids: instead of their pixels, an array of the right length.
                observed |= {
                    name: np.broadcast_to(np.uint8(0), header.steps) for name, _ in layout.images
                }
                return as_bytes(layout.step_ids(observed, actions, returns))
        except DamagedEpisode as problem:
            raise DamagedDraw(header, str(problem)) from problem

    def _load_patches(
        self, layout: StepLayout, number: int, chunk: int
    ) -> UInt8[np.ndarray, "T width"]:
        """All patches of each step of one chunk, as rows of bytes."""
        header = self._header(number)
        names = [f"o/{name}" for name, _ in layout.images]
        start = chunk * CHUNK_STEPS
        stop = min(start + CHUNK_STEPS, header.steps)
        try:
            with self._store.views(header, names, start, stop) as columns:
                return as_bytes(
                    layout.patches({name[2:]: values for name, values in columns.items()})
                )
        except DamagedEpisode as problem:
            raise DamagedDraw(header, str(problem)) from problem

    def _patches_of(
        self, layout: StepLayout, pieces: _Pieces, first_T: Int64[np.ndarray, " T"]
    ) -> dict[str, np.ndarray]:
        """Patches of the steps of all pieces, with their positions, intervals and leaders.

        `first_T`: position of the first token of each step in the flat batch.
        """
        cut = cut_in_chunks(pieces.start, pieces.length, CHUNK_STEPS)
        keys = list(zip(pieces.number[cut.of].tolist(), cut.chunk.tolist(), strict=True))
        m = layout.num_patches
        rows = gather(
            self._patches,
            keys,
            cut.start,
            cut.length,
            m * PATCH_BYTES,
            lambda key: self._load_patches(layout, *key),
        )
        first_patch_T = np.arange(len(first_T)) * m
        return {
            "patches": rows.reshape(-1, PATCH, PATCH, 3),
            "patch_at": (first_T[:, None] + layout.patch_at_m).reshape(-1),
            "patch_intervals": np.tile(layout.intervals_m4, (len(first_T), 1)),
            "patch_leaders": (first_patch_T[:, None, None] + layout.leaders_m2).reshape(-1, 2),
        }


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Runs of steps of one episode each, in the order of the batch: prompt, window, prompt ..."""

    number: Int64[np.ndarray, " P"]
    start: Int64[np.ndarray, " P"]
    length: Int64[np.ndarray, " P"]

    @classmethod
    def of(cls, draw: WindowDraw) -> _Pieces:
        if not draw.prompt_length.any():
            return cls(draw.number, draw.start, draw.length)
        pairs = (
            (draw.prompt_number, draw.number),
            (draw.prompt_start, draw.start),
            (draw.prompt_length, draw.length),
        )
        number, start, length = (np.stack(pair, axis=1).reshape(-1) for pair in pairs)
        has_steps = length > 0
        return cls(number[has_steps], start[has_steps], length[has_steps])


class _Steps:
    """Where each of the T steps of a task is: which of its R rows, and which step of that row."""

    def __init__(self, rows: Rows, draw: WindowDraw, fit: int) -> None:
        """`fit`: steps that fit in a row."""
        self.fit = fit
        self._num_rows = len(rows.row)
        self._steps_R = np.add.reduceat(draw.prompt_length + draw.length, rows.first)

    @cached_property
    def row_T(self) -> Int64[np.ndarray, " T"]:
        return np.repeat(np.arange(self._num_rows), self._steps_R)

    @cached_property
    def column_T(self) -> Int64[np.ndarray, " T"]:
        steps_R = self._steps_R
        return np.arange(len(self.row_T)) - np.repeat(np.cumsum(steps_R) - steps_R, steps_R)

    def spread(self, ids_TS: Int32[np.ndarray, "T S"]) -> Int32[np.ndarray, "R used"]:
        """Ids by row; zeros behind the last step of a row."""
        S = ids_TS.shape[1]
        if len(ids_TS) == self._num_rows * self.fit:  # all rows are full
            return ids_TS.reshape(self._num_rows, self.fit * S)
        out = np.zeros((self._num_rows * self.fit, S), np.int32)
        out[self.row_T * self.fit + self.column_T] = ids_TS
        return out.reshape(self._num_rows, self.fit * S)


_NO_PATCHES = {
    "patches": np.zeros((0, PATCH, PATCH, 3), np.uint8),
    "patch_at": np.zeros(0, np.int64),
    "patch_intervals": np.zeros((0, 4), np.int32),
    "patch_leaders": np.zeros((0, 2), np.int64),
}


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
