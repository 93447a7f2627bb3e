"""Continuous values on the scale [-1, 1], and its uniform bins.

Shape letters: T steps, n elements of an array.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Integer

from gato.array_spec import ArraySpec

MU = 100.0
M = 256.0
"""The mu-law's constants, paper appendix B."""


def mu_law(x: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """F(x) = sgn(x) log(|x| mu + 1) / log(M mu + 1), which maps [-256, 256] to [-1, 1] (paper
    appendix B)."""
    # NumPy's log is several times faster than its log1p; the error near 0 is far below a bin.
    return np.copysign(np.log(np.abs(x) * MU + 1.0) * (1.0 / math.log1p(M * MU)), x)


def inverse_mu_law(y: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """The inverse of `mu_law`."""
    return np.sign(y) * np.expm1(np.abs(y) * math.log1p(M * MU)) / MU


def scale(x: Float[np.ndarray, "*T n"], spec: ArraySpec) -> Float[np.ndarray, "*T n"]:
    """Elements of a continuous array on the scale [-1, 1], values outside it included.

    An array with statistics is normalised by them, then companded. Otherwise an element with finite
    bounds is scaled by its bounds, and any other element is companded. An element whose bounds are
    equal is scaled as if they were 1 apart.

    Args:
        x: Any number of steps, n elements each, row-major.
        spec: Of a continuous array with n elements.
    """
    if spec.mean is not None and spec.std is not None:
        return mu_law((x - np.array(spec.mean, x.dtype)) / np.array(spec.std, x.dtype))
    if spec.bounds is None:
        return mu_law(x)
    # Bounds are [n], or [1] if all elements share them; both broadcast over x.
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
    """Low and width of each element, and whether both bounds are finite. An element without finite
    bounds has low 0 and width 1: its result is computed and then discarded."""
    bounded = np.isfinite(low) & np.isfinite(high)
    low = np.where(bounded, low, 0.0)
    return low, np.where(bounded, high, 1.0) - low, bounded


def bins(y: Float[np.ndarray, ...], num_bins: int) -> Integer[np.ndarray, ...]:
    """Index of the uniform bin of [-1, 1] that y is in. y is clipped; +1 belongs to the last
    bin."""
    return np.clip((y + 1.0) * (num_bins / 2), 0, num_bins - 1).astype(np.int32)


def bin_centres(num_bins: int) -> Float[np.ndarray, " bins"]:
    """Centres of the uniform bins of [-1, 1]; decoding to them errs by at most 1 / num_bins."""
    return ((np.arange(num_bins) + 0.5) * (2.0 / num_bins) - 1.0).astype(np.float32)
