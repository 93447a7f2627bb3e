"""Composing: windows that were drawn become a batch of tokens, gathered from what is warm.

`gato.sequence.RowWriter` says what a batch is; this makes the same one, fast. The tokens of an
episode are made once, when it is first read, and its patches chunk by chunk; both stay in memory
while there is room. Which place, segment and target each position has depends only on the lengths
in its row, so rows of equal lengths share a template.

Shape letters: B rows of L tokens, W windows, P pieces (prompts and windows), T steps, S tokens in a
step, m patches in a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from gato.sequence import PATCH, PLACE_ACTION, Batch, StepLayout
from replay.sampling.arena import Arena, as_bytes, cut_in_chunks, gather
from replay.sampling.window_draw import Draw
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.record import CHUNK_STEPS
from replay.storage.store import EpisodeStore

TOKENS_SHARE = 0.25
"""Of the cache for tokens; the rest is for patches."""
MAX_TEMPLATES = 4096
PATCH_BYTES = PATCH * PATCH * 3
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


class DamagedDraw(Exception):
    """An episode turned out to be damaged while it was read."""

    def __init__(self, header: Header, reason: str) -> None:
        super().__init__(reason)
        self.header = header


@dataclass(frozen=True, slots=True)
class _Template:
    """Place, segment and target of each position in a row."""

    place: np.ndarray
    segment: np.ndarray
    is_target: np.ndarray


class Composer:
    """Makes batches of draws.

    composer = Composer(store, layouts, num_rows=64, row_tokens=1024, loss_on_prompt=True,
    cache_bytes=1 << 30) batch = composer.batch([(0, draw, told)])
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
        self._store = store
        self._layouts = layouts
        self._shape = (num_rows, row_tokens)
        self._loss_on_prompt = loss_on_prompt
        self._tokens = Arena(int(cache_bytes * TOKENS_SHARE))
        self._patches = Arena(cache_bytes - int(cache_bytes * TOKENS_SHARE))
        self._scratch = np.empty(0, np.uint8)
        self._templates: dict[tuple[int, bytes], _Template] = {}

    def batch(self, draws: Sequence[tuple[int, Draw, Bool[np.ndarray, " B"]]]) -> Batch:
        """The batch of some tasks' draws: index of the task, its windows, and which rows tell their
        returns.

        DamagedDraw where an episode is damaged, EpisodeGone where one was evicted in between.
        """
        B, L = self._shape
        laid = [(index, draw, told_B, _Rows(draw)) for index, draw, told_B in draws]
        # Where one task has all rows each position is written below, and nothing need be cleared
        # first.
        is_whole = len(laid) == 1 and len(laid[0][3].row) == B
        new = np.empty if is_whole else np.zeros
        ids, place, segment = (new((B, L), np.int32) for _ in range(3))
        is_target = new((B, L), np.bool_)
        task_index = np.zeros(B, np.int64)
        patches: list[dict[str, np.ndarray]] = []
        num_patches = 0
        for index, draw, told_B, of in laid:
            layout, rows = self._layouts[index], of.row
            task_index[rows] = index
            pieces = _Pieces.of(draw)
            ids_TS = self._ids(layout, pieces)
            cells = _Cells(of, draw, L // layout.tokens_per_step)
            if layout.num_return_tokens:
                ids_TS[~told_B[rows[cells.row_T]], 0] = layout.layout.separator
            used = cells.fit * layout.tokens_per_step
            # A slice where all rows are this task's: several times faster than a list of rows.
            at = slice(None) if is_whole else rows
            ids[at, :used] = cells.spread(ids_TS)
            ids[at, used:] = 0
            self._lay_templates(index, of, draw, at, (place, segment, is_target))
            if layout.texts:
                text = layout.is_target(ids[at, :used].reshape(-1, layout.tokens_per_step)).reshape(
                    len(rows), used
                )
                is_target[at, :used] &= text
            if layout.num_patches:
                made = self._patches_of(
                    layout, pieces, rows[cells.row_T] * L + cells.col_T * layout.tokens_per_step
                )
                made["patch_leaders"] += num_patches
                num_patches += len(made["patches"])
                patches.append(made)
        if not patches:
            patches = [_NO_PATCHES]
        joined = {name: _joined([made[name] for made in patches]) for name in patches[0]}
        return Batch(
            ids=ids,
            place=place,
            segment=segment,
            is_target=is_target,
            task_index=task_index,
            **joined,
        )

    def _ids(self, layout: StepLayout, pieces: _Pieces) -> np.ndarray:
        """Ids [T, S] of the steps of all pieces, in memory that the next batch takes again; steps
        tell their returns, where the layout has them."""
        width = 4 * layout.tokens_per_step
        size = int(pieces.length.sum()) * width
        if len(self._scratch) < size:
            self._scratch = np.empty(size, np.uint8)
        rows = gather(
            self._tokens, pieces.number.tolist(), pieces.start, pieces.length, width,
            lambda number: self._load_ids(layout, number), out=self._scratch[:size].reshape(-1, width),
        )  # fmt: skip
        return rows.view(np.int32)

    def _header(self, number: int) -> Header:
        header = self._store.episodes.get(number)
        if header is None:
            raise EpisodeGone(f"episode {number} was evicted")
        return header

    def _load_ids(self, layout: StepLayout, number: int) -> np.ndarray:
        header = self._header(number)
        images = {f"o/{name}" for name, _ in layout.images}
        names = [name for name in header.columns if name not in images]
        try:
            with self._store.views(header, names, 0, header.steps) as columns:
                returns = None
                if layout.num_return_tokens:
                    returns = np.cumsum(columns["rewards"][::-1], dtype=np.float64)[::-1]
                # What is to be learned is the label, where that is not what was done.
                actions = columns.get("labels", columns["actions"])
                seen = {
                    name[2:]: values for name, values in columns.items() if name.startswith("o/")
                }
                # Images become no ids, so their pixels are not read here: only how many steps there
                # are.
                seen |= {
                    name: np.broadcast_to(np.uint8(0), header.steps) for name, _ in layout.images
                }
                return as_bytes(layout.step_ids(seen, actions, returns))
        except DamagedEpisode as problem:
            raise DamagedDraw(header, str(problem)) from problem

    def _load_patches(self, layout: StepLayout, number: int, chunk: int) -> np.ndarray:
        header = self._header(number)
        names = [f"o/{name}" for name, _ in layout.images]
        start = chunk * CHUNK_STEPS
        try:
            with self._store.views(
                header, names, start, min(start + CHUNK_STEPS, header.steps)
            ) as columns:
                return as_bytes(
                    layout.patches({name[2:]: values for name, values in columns.items()})
                )
        except DamagedEpisode as problem:
            raise DamagedDraw(header, str(problem)) from problem

    def _patches_of(
        self, layout: StepLayout, pieces: _Pieces, at_T: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Patches of the steps of all pieces, with where they stand, their intervals and
        leaders."""
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
        first_T = np.arange(len(at_T)) * m
        return {
            "patches": rows.reshape(-1, PATCH, PATCH, 3),
            "patch_at": (at_T[:, None] + layout.patch_at_m).reshape(-1),
            "patch_intervals": np.tile(layout.intervals_m4, (len(at_T), 1)),
            "patch_leaders": (first_T[:, None, None] + layout.leaders_m2).reshape(-1, 2),
        }

    def _lay_templates(
        self,
        index: int,
        of: _Rows,
        draw: Draw,
        at: slice | np.ndarray,
        out: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        lengths_W2 = np.stack([draw.prompt_length, draw.length], axis=1).astype(np.int32)
        first_R, count_R, alike_R = _alike(of, lengths_W2)
        templates = [
            self._template(index, lengths_W2[first : first + count].tobytes())
            for first, count in zip(first_R.tolist(), count_R.tolist(), strict=True)
        ]
        for array, laid in zip(out, ("place", "segment", "is_target"), strict=True):
            values = [getattr(template, laid) for template in templates]
            if len(values) == 1:
                array[at] = values[0]
            elif isinstance(at, slice):
                np.take(np.stack(values), alike_R, axis=0, out=array, mode="clip")
            else:
                array[at] = np.take(np.stack(values), alike_R, axis=0)

    def _template(self, index: int, key: bytes) -> _Template:
        made = self._templates.get((index, key))
        if made is None:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            lengths_W2 = np.frombuffer(key, np.int32).reshape(-1, 2)
            made = _make_template(
                self._layouts[index], lengths_W2, self._shape[1], self._loss_on_prompt
            )
            self._templates[index, key] = made
        return made


class _Rows:
    """The R rows that a draw fills, in order."""

    def __init__(self, draw: Draw) -> None:
        new_W = np.empty(len(draw.row), np.bool_)
        new_W[:1] = True
        np.not_equal(draw.row[1:], draw.row[:-1], out=new_W[1:])
        self.first = np.flatnonzero(new_W)
        """First window of each."""
        self.row = draw.row[self.first]
        self.count = np.append(self.first[1:], len(draw.row)) - self.first
        """Windows of each."""


def _alike(of: _Rows, lengths_W2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with the same lengths: first window and number of windows of one row of each sort, and
    the sort of each row."""
    first_R, count_R = of.first, of.count
    if (count_R == count_R[0]).all():
        by_row = lengths_W2.reshape(len(first_R), -1)
        if (by_row == by_row[0]).all():
            return first_R[:1], count_R[:1], np.zeros(len(first_R), np.int64)
        if count_R[0] == 1:
            lengths_R = lengths_W2[:, 0].astype(np.int64) << 32 | lengths_W2[:, 1]
            _, one_of, alike_R = np.unique(lengths_R, return_index=True, return_inverse=True)
            return one_of, count_R[: len(one_of)], alike_R
    nth_W = np.arange(len(lengths_W2)) - np.repeat(first_R, count_R)
    # A polynomial of the lengths, modulo 2^64, tells rows apart; the assertion, that it told none
    # alike that are not.
    mixed_W = (lengths_W2.astype(np.uint64) @ _ODD[:2] + np.uint64(1)) * (
        _ODD[2] ** (nth_W + 1).astype(np.uint64)
    )
    _, one_of, alike_R = np.unique(
        np.add.reduceat(mixed_W, first_R), return_index=True, return_inverse=True
    )
    same_W = np.repeat(first_R[one_of[alike_R]], count_R) + nth_W
    assert (count_R == count_R[one_of[alike_R]]).all()
    assert (lengths_W2 == lengths_W2[same_W]).all()
    return first_R[one_of], count_R[one_of], alike_R


def _make_template(
    layout: StepLayout, lengths_W2: np.ndarray, row_tokens: int, loss_on_prompt: bool
) -> _Template:
    S = layout.tokens_per_step
    lengths_W = lengths_W2.sum(axis=1)
    segment_T = np.repeat(np.arange(1, len(lengths_W) + 1, dtype=np.int32), lengths_W)
    in_window_T = np.concatenate([np.arange(length) for length in lengths_W])
    in_prompt_T = in_window_T < np.repeat(lengths_W2[:, 0], lengths_W)
    target_S = layout.place_S == PLACE_ACTION
    text = slice(layout.num_return_tokens, layout.num_return_tokens + layout.num_text_tokens)
    target_S[text] = True  # but for padding, which the ids tell
    target_TS = np.repeat(target_S[None], len(segment_T), axis=0)
    if not loss_on_prompt:
        target_TS &= ~in_prompt_T[:, None]
    target_TS[in_window_T == 0, 0] = False  # what stands before it is no part of its sequence
    out = _Template(
        np.zeros(row_tokens, np.int32),
        np.zeros(row_tokens, np.int32),
        np.zeros(row_tokens, np.bool_),
    )
    used = len(segment_T) * S
    out.place[:used] = np.tile(layout.place_S, len(segment_T))
    out.segment[:used] = np.repeat(segment_T, S)
    out.is_target[:used] = target_TS.reshape(-1)
    return out


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Runs of steps of one episode, in the order in which they stand in the batch."""

    number: np.ndarray
    start: np.ndarray
    length: np.ndarray

    @classmethod
    def of(cls, draw: Draw) -> _Pieces:
        if not draw.prompt_length.any():
            return cls(draw.number, draw.start, draw.length)
        pairs = (
            (draw.prompt_number, draw.number), (draw.prompt_start, draw.start), (draw.prompt_length, draw.length),
        )  # fmt: skip
        number, start, length = (np.stack(pair, axis=1).reshape(-1) for pair in pairs)
        there = length > 0
        return cls(number[there], start[there], length[there])


class _Cells:
    """Where each of the T steps stands: the how-manieth of the task's rows, and the how-manieth
    step in it."""

    def __init__(self, of: _Rows, draw: Draw, fit: int) -> None:
        """`fit`: steps that fit in a row."""
        self.fit = fit
        self._num_rows = len(of.row)
        self._steps_R = np.add.reduceat(draw.prompt_length + draw.length, of.first)

    @cached_property
    def row_T(self) -> np.ndarray:
        return np.repeat(np.arange(self._num_rows), self._steps_R)

    @cached_property
    def col_T(self) -> np.ndarray:
        steps_R = self._steps_R
        return np.arange(len(self.row_T)) - np.repeat(np.cumsum(steps_R) - steps_R, steps_R)

    def spread(self, ids_TS: np.ndarray) -> np.ndarray:
        """Ids by row; zeros where no step stands."""
        S = ids_TS.shape[1]
        if len(ids_TS) == self._num_rows * self.fit:
            return ids_TS.reshape(self._num_rows, self.fit * S)
        out = np.zeros((self._num_rows * self.fit, S), np.int32)
        out[self.row_T * self.fit + self.col_T] = ids_TS
        return out.reshape(self._num_rows, self.fit * S)


_NO_PATCHES = {
    "patches": np.zeros((0, PATCH, PATCH, 3), np.uint8),
    "patch_at": np.zeros(0, np.int64),
    "patch_intervals": np.zeros((0, 4), np.int32),
    "patch_leaders": np.zeros((0, 2), np.int64),
}


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
