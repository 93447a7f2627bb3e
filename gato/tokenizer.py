"""Values to token ids and back (paper section 2.1 and appendix B), vectorised over whole arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from gato.array_spec import MAX_VALUES, ArraySpec, Kind
from gato.text import TextEncoder, encode_texts

MU = 100.0
M = 256.0
"""The mu-law's constants, paper appendix B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Which ids mean what: text from 0, then the bins of continuous values, then what has a range
    of its own, the separator.

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
    """shared: continuous actions have the bins of observations, as in the paper. own: bins of their
    own behind them."""
    separator_id: int | None = None
    """None: an id of its own, the last (33024 by default); the paper names none. A number: that
    text id, such as the one of the vocabulary's piece "|", so that the table has the paper's 33,024
    rows."""
    compand_actions: bool = False
    """Whether the mu-law also goes over continuous actions, once scaled to [-1, 1]; in the paper it
    does not."""
    text: TextEncoder | None = None
    """What turns text into ids; None for tasks without text."""
    return_place: int | None = None
    """Row of the table of places that the return-to-go has, which then begins each step. None:
    steps have none."""

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
                f"separator_id {self.separator_id} is no text id in [0, {self.num_text_ids}); leave"
                " it out for one of its own"
            )

    @property
    def encoder(self) -> TextEncoder:
        """What turns text into ids. ValueError where there is none."""
        if self.text is None:
            raise ValueError(
                "there is text to encode but no encoder; give TokenLayout(text=...) a SentencePiece"
                " model"
            )
        return self.text

    @property
    def first_bin(self) -> int:
        return self.num_text_ids

    @property
    def num_bin_ranges(self) -> int:
        """How many ranges of `num_bins` ids stand one behind the other from `first_bin` on."""
        return 2 if self.actions == "own" else 1

    @property
    def first_action_bin(self) -> int:
        return self.first_bin + self.num_bins * (self.num_bin_ranges - 1)

    @property
    def end_of_bins(self) -> int:
        """The first id behind all bins."""
        return self.first_bin + self.num_bins * self.num_bin_ranges

    @property
    def first_discrete(self) -> int:
        return 0 if self.discrete == "text" else self.end_of_bins

    @property
    def _num_values(self) -> int:
        """Ids of text and values, the separator left out."""
        return self.end_of_bins + (MAX_VALUES if self.discrete == "own" else 0)

    @property
    def separator(self) -> int:
        return self._num_values if self.separator_id is None else self.separator_id

    @property
    def vocab_size(self) -> int:
        return self._num_values + (self.separator_id is None)

    @property
    def action_bins(self) -> tuple[int, int]:
        """The half-open range of bins that a continuous action may fill: all; of companded ones
        those of -F(1) to F(1)."""
        if not self.compand_actions:
            return 0, self.num_bins
        low, high = bins(mu_law(np.array([-1.0, 1.0])), self.num_bins).tolist()
        return low, high + 1

    def ids_of(
        self, spec: ArraySpec, element: int | None = None, *, is_action: bool = False
    ) -> tuple[int, int]:
        """The half-open range of ids that one element of an array of `spec` may take. None: that
        any of them may."""
        if spec.kind is Kind.DISCRETE:
            count = int(spec.counts.max() if element is None else spec.counts[element])
            return self.first_discrete, self.first_discrete + count
        if spec.kind is Kind.TEXT:
            return 0, self.num_text_ids
        if is_action:
            low, high = self.action_bins
            return self.first_action_bin + low, self.first_action_bin + high
        return self.first_bin, self.first_bin + self.num_bins


