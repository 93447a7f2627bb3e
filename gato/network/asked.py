"""The tokens whose hidden states are wanted: the others are computed only as far as these read
them.

Shape letters: B rows, L tokens, D width, n tokens that are asked for.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def at(
    x_BLD: Float[Tensor, "B L D"], asked_n: Int[Tensor, " n"] | None
) -> Float[Tensor, "B L D"] | Float[Tensor, "n D"]:
    """The values at these tokens (row * L + position); all of them for None."""
    return x_BLD if asked_n is None else x_BLD.flatten(0, 1).index_select(0, asked_n)
