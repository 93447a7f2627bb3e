"""Templates: place, segment and target of each position in a row, which depend only on the lengths
of its windows.

Shape letters: R rows, W windows, T steps, S tokens in a step, L tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Int64

from gato.sequence import PLACE_ACTION, StepLayout
from replay.sampling.window_draw import WindowDraw

MAX_TEMPLATES = 4096
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
"""Odd multipliers, so that multiplying modulo 2^64 loses no bit."""


@dataclass(frozen=True, slots=True)
class Template:
    """One row's columns that do not depend on what is in the windows."""

    place: Int32[np.ndarray, " L"]
    segment: Int32[np.ndarray, " L"]
    is_target: Bool[np.ndarray, " L"]


class Rows:
    """The R rows that a draw fills, in order."""

    def __init__(self, draw: WindowDraw) -> None:
        new_W = np.empty(len(draw.row), np.bool_)
        new_W[:1] = True
        np.not_equal(draw.row[1:], draw.row[:-1], out=new_W[1:])
        self.first = np.flatnonzero(new_W)
        """First window of each row."""
        self.row = draw.row[self.first]
        """Index of each row in the batch."""
        self.count = np.append(self.first[1:], len(draw.row)) - self.first
        """Number of windows of each row."""


class Templates:
    """Writes the templates of rows into a batch; rows with equal lengths share a template."""

    def __init__(
        self, layouts: Sequence[StepLayout], *, row_tokens: int, loss_on_prompt: bool
    ) -> None:
        self._layouts = layouts
        self._row_tokens = row_tokens
        self._loss_on_prompt = loss_on_prompt
        self._known: dict[tuple[int, bytes], Template] = {}
        """By task and the bytes of the lengths of a row's windows."""

    def write(
        self,
        task: int,
        rows: Rows,
        draw: WindowDraw,
        at: slice | Int64[np.ndarray, " R"],
        out: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> None:
        """Fill the rows `at` of place, segment and is_target (`out`, each [B, L])."""
        lengths_W2 = np.stack([draw.prompt_length, draw.length], axis=1).astype(np.int32)
        first_K, count_K, kind_R = equal_rows(rows, lengths_W2)
        templates = [
            self._template(task, lengths_W2[first : first + count].tobytes())
            for first, count in zip(first_K.tolist(), count_K.tolist(), strict=True)
        ]
        for array, column in zip(out, ("place", "segment", "is_target"), strict=True):
            values = [getattr(template, column) for template in templates]
            if len(values) == 1:
                array[at] = values[0]
            elif isinstance(at, slice):  # all rows: straight into the batch, without a copy between
                np.take(np.stack(values), kind_R, axis=0, out=array, mode="clip")
            else:
                array[at] = np.take(np.stack(values), kind_R, axis=0)

    def _template(self, task: int, key: bytes) -> Template:
        template = self._known.get((task, key))
        if template is None:
            if len(self._known) >= MAX_TEMPLATES:
                self._known.clear()
            lengths_W2 = np.frombuffer(key, np.int32).reshape(-1, 2)
            template = make_template(
                self._layouts[task], lengths_W2, self._row_tokens, self._loss_on_prompt
            )
            self._known[task, key] = template
        return template


def equal_rows(
    rows: Rows, lengths_W2: Int32[np.ndarray, "W 2"]
) -> tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"], Int64[np.ndarray, " R"]]:
    """Group rows whose windows have the same lengths (prompt, window) in the same order.

    Returns:
        First window and number of windows of one row of each of the K kinds; the kind of each row.
    """
    first_R, count_R = rows.first, rows.count
    # The common cases first: all rows equal, or one window in each row.
    if (count_R == count_R[0]).all():
        by_row = lengths_W2.reshape(len(first_R), -1)
        if (by_row == by_row[0]).all():
            return first_R[:1], count_R[:1], np.zeros(len(first_R), np.int64)
        if count_R[0] == 1:
            lengths_R = lengths_W2[:, 0].astype(np.int64) << 32 | lengths_W2[:, 1]
            _, one_of, kind_R = np.unique(lengths_R, return_index=True, return_inverse=True)
            return one_of, count_R[: len(one_of)], kind_R
    # Rows with different numbers of windows: a hash of the lengths (a polynomial modulo 2^64, whose
    # powers count windows within the row) gives each row one number. The assertions hold unless two
    # different rows collide.
    nth_W = np.arange(len(lengths_W2)) - np.repeat(first_R, count_R)
    hash_W = (lengths_W2.astype(np.uint64) @ _ODD[:2] + np.uint64(1)) * (
        _ODD[2] ** (nth_W + 1).astype(np.uint64)
    )
    _, one_of, kind_R = np.unique(
        np.add.reduceat(hash_W, first_R), return_index=True, return_inverse=True
    )
    same_W = np.repeat(first_R[one_of[kind_R]], count_R) + nth_W
    assert (count_R == count_R[one_of[kind_R]]).all()
    assert (lengths_W2 == lengths_W2[same_W]).all()
    return first_R[one_of], count_R[one_of], kind_R


def make_template(
    layout: StepLayout,
    lengths_W2: Int32[np.ndarray, "W 2"],
    row_tokens: int,
    loss_on_prompt: bool,
) -> Template:
    """The template of a row of W windows, each a prompt followed by its window, packed from the
    left. Each window is a segment of its own, counted from 1; 0 is padding."""
    S = layout.tokens_per_step
    lengths_W = lengths_W2.sum(axis=1)
    segment_T = np.repeat(np.arange(1, len(lengths_W) + 1, dtype=np.int32), lengths_W)
    in_window_T = np.concatenate([np.arange(length) for length in lengths_W])
    in_prompt_T = in_window_T < np.repeat(lengths_W2[:, 0], lengths_W)
    target_S = layout.place_S == PLACE_ACTION
    target_S[layout.text_at] = layout.is_text_target  # except padding, which the ids tell
    target_TS = np.repeat(target_S[None], len(segment_T), axis=0)
    if not loss_on_prompt:
        target_TS &= ~in_prompt_T[:, None]
    # The first token of a segment has no predecessor to be predicted from.
    target_TS[in_window_T == 0, 0] = False
    template = Template(
        np.zeros(row_tokens, np.int32),
        np.zeros(row_tokens, np.int32),
        np.zeros(row_tokens, np.bool_),
    )
    used = len(segment_T) * S
    template.place[:used] = np.tile(layout.place_S, len(segment_T))
    template.segment[:used] = np.repeat(segment_T, S)
    template.is_target[:used] = target_TS.reshape(-1)
    return template
