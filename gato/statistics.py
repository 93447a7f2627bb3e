"""Statistics of recorded observations, by which a task's arrays are normalised."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Mean and standard deviation of each element of an array (row-major), over recorded
    observations."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Above 0."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"statistics have {len(self.mean)} means and {len(self.std)} standard deviations"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=1.0) <= 0:
            raise ValueError(
                f"statistics must be finite, and std above 0; got mean={self.mean} std={self.std}"
            )