def mu_law(x: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """F(x) = sgn(x) log(|x| mu + 1) / log(M mu + 1), which maps [-256, 256] to [-1, 1] (paper
    appendix B)."""
    # NumPy's log is several times faster than its log1p; what it loses near 0 is far below a bin.
    return np.copysign(np.log(np.abs(x) * MU + 1.0) * (1.0 / math.log1p(M * MU)), x)


def inverse_mu_law(y: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """The inverse of `mu_law`."""
    return np.sign(y) * np.expm1(np.abs(y) * math.log1p(M * MU)) / MU


def scale(x: Float[np.ndarray, "*T n"], spec: ArraySpec) -> Float[np.ndarray, "*T n"]:
    """Elements of a continuous array on the scale [-1, 1]: by statistics where there are any, by
    their bounds where those are finite, else companded. An element whose bounds are equal has the
    scale of width 1 that begins there."""
    if spec.mean is not None and spec.std is not None:
        return mu_law((x - np.array(spec.mean, x.dtype)) / np.array(spec.std, x.dtype))
    if spec.bounds is None:
        return mu_law(x)
    low, width, bounded = _ranges(*spec.bounds)
    width = np.where(width == 0.0, 1.0, width)
    scaled = (x - low.astype(x.dtype)) * (2.0 / width).astype(x.dtype) - 1.0
    return scaled if bounded.all() else np.where(bounded, scaled, mu_law(x))


def unscale(y: Float[np.ndarray, "*T n"], spec: ArraySpec) -> Float[np.ndarray, "*T n"]:
    """The inverse of `scale`. An element whose bounds are equal is always that bound."""
    if spec.mean is not None and spec.std is not None:
        return inverse_mu_law(y) * np.array(spec.std, y.dtype) + np.array(spec.mean, y.dtype)
    if spec.bounds is None:
        return inverse_mu_law(y)
    low, width, bounded = _ranges(*spec.bounds)
    plain = (y + 1.0) * (width / 2.0).astype(y.dtype) + low.astype(y.dtype)
    return plain if bounded.all() else np.where(bounded, plain, inverse_mu_law(y))


def _ranges(
    low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Low and width of each element, and whether both are finite; where they are not, numbers that
    do no harm."""
    bounded = np.isfinite(low) & np.isfinite(high)
    low = np.where(bounded, low, 0.0)
    return low, np.where(bounded, high, 1.0) - low, bounded


def bins(y: Float[np.ndarray, ...], num_bins: int) -> Integer[np.ndarray, ...]:
    """Index of the uniform bin of [-1, 1] that holds y; y is clipped, and +1 belongs to the last
    bin."""
    return np.clip((y + 1.0) * (num_bins / 2), 0, num_bins - 1).astype(np.int32)


def bin_centres(num_bins: int) -> Float[np.ndarray, " bins"]:
    """Centres of the uniform bins of [-1, 1]; decoding to them errs by at most 1 / num_bins."""
    return ((np.arange(num_bins) + 0.5) * (2.0 / num_bins) - 1.0).astype(np.float32)


def bin_actions(y: Float[np.ndarray, ...], layout: TokenLayout) -> Integer[np.ndarray, ...]:
    """Index of each y in [-1, 1] among the ids that a continuous action may take; y is clipped."""
    y = np.clip(y, -1.0, 1.0)
    return bins(mu_law(y) if layout.compand_actions else y, layout.num_bins) - np.int32(
        layout.action_bins[0]
    )


def action_centres(layout: TokenLayout) -> Float[np.ndarray, " n"]:
    """Value in [-1, 1] of each of the n ids that a continuous action may take."""
    centres = bin_centres(layout.num_bins)[slice(*layout.action_bins)]
    return inverse_mu_law(centres).astype(np.float32) if layout.compand_actions else centres


def encode(
    values: Shaped[np.ndarray, "T ..."],
    spec: ArraySpec,
    layout: TokenLayout,
    *,
    is_action: bool = False,
) -> Integer[np.ndarray, "T n"]:
    """Token ids [T, n] of T steps of an array, each step flattened row-major. ValueError for
    discrete values outside."""
    if spec.kind is Kind.TEXT:
        return encode_texts(values, layout.encoder, spec.num_tokens)
    flat = values.reshape(len(values), spec.size)
    if spec.kind is Kind.DISCRETE:
        if ((flat < 0) | (flat >= spec.counts)).any():
            raise ValueError(
                f"discrete values {flat.min()}..{flat.max()}, expected them in [0,"
                f" {spec.counts.max()}); others would be ids of something else: mend the data, or"
                " the spec's num_values"
            )
        return flat.astype(np.int32) + np.int32(layout.first_discrete)
    if spec.kind is Kind.CONTINUOUS:
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
    """Values [T, *shape] of token ids [T, n]; a continuous one is its bin's centre. ValueError for
    ids outside."""
    if spec.kind not in (Kind.DISCRETE, Kind.CONTINUOUS):
        raise ValueError(
            f"ids of {spec.kind} are not decoded; only actions are, which are discrete or"
            " continuous"
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
            " array; decode with the layout that they were made with"
        )
    if spec.kind is Kind.DISCRETE:
        return (ids.astype(np.int64) - layout.first_discrete).reshape(len(ids), *spec.shape)
    centres = action_centres(layout) if is_action else bin_centres(layout.num_bins)
    return unscale(centres[ids - low], spec).astype(np.float32).reshape(len(ids), *spec.shape)
