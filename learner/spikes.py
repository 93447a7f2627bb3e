"""Spikes of the loss: an update whose loss of a task is far above those before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gato.metrics import Mean

WINDOW = 200
"""Updates of a task that a loss is compared with."""
AT_LEAST = 50
"""Of them, before anything counts as a spike."""
THRESHOLD = 10.0
"""Robust z-score from which on a loss is a spike."""
MIN_SHARE = 0.02
"""Least deviation, as a share of the median: a loss that hardly varies has no spikes of 1 %."""
MIN_NATS = 0.02
"""Least deviation: a loss near 0 has no spikes that cost nothing."""
QUIET, MOST_QUIET = 100, 3200
"""Updates after a spike in which the same task has no other: a change that stays is one spike. It
doubles with each spike soon after the last, so that a task that spikes all the time is told of
seldom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spike:
    """One task's loss in one update."""

    task_index: int
    loss: float
    median: float
    score: float
    """Robust z-score: deviations above the median."""

    def text(self, task: str, step: int, episode_keys: Sequence[str]) -> str:
        """For people; `episode_keys`: of the batch."""
        return (
            f"the loss of {task} was {self.loss:.3g} in update {step}, {self.score:.0f} deviations"
            f" above {self.median:.3g}, the median before it; episodes in its batch:"
            f" {', '.join(episode_keys) or 'unknown'}"
        )


class LossSpikes:
    """Compares each task's loss with its last `WINDOW` updates.

    The score is robust: z = (loss - median) / s, where s is 1.4826 times the median absolute
    deviation, which for a normal distribution is its standard deviation, and at least `MIN_NATS`
    and `MIN_SHARE` of the median. Mean and standard deviation would be moved by the spikes
    themselves.

    spikes = LossSpikes()
    for spike in spikes.add(loss_by_task):
        ...
    """

    def __init__(self) -> None:
        self._losses: dict[int, deque[float]] = {}
        self._since: dict[int, int] = {}
        """Updates of a task since its last spike."""
        self._quiet: dict[int, int] = {}

    def add(self, loss_by_task: Mapping[int, Mean]) -> list[Spike]:
        """The spikes of one update, whose losses then belong to the window."""
        found: list[Spike] = []
        for index, mean in loss_by_task.items():
            losses = self._losses.setdefault(index, deque(maxlen=WINDOW))
            since, quiet = self._since.get(index, MOST_QUIET), self._quiet.get(index, 0)
            self._since[index] = since + 1
            if len(losses) >= AT_LEAST and since >= quiet:
                spike = _spike(index, mean.value, np.array(losses))
                if spike is not None:
                    found.append(spike)
                    is_soon = since < 2 * quiet
                    self._since[index] = 0
                    self._quiet[index] = min(2 * quiet, MOST_QUIET) if is_soon else QUIET
            losses.append(mean.value)
        return found


def _spike(index: int, loss: float, losses: np.ndarray) -> Spike | None:
    median = float(np.median(losses))
    least = max(MIN_NATS, MIN_SHARE * abs(median))
    if loss < median + THRESHOLD * least:  # nearly all updates end here
        return None
    deviation = max(least, 1.4826 * float(np.median(np.abs(losses - median))))
    score = (loss - median) / deviation
    if score < THRESHOLD:
        return None
    return Spike(task_index=index, loss=loss, median=median, score=score)
