"""Timesteps laid flat: the order of tokens inside a step, and the windows and batches made of them.

Shape letters: T steps, S tokens in a step, k text tokens, m patches and n other values in a step,
B rows, L tokens in a row, P patches in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped, UInt8

from gato.array_spec import ArraySpec, Kind
from gato.task import Task
from gato.tokenizer import TokenLayout, encode

PATCH = 16
"""Side of a patch in pixels (paper section 2.1)."""
INTERVALS = 128
"""Vocabulary of the quantised patch intervals (paper appendix C.3)."""
PLACE_SEPARATOR = 0
PLACE_ACTION = 1
FIRST_PLACE = 2
"""`place` of a token: 0 separator, 1 action (all share one), 2 + i the i-th token of its step's
observation."""


class StepLayout:
    """The order of one timestep's tokens: the return-to-go if there is one, text, images (raster
    order of patches), tensors, separator, action.

    Keys are in lexicographic order within each modality (paper section 2.2). A step has S = k + m +
    n + 1 + A tokens, and one more with a return-to-go. A task that writes text shows its image
    first, then the question (section 2.1: an image, then text).
    """

    def __init__(self, task: Task, layout: TokenLayout, *, loss_on_questions: bool = False) -> None:
        """`loss_on_questions`: whether the text that is shown is a target too, where a task writes
        text; that of other tasks always is.

        Raises ValueError if the task has text but the layout has no encoder, or if steps begin with
        a return-to-go but the task has no references to scale it by.
        """
        self.task = task
        self.layout = layout
        self.writes_text = task.writes_text
        self.is_text_target = loss_on_questions or not task.writes_text
        """Whether the loss counts the text that the task shows."""
        ordered = sorted(task.observations.items())
        self.texts: list[tuple[str, ArraySpec]] = [
            (k, s) for k, s in ordered if s.kind is Kind.TEXT
        ]
        self.images: list[tuple[str, ArraySpec]] = [
            (k, s) for k, s in ordered if s.kind is Kind.IMAGE
        ]
        self.tensors: list[tuple[str, ArraySpec]] = [
            (k, s) for k, s in ordered if s.kind not in (Kind.TEXT, Kind.IMAGE)
        ]
        if (self.texts or self.writes_text) and layout.text is None:
            which = f"shows text ({self.texts[0][0]!r})" if self.texts else "writes text"
            raise ValueError(
                f"task {task.name} {which} but there is no encoder for"
                " it; give TokenLayout(text=...) a SentencePiece model or a ByteEncoder()"
            )
        if layout.return_place is not None and task.references is None:
            raise ValueError(
                f"task {task.name} has no reference returns, by which returns-to-go are scaled;"
                " give it references, or train with model.return_conditioned=false"
            )
        self.num_return_tokens = int(layout.return_place is not None)
        self.num_text_tokens = sum(spec.num_tokens for _, spec in self.texts)
        self.num_patches = sum(rows * cols for rows, cols in self.grids)
        self.num_observation_tokens = (
            self.num_text_tokens
            + self.num_patches
            + sum(spec.num_tokens for _, spec in self.tensors)
        )
        self.num_action_tokens = task.action.num_tokens
        self.first_patch = 0 if self.writes_text else self.num_text_tokens
        """Where the patches begin among the tokens of an observation."""
        first_text = self.num_return_tokens + (self.num_patches if self.writes_text else 0)
        self.text_at = slice(first_text, first_text + self.num_text_tokens)
        """Where the text that is shown is among a step's tokens."""
        self.tokens_per_step = (
            self.num_return_tokens + self.num_observation_tokens + 1 + self.num_action_tokens
        )

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of patches of each image. An image whose size is not a multiple of 16 is
        padded with zeros."""
        return [(-(-spec.shape[0] // PATCH), -(-spec.shape[1] // PATCH)) for _, spec in self.images]

    @cached_property
    def place_S(self) -> Integer[np.ndarray, " S"]:
        """The place of each token of a step: a row of the table of local positions."""
        observation = np.arange(self.num_observation_tokens, dtype=np.int32) + FIRST_PLACE
        before = [] if self.layout.return_place is None else [self.layout.return_place]
        after = [PLACE_SEPARATOR] + [PLACE_ACTION] * self.num_action_tokens
        return np.concatenate([before, observation, after]).astype(np.int32)

    @cached_property
    def patch_at_m(self) -> Integer[np.ndarray, " m"]:
        """The indices of a step's patches among its tokens."""
        return self.num_return_tokens + self.first_patch + np.arange(self.num_patches)

    def is_target(self, ids_TS: Integer[np.ndarray, "T S"]) -> Bool[np.ndarray, "T S"]:
        """Which tokens the loss counts: text and actions (paper equation 2), but not other
        observations, separators or padding. Of padding behind a text that the task writes the first
        one counts: it ends the text."""
        out = np.broadcast_to(self.place_S == PLACE_ACTION, ids_TS.shape).copy()
        if self.texts and self.is_text_target:
            out[:, self.text_at] = ids_TS[:, self.text_at] != self.layout.encoder.pad_id
        if self.writes_text:
            is_pad = ids_TS[:, -self.num_action_tokens :] == self.layout.encoder.pad_id
            out[:, -self.num_action_tokens :] = np.cumsum(is_pad, axis=1) - is_pad == 0
        return out

    @cached_property
    def intervals_m4(self) -> Integer[np.ndarray, "m 4"]:
        """Quantised interval [row_low, row_high), [col_low, col_high) of each patch in one step
        (appendix C.3)."""
        out: list[np.ndarray] = []
        for rows, cols in self.grids:
            row, col = np.divmod(np.arange(rows * cols), cols)
            edges = [
                row * INTERVALS // rows,
                (row + 1) * INTERVALS // rows,
                col * INTERVALS // cols,
                (col + 1) * INTERVALS // cols,
            ]
            out.append(np.stack(edges, axis=1))
        return np.concatenate(out).astype(np.int32) if out else np.zeros((0, 4), np.int32)

    @cached_property
    def leaders_m2(self) -> Integer[np.ndarray, "m 2"]:
        """For each patch of a step, the first patch in its row and in its column. In training, the
        patches of a row share one random row position, those of a column one column position."""
        out: list[np.ndarray] = []
        start = 0
        for rows, cols in self.grids:
            row, col = np.divmod(np.arange(rows * cols), cols)
            out.append(np.stack([start + row * cols, start + col], axis=1))
            start += rows * cols
        return np.concatenate(out).astype(np.int32) if out else np.zeros((0, 2), np.int32)

    def patches(
        self, observations: Mapping[str, Shaped[np.ndarray, "T ..."]]
    ) -> UInt8[np.ndarray, "T m 16 16 3"]:
        """Patches of T steps, in raster order within each image, image after image."""
        out: list[np.ndarray] = []
        for (key, _), (rows, cols) in zip(self.images, self.grids, strict=True):
            image = observations[key]
            high, wide = rows * PATCH - image.shape[1], cols * PATCH - image.shape[2]
            if high or wide:
                image = np.pad(image, ((0, 0), (0, high), (0, wide), (0, 0)))
            tiles = image.reshape(len(image), rows, PATCH, cols, PATCH, 3).transpose(
                0, 1, 3, 2, 4, 5
            )
            out.append(tiles.reshape(len(image), rows * cols, PATCH, PATCH, 3))
        return np.concatenate(out, axis=1) if len(out) != 1 else out[0]

    def _return_ids(self, returns: Float[np.ndarray, " T"]) -> Integer[np.ndarray, "T 1"]:
        """Ids of returns-to-go: normalised by the task's references, then encoded like an unbounded
        value. NaN becomes the separator's id."""
        references = self.task.references
        assert references is not None  # __init__ rejects a task without
        normalised = (np.nan_to_num(returns) - references.random) / (
            references.expert - references.random
        )
        ids = encode(normalised, ArraySpec(kind=Kind.CONTINUOUS, shape=()), self.layout)
        return np.where(np.isnan(returns)[:, None], np.int32(self.layout.separator), ids)

    def observation_ids(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "T ..."]],
        returns: Float[np.ndarray, " T"] | None = None,
        *,
        num_steps: int | None = None,
    ) -> Integer[np.ndarray, "T n"]:
        """Ids of T observations, each with its separator.

        Args:
            observations: By name, each [T, *shape].
            returns: The return-to-go of each step, for a layout that has one. None or NaN: the
                model is not told it.
            num_steps: T; needed for a task that shows nothing.

        Returns:
            Ids [T, k + m + n + 1], one more with a return-to-go. A patch's id is 0 and is never
            looked up.
        """
        if num_steps is None:
            num_steps = len(next(iter(observations.values())))
        parts: list[np.ndarray] = []
        if self.num_return_tokens:
            parts.append(
                self._return_ids(np.full(num_steps, np.nan) if returns is None else returns)
            )
        shown = [encode(observations[key], spec, self.layout) for key, spec in self.texts]
        patches = [np.zeros((num_steps, self.num_patches), np.int32)]
        parts += patches + shown if self.writes_text else shown + patches
        parts += [encode(observations[key], spec, self.layout) for key, spec in self.tensors]
        parts.append(np.full((num_steps, 1), self.layout.separator, np.int32))
        return np.concatenate(parts, axis=1)

    def step_ids(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "T ..."]],
        actions: Shaped[np.ndarray, "T ..."],
        returns: Float[np.ndarray, " T"] | None = None,
    ) -> Integer[np.ndarray, "T S"]:
        """Ids [T, S] of T whole steps: `observation_ids`, then the action's."""
        return np.concatenate(
            [
                self.observation_ids(observations, returns, num_steps=len(actions)),
                encode(actions, self.task.action, self.layout, is_action=True),
            ],
            axis=1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """B rows of L tokens. Several windows may be packed into a row; they have different segments
    (0 is padding), so that they do not attend to each other."""

    ids: Integer[np.ndarray, "B L"]
    place: Integer[np.ndarray, "B L"]
    """Row of the table of local positions; see `FIRST_PLACE`."""
    segment: Integer[np.ndarray, "B L"]
    is_target: Bool[np.ndarray, "B L"]
    """Whether the token is to be predicted, from the position before it."""
    patches: UInt8[np.ndarray, "P 16 16 3"]
    patch_at: Integer[np.ndarray, " P"]
    """The token of each patch: row * L + position."""
    patch_intervals: Integer[np.ndarray, "P 4"]
    patch_leaders: Integer[np.ndarray, "P 2"]
    task_index: Int[np.ndarray, " B"]
    """The task of each row: an index into the mixture's list of tasks."""
    episode_keys: tuple[str, ...] = ()
    """Of the episodes that its windows are of, each once; empty if its source does not tell."""

    @property
    def num_tokens(self) -> int:
        """Tokens that are not padding."""
        return int(np.count_nonzero(self.segment))

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by the name of their field."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "episode_keys"}

    def split(self, num_rows: int, *, own_leaders: bool = True) -> list[Batch]:
        """The batch in parts of `num_rows` rows, the last perhaps fewer. Rows are views.

        `own_leaders`: whether leaders count the patches of a part. If not they stay as they are.
        """
        return [
            self._rows(begin, min(begin + num_rows, len(self.ids)), own_leaders=own_leaders)
            for begin in range(0, len(self.ids), num_rows)
        ]

    def _rows(self, begin: int, end: int, *, own_leaders: bool) -> Batch:
        row_tokens = self.ids.shape[1]
        row_of_patch = self.patch_at // row_tokens
        mine = np.flatnonzero((row_of_patch >= begin) & (row_of_patch < end))
        leaders = self.patch_leaders[mine]
        if own_leaders:  # a patch's leaders are of its own image, hence of its row
            index = np.zeros(len(self.patch_at), leaders.dtype)
            index[mine] = np.arange(len(mine))
            leaders = index[leaders]
        return Batch(
            ids=self.ids[begin:end],
            place=self.place[begin:end],
            segment=self.segment[begin:end],
            is_target=self.is_target[begin:end],
            patches=self.patches[mine],
            patch_at=self.patch_at[mine] - begin * row_tokens,
            patch_intervals=self.patch_intervals[mine],
            patch_leaders=leaders,
            task_index=self.task_index[begin:end],
            episode_keys=self.episode_keys,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Whole steps of one episode, perhaps after a prompt's steps: one sequence for packing."""

    observations: Mapping[str, Shaped[np.ndarray, "T ..."]]
    actions: Shaped[np.ndarray, "T ..."]
    prompt_steps: int = 0
    """How many of the first steps are the prompt."""
    returns: Float[np.ndarray, " T"] | None = None
    """Return-to-go of each step: the sum of rewards from it to its episode's end. None or NaN: the
    model is not told it."""
