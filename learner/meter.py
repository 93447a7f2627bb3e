"""What the learner did since its last report."""

from __future__ import annotations

import time
from collections.abc import Mapping

from gato.metrics import Mean
from learner.update import Done


class Meter:
    """Sums since the last report."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.updates = 0
        self.tokens = 0
        self.flops = 0
        self.wait_s = 0.0
        self.blocked_s = 0.0
        self.gradient_norm = 0.0
        self.loss_by_task: dict[int, Mean] = {}
        self.accuracy_by_task: Mapping[int, Mean] = {}
        self.norm_by_part: Mapping[str, float] = {}

    def add(self, done: Done, *, tokens: int, flops: int) -> None:
        """Add an update."""
        self.updates += 1
        self.tokens += tokens
        self.flops += flops
        self.gradient_norm = done.gradient_norm
        self.accuracy_by_task = done.accuracy_by_task or self.accuracy_by_task
        self.norm_by_part = done.norm_by_part or self.norm_by_part
        for index, mean in done.loss_by_task.items():
            self.loss_by_task[index] = self.loss_by_task.get(index, Mean()) + mean
