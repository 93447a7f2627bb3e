"""Values to token ids and back (paper section 2.1 and appendix B), vectorised over whole arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer, Shaped

from gato.array_spec import MAX_VALUES, ArraySpec, Kind
from gato.scaling import bin_centres, bins, inverse_mu_law, mu_law, scale, unscale
from gato.text import TextEncoder, encode_texts


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Which ids mean what: text from 0, then the bins of continuous values, then ids with a range
    of their own, last the separator.

    The defaults are the paper's: 32,000 text ids, whose first 1,024 are also the discrete values,
    and 1,024 uniform bins in [32000, 33024) for observations and actions. A run without text may
    set `num_text_ids=1024`, which keeps the discrete values [0, 1024) and saves 31,000 rows of the
    embedding table. ADR 6 has the reasons.
    """

    num_text_ids: int = 32_000
    num_bins: int = 1024
    discrete: Literal["text", "own"] = "text"
    """text: integers share the ids [0, 1024) with text, as in the paper. own: 1,024 ids after the
    bins."""
    actions: Literal["shared", "own"] = "shared"
    """shared: continuous actions use the bins of observations, as in the paper. own: bins of their
    own after those."""
    separator_id: int | None = None
    """None: an id of its own, the last (33024 by default); the paper names none. A number: that
    text id, such as the one of the piece "|", so that the table has the paper's 33,024 rows."""
    compand_actions: bool = False
    """Whether continuous actions, scaled to [-1, 1], are also companded by the mu-law; in the paper
    they are not."""
    text: TextEncoder | None = None
    """Encodes text as ids; None for tasks without text."""
    return_place: int | None = None
    """Row of the table of places for the return-to-go, which then begins each step. None: steps
    have no return-to-go."""

    def __post_init__(self) -> None:
        if self.num_text_ids < MAX_VALUES and self.discrete == "text":
            raise ValueError(
                f"num_text_ids {self.num_text_ids} must be at least {MAX_VALUES}, the range of"
                " discrete values"
            )
        if self.num_text_ids < 0:
            raise ValueError(f"num_text_ids {self.num_text_ids} must be at least 0")
        if self.text is not None and self.text.vocab_size > self.num_text_ids:
            raise ValueError(
                f"the text encoder has {self.text.vocab_size} ids, the layout room for"
                f" {self.num_text_ids}; raise num_text_ids or train an encoder with a smaller"
                " vocabulary"
            )
        if self.num_bins < 2:
            raise ValueError(f"num_bins {self.num_bins} must be at least 2")
        if self.discrete not in ("text", "own"):
            raise ValueError(
                f"discrete {self.discrete!r} must be 'text' (ids shared with text) or 'own'"
            )
        if self.actions not in ("shared", "own"):
            raise ValueError(
                f"actions {self.actions!r} must be 'shared' (bins shared with observations) or"
                " 'own'"
            )
        if self.separator_id is not None and not 0 <= self.separator_id < self.num_text_ids:
            raise ValueError(
                f"separator_id {self.separator_id} is not a text id in [0, {self.num_text_ids});"
                " leave it out for an id of its own"
            )

    @property
    def encoder(self) -> TextEncoder:
        """The text encoder. Raises ValueError if there is none."""
        if self.text is None:
            raise ValueError(
                "there is text to encode but no encoder; give TokenLayout(text=...) a SentencePiece"
                " model"
            )
        return self.text

    @property
    def first_bin(self) -> int:
        """The first bin of observations; a text id before it."""
        return self.num_text_ids

    @property
    def num_bin_ranges(self) -> int:
        """How many ranges of `num_bins` ids follow each other from `first_bin` on."""
        return 2 if self.actions == "own" else 1

    @property
    def first_action_bin(self) -> int:
        """The first bin of continuous actions."""
        return self.first_bin + self.num_bins * (self.num_bin_ranges - 1)

    @property
    def end_of_bins(self) -> int:
        """The first id after all bins."""
        return self.first_bin + self.num_bins * self.num_bin_ranges

    @property
    def first_discrete(self) -> int:
        """The id of the discrete value 0."""
        return 0 if self.discrete == "text" else self.end_of_bins

    @property
    def _num_values(self) -> int:
        """Ids of text and values, without the separator."""
        return self.end_of_bins + (MAX_VALUES if self.discrete == "own" else 0)

    @property
    def separator(self) -> int:
        """The id between an observation and its action."""
        return self._num_values if self.separator_id is None else self.separator_id

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        return self._num_values + (self.separator_id is None)

    @property
    def action_bins(self) -> tuple[int, int]:
        """The half-open range of bins that a continuous action may fill: all, or those of F(-1) to
        F(1) if actions are companded."""
        if not self.compand_actions:
            return 0, self.num_bins
        low, high = bins(mu_law(np.array([-1.0, 1.0])), self.num_bins).tolist()
        return low, high + 1

    def ids_of(
        self, spec: ArraySpec, element: int | None = None, *, is_action: bool = False
    ) -> tuple[int, int]:
        """The half-open range of ids that an array of `spec` may have.

        Args:
            spec: Of an observation or an action; not an image.
            element: The element's row-major index; None: the range of all elements together.
            is_action: Whether continuous values use the bins of actions.
        """
        if spec.kind is Kind.DISCRETE:
            count = int(spec.counts.max() if element is None else spec.counts[element])
            return self.first_discrete, self.first_discrete + count
        if spec.kind is Kind.TEXT:
            return 0, self.num_text_ids
        if is_action:
            low, high = self.action_bins
            return self.first_action_bin + low, self.first_action_bin + high
        return self.first_bin, self.first_bin + self.num_bins


