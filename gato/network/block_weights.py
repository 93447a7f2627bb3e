"""A block's weights as the step in NumPy takes them.

Shape letters: D width, E = 3 D, K width of a head, F hidden units, G = 2 F.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float32
from numpy import ndarray as Array


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWeights:
    """A copy of a block's weights, each norm's scale and shift within the layer after it."""

    qkv: Float32[Array, "D E"]
    """Queries are scaled by K^-0.5."""
    qkv_bias: Float32[Array, " E"]
    out: Float32[Array, "D D"]
    gate_and_value: Float32[Array, "D G"]
    gate_and_value_bias: Float32[Array, " G"]
    feedforward_out: Float32[Array, "F D"]
    feedforward_bias: Float32[Array, " D"]
    epsilons: tuple[float, float]
    """Of both norms."""
