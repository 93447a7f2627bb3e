"""What the learner did since its last report."""

from __future__ import annotations

import time
from collections.abc import Mapping

from gato.metrics import Mean


class Meter:
    """Sums since the last report."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.updates = 0
        self.tokens = 0
        self.wait_s = 0.0
        self.blocked_s = 0.0
        self.gradient_norm = 0.0
        self.loss_by_task: dict[int, Mean] = {}

    def add(self, tokens: int, gradient_norm: float, by_task: Mapping[int, Mean]) -> None:
        self.updates += 1
        self.tokens += tokens
        self.gradient_norm = gradient_norm
        for index, mean in by_task.items():
            self.loss_by_task[index] = self.loss_by_task.get(index, Mean()) + mean
