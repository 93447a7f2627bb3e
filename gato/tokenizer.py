"""Values to token ids and back (paper section 2.1 and appendix B), vectorised over whole arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from gato.task import MAX_VALUES, ArraySpec, Kind
from gato.text import TextEncoder, encode_texts

MU = 100.0
M = 256.0
"""The mu-law's constants, paper appendix B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Which ids mean what: text and discrete values from 0, continuous values after the text, then the separator.

    The defaults are the paper's: 32,000 text ids, 1,024 uniform bins in [32000, 33024). A run without text may set
    `num_text_ids=1024`, which keeps the discrete values [0, 1024) and saves 31,000 rows of the embedding table.
    The separator's id (33024 by default) is our choice: the paper names none.
    """

    num_text_ids: int = 32_000
    num_bins: int = 1024
    text: TextEncoder | None = None
    """What turns text into ids; None for tasks without text."""
    return_place: int | None = None
    """Row of the table of places that the return-to-go has, which then begins each step. None: steps have none."""

    def __post_init__(self) -> None:
        if self.num_text_ids < MAX_VALUES:
            raise ValueError(
                f"num_text_ids {self.num_text_ids} must be at least {MAX_VALUES}, the range of discrete values"
            )
        if self.text is not None and self.text.vocab_size > self.num_text_ids:
            raise ValueError(
                f"the text encoder has {self.text.vocab_size} ids, the layout room for {self.num_text_ids}; raise "
                "num_text_ids or train an encoder with a smaller vocabulary"
            )
        if self.num_bins < 2:
            raise ValueError(f"num_bins {self.num_bins} must be at least 2")

    @property
    def encoder(self) -> TextEncoder:
        """What turns text into ids. ValueError where there is none."""
        if self.text is None:
            raise ValueError("there is text to encode but no encoder; give TokenLayout(text=...) a SentencePiece model")
        return self.text

    @property
    def first_bin(self) -> int:
        return self.num_text_ids

    @property
    def separator(self) -> int:
        return self.num_text_ids + self.num_bins

    @property
    def vocab_size(self) -> int:
        return self.separator + 1

    def ids_of(self, spec: ArraySpec, element: int | None = None) -> tuple[int, int]:
        """The half-open range of ids that one element of an array of `spec` may take. None: that any of them may."""
        if spec.kind is Kind.DISCRETE:
            return 0, int(spec.counts.max() if element is None else spec.counts[element])
        if spec.kind is Kind.TEXT:
            return 0, self.num_text_ids
        return self.first_bin, self.first_bin + self.num_bins


def mu_law(x: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """F(x) = sgn(x) log(|x| mu + 1) / log(M mu + 1), which maps [-256, 256] to [-1, 1] (paper appendix B)."""
    return np.sign(x) * np.log1p(np.abs(x) * MU) / np.log1p(M * MU)


def inverse_mu_law(y: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """The inverse of `mu_law`."""
    return np.sign(y) * np.expm1(np.abs(y) * np.log1p(M * MU)) / MU


def scale(x: Float[np.ndarray, "*T n"], spec: ArraySpec) -> Float[np.ndarray, "*T n"]:
    """Elements of a continuous array on the scale [-1, 1]: by their bounds where those are finite, else companded."""
    if spec.bounds is None:
        return mu_law(x)
    low, width, bounded = _ranges(*spec.bounds)
    scaled = (x - low.astype(x.dtype)) * (2.0 / width).astype(x.dtype) - 1.0
    return scaled if bounded.all() else np.where(bounded, scaled, mu_law(x))


def unscale(y: Float[np.ndarray, "*T n"], spec: ArraySpec) -> Float[np.ndarray, "*T n"]:
    """The inverse of `scale`."""
    if spec.bounds is None:
        return inverse_mu_law(y)
    low, width, bounded = _ranges(*spec.bounds)
    plain = (y + 1.0) * (width / 2.0).astype(y.dtype) + low.astype(y.dtype)
    return plain if bounded.all() else np.where(bounded, plain, inverse_mu_law(y))


def _ranges(
    low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Low and width of each element, and whether both are finite; where they are not, numbers that do no harm."""
    bounded = np.isfinite(low) & np.isfinite(high)
    low = np.where(bounded, low, 0.0)
    return low, np.where(bounded, high, 1.0) - low, bounded


def bins(y: Float[np.ndarray, ...], num_bins: int) -> Integer[np.ndarray, ...]:
    """Index of the uniform bin of [-1, 1] that holds y; y is clipped, and +1 belongs to the last bin."""
    return np.minimum(((np.clip(y, -1.0, 1.0) + 1.0) * (num_bins / 2)).astype(np.int32), num_bins - 1)


def bin_centres(num_bins: int) -> Float[np.ndarray, " bins"]:
    """Centres of the uniform bins of [-1, 1]; decoding to them errs by at most 1 / num_bins."""
    return ((np.arange(num_bins) + 0.5) * (2.0 / num_bins) - 1.0).astype(np.float32)


def encode(values: Shaped[np.ndarray, "T ..."], spec: ArraySpec, layout: TokenLayout) -> Integer[np.ndarray, "T n"]:
    """Token ids [T, n] of T steps of an array, each step flattened row-major."""
    flat = values.reshape(len(values), spec.size)
    if spec.kind is Kind.DISCRETE:
        return flat.astype(np.int32)
    if spec.kind is Kind.CONTINUOUS:
        return bins(scale(flat.astype(np.float32), spec), layout.num_bins) + np.int32(layout.first_bin)
    if spec.kind is Kind.TEXT:
        return encode_texts(values, layout.encoder, spec.num_tokens)
    raise ValueError("images become patches, not token ids; see gato.sequence")


def decode(ids: Integer[np.ndarray, "T n"], spec: ArraySpec, layout: TokenLayout) -> Shaped[np.ndarray, "T ..."]:
    """Values [T, *shape] of token ids [T, n]; a continuous one is its bin's centre. ValueError for ids outside."""
    if spec.kind not in (Kind.DISCRETE, Kind.CONTINUOUS):
        raise ValueError(f"ids of {spec.kind} are not decoded; only actions are, which are discrete or continuous")
    if ids.shape[1:] != (spec.size,):
        raise ValueError(f"ids have shape {ids.shape}, an array of shape {spec.shape} has {spec.size} a step")
    low, high = layout.ids_of(spec)
    highest = spec.counts if spec.kind is Kind.DISCRETE else high
    if ids.size and ((ids < low) | (ids >= highest)).any():
        raise ValueError(f"ids {ids.min()}..{ids.max()} outside [{low}, {high}), the range of this {spec.kind} array")
    if spec.kind is Kind.DISCRETE:
        return ids.astype(np.int64).reshape(len(ids), *spec.shape)
    centres = bin_centres(layout.num_bins)[ids - layout.first_bin]
    return unscale(centres, spec).astype(np.float32).reshape(len(ids), *spec.shape)
