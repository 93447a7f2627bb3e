"""The paper's filter of demonstrations by return (section 3.1).

Shape letters: N episodes of one task, oldest first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

MAX_WINDOW = 1000
WINDOW_FRACTION = 0.1
"""A window of the expert return holds min(1000, 0.1 N) episodes."""


def window_of(num_episodes: int) -> int:
    """Episodes in one window, W = min(1000, 0.1 N), and at least one."""
    return max(1, min(MAX_WINDOW, int(WINDOW_FRACTION * num_episodes)))


def expert_return(returns: Float[np.ndarray, " N"]) -> float:
    """The largest mean return of any W consecutive episodes."""
    if not len(returns):
        raise ValueError("no returns, so no expert return; give at least one episode")
    window = window_of(len(returns))
    sums = np.cumsum(np.concatenate([[0.0], returns]))
    return float((sums[window:] - sums[:-window]).max() / window)


def least_return(returns: Float[np.ndarray, " N"], fraction: float) -> float:
    """The least return that passes: `fraction` of the expert return.

    The paper does not treat negative expert returns. Here the same part of its size is allowed
    below it: 80 % of -10 is -12. The best episode always passes.
    """
    expert = expert_return(returns)
    return min(expert - (1.0 - fraction) * abs(expert), float(returns.max()))
