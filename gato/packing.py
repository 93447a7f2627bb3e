"""Packing: windows of steps laid one after another into the rows of one batch.

Shape letters: T steps, S tokens in a step, m patches in a step, L tokens in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gato.sequence import PATCH, Batch, StepLayout, Window


class RowWriter:
    """Packs windows into the rows of one batch.

    writer = RowWriter(num_rows=2, row_tokens=48)
    steps = StepLayout(hopper, layout)
    writer.write_row(0, task_index=0, steps=steps, windows=[window_a, window_b])
    batch = writer.batch()
    """

    def __init__(self, *, num_rows: int, row_tokens: int, loss_on_prompt: bool = True) -> None:
        shape = (num_rows, row_tokens)
        self._row_tokens = row_tokens
        self._loss_on_prompt = loss_on_prompt
        self._ids = np.zeros(shape, np.int32)
        self._place = np.zeros(shape, np.int32)
        self._segment = np.zeros(shape, np.int32)
        self._is_target = np.zeros(shape, np.bool_)
        self._task_index = np.zeros(num_rows, np.int64)
        self._patches: list[np.ndarray] = []
        self._patch_at: list[np.ndarray] = []
        self._intervals: list[np.ndarray] = []
        self._leaders: list[np.ndarray] = []
        self._num_patches = 0

    def write_row(
        self, row: int, *, task_index: int, steps: StepLayout, windows: Sequence[Window]
    ) -> None:
        """Lay the windows one after another into `row`. Raises ValueError if they do not fit."""
        self.write_rows([row], task_index=task_index, steps=steps, windows=[windows])

    def write_rows(
        self,
        rows: Sequence[int],
        *,
        task_index: int,
        steps: StepLayout,
        windows: Sequence[Sequence[Window]],
    ) -> None:
        """Lay windows of one task into many rows at once.

        Args:
            rows: Rows that are still empty.
            task_index: Which task they are of, an index into the mixture's tasks.
            steps: The task's order of tokens.
            windows: `windows[i]` go one after another into `rows[i]`.

        Raises:
            ValueError: If the windows of a row have more tokens than a row.
        """
        flat = [window for in_row in windows for window in in_row]
        if not flat:
            return
        S, L = steps.tokens_per_step, self._row_tokens
        num_steps = [sum(len(window.actions) for window in in_row) for in_row in windows]
        if max(num_steps) * S > L:
            raise ValueError(
                f"{max(num_steps)} steps of {steps.task.name} take {max(num_steps) * S} tokens, a"
                f" row has {L}"
            )
        # All windows as T steps one after another; for each step its row, its index in the row, its
        # segment (1, 2, ... in each row) and whether it belongs to a prompt.
        row_T = np.repeat(np.asarray(rows), num_steps)
        in_row_T = np.concatenate([np.arange(count) for count in num_steps])
        lengths = [len(window.actions) for window in flat]
        segments = np.concatenate([np.arange(1, len(in_row) + 1) for in_row in windows])
        segment_T = np.repeat(segments, lengths)
        in_window_T = np.concatenate([np.arange(length) for length in lengths])
        in_prompt_T = in_window_T < np.repeat([window.prompt_steps for window in flat], lengths)
        # Where the tokens go, as indices into the rows laid flat: one write for all of them.
        start_T = row_T * L + in_row_T * S
        at_TS = start_T[:, None] + np.arange(S)
        observations = {
            key: np.concatenate([w.observations[key] for w in flat])
            for key in steps.task.observations
        }
        # A window that does not tell its returns has NaN, which becomes the separator's id.
        returns = [
            np.full(len(w.actions), np.nan) if w.returns is None else w.returns for w in flat
        ]
        actions = np.concatenate([w.actions for w in flat])
        ids_TS = steps.step_ids(observations, actions, np.concatenate(returns))
        self._ids.reshape(-1)[at_TS] = ids_TS
        self._place.reshape(-1)[at_TS] = steps.place_S
        self._segment.reshape(-1)[at_TS] = segment_T[:, None]
        has_loss_T = np.ones_like(in_prompt_T) if self._loss_on_prompt else ~in_prompt_T
        is_target_TS = steps.is_target(ids_TS) & has_loss_T[:, None]
        # A window's first token has nothing before it in its segment to be predicted from.
        is_target_TS[in_window_T == 0, 0] = False
        self._is_target.reshape(-1)[at_TS] = is_target_TS
        self._task_index[np.asarray(rows)] = task_index
        if steps.num_patches:
            patches = steps.patches(observations).reshape(-1, PATCH, PATCH, 3)
            self._patches.append(patches)
            self._patch_at.append((start_T[:, None] + steps.patch_at_m).reshape(-1))
            self._intervals.append(np.tile(steps.intervals_m4, (len(start_T), 1)))
            # Leaders are counted within a step [m, 2]; here they are indices into all patches so
            # far.
            first = self._num_patches + np.arange(len(start_T))[:, None, None] * steps.num_patches
            self._leaders.append((first + steps.leaders_m2).reshape(-1, 2))
            self._num_patches += len(patches)

    def batch(self) -> Batch:
        """The batch as written so far; rows without windows are padding."""
        return Batch(
            ids=self._ids,
            place=self._place,
            segment=self._segment,
            is_target=self._is_target,
            patches=(
                np.concatenate(self._patches)
                if self._patches
                else np.zeros((0, PATCH, PATCH, 3), np.uint8)
            ),
            patch_at=np.concatenate(self._patch_at) if self._patch_at else np.zeros(0, np.int64),
            patch_intervals=(
                np.concatenate(self._intervals) if self._intervals else np.zeros((0, 4), np.int32)
            ),
            patch_leaders=(
                np.concatenate(self._leaders) if self._leaders else np.zeros((0, 2), np.int64)
            ),
            task_index=self._task_index,
        )