def bin_actions(y: Float[np.ndarray, ...], layout: TokenLayout) -> Integer[np.ndarray, ...]:
    """Index of each y in [-1, 1] among the ids that a continuous action may have; y is clipped."""
    y = np.clip(y, -1.0, 1.0)
    return bins(mu_law(y) if layout.compand_actions else y, layout.num_bins) - np.int32(
        layout.action_bins[0]
    )


def action_centres(layout: TokenLayout) -> Float[np.ndarray, " n"]:
    """Value in [-1, 1] of each of the n ids that a continuous action may have."""
    centres = bin_centres(layout.num_bins)[slice(*layout.action_bins)]
    return inverse_mu_law(centres).astype(np.float32) if layout.compand_actions else centres


def encode(
    values: Shaped[np.ndarray, "T ..."],
    spec: ArraySpec,
    layout: TokenLayout,
    *,
    is_action: bool = False,
) -> Integer[np.ndarray, "T n"]:
    """Token ids of T steps of an array.

    Args:
        values: [T, *shape], in the environment's own units.
        spec: Of a continuous, discrete or text array.
        layout: Which ids mean what.
        is_action: Whether continuous values use the bins of actions.

    Returns:
        Ids [T, n], each step flattened row-major; of a text, [T, max_tokens].

    Raises:
        ValueError: If discrete values are outside the spec, or the array is an image.
    """
    if spec.kind is Kind.TEXT:
        return encode_texts(values, layout.encoder, spec.num_tokens)
    flat = values.reshape(len(values), spec.size)
    if spec.kind is Kind.DISCRETE:
        if ((flat < 0) | (flat >= spec.counts)).any():
            raise ValueError(
                f"discrete values {flat.min()}..{flat.max()}, expected them in [0,"
                f" {spec.counts.max()}); others would be ids of something else: fix the data, or"
                " the spec's num_values"
            )
        return flat.astype(np.int32) + np.int32(layout.first_discrete)
    if spec.kind is Kind.CONTINUOUS:
        # float32 throughout, as episodes are stored: the same value always falls into the same bin.
        y = scale(flat.astype(np.float32), spec)
        index = bin_actions(y, layout) if is_action else bins(y, layout.num_bins)
        return index + np.int32(layout.ids_of(spec, is_action=is_action)[0])
    raise ValueError("images become patches, not token ids; see gato.sequence")


def decode(
    ids: Integer[np.ndarray, "T n"],
    spec: ArraySpec,
    layout: TokenLayout,
    *,
    is_action: bool = False,
) -> Shaped[np.ndarray, "T ..."]:
    """Values of token ids: the inverse of `encode`, up to half a bin.

    Args:
        ids: [T, n].
        spec: Of a continuous or discrete array.
        layout: The one that the ids were encoded with.
        is_action: Whether continuous values use the bins of actions.

    Returns:
        Values [T, *shape]; a continuous one is the centre of its bin.

    Raises:
        ValueError: If ids are outside the array's range, or of another shape or kind.
    """
    if spec.kind not in (Kind.DISCRETE, Kind.CONTINUOUS):
        raise ValueError(
            f"ids of {spec.kind} are not decoded; only discrete and continuous arrays are"
        )
    if ids.shape[1:] != (spec.size,):
        raise ValueError(
            f"ids have shape {ids.shape}, an array of shape {spec.shape} has {spec.size} a step"
        )
    low, high = layout.ids_of(spec, is_action=is_action)
    highest = low + spec.counts if spec.kind is Kind.DISCRETE else high
    if ids.size and ((ids < low) | (ids >= highest)).any():
        raise ValueError(
            f"ids {ids.min()}..{ids.max()} outside [{low}, {high}), the range of this {spec.kind}"
            " array; decode with the layout that they were encoded with"
        )
    if spec.kind is Kind.DISCRETE:
        return (ids.astype(np.int64) - layout.first_discrete).reshape(len(ids), *spec.shape)
    centres = action_centres(layout) if is_action else bin_centres(layout.num_bins)
    return unscale(centres[ids - low], spec).astype(np.float32).reshape(len(ids), *spec.shape)
