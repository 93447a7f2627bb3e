"""The learning rate over a run: linear warm-up, then cosine decay to a tenth (paper appendix D)."""

from __future__ import annotations

import math
from dataclasses import dataclass

PAPER_UPDATES = 1_000_000
PAPER_WARMUP_UPDATES = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The paper's schedule, scaled to `num_updates`: its 15,000 of 1,000,000 updates of warm-up
    become 1.5 %.

    Schedule(max_rate=1e-4, num_updates=1_000_000).at(15_000)  # 1e-4
    """

    max_rate: float
    num_updates: int
    warmup_updates: int | None = None
    """None: 1.5 % of the run."""
    first_rate: float = 1e-7
    final_fraction: float = 0.1
    """1: the rate stays."""

    def __post_init__(self) -> None:
        if self.num_updates < 1 or self.max_rate <= 0:
            raise ValueError(
                f"num_updates {self.num_updates} and max_rate {self.max_rate} must be above 0"
            )
        if not 0.0 <= self.final_fraction <= 1.0:
            raise ValueError(
                f"final_rate_fraction {self.final_fraction:g} must be from 0 to 1, which keeps the"
                " rate constant"
            )

    @property
    def warmup(self) -> int:
        if self.warmup_updates is not None:
            return self.warmup_updates
        return max(1, round(self.num_updates * PAPER_WARMUP_UPDATES / PAPER_UPDATES))

    def at(self, step: int) -> float:
        """The rate of update `step` (0 is the first). After `num_updates` it stays at its last
        value."""
        if step < self.warmup:
            return self.first_rate + (self.max_rate - self.first_rate) * step / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.num_updates - self.warmup))
        fraction = self.final_fraction + (1.0 - self.final_fraction) * 0.5 * (
            1.0 + math.cos(math.pi * progress)
        )
        return self.max_rate * fraction
