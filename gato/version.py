"""Versions of weights: ordered by (epoch, number), so that a restarted learner is never mistaken
for an older one."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """`epoch` counts how often a learner of this run was started, `number` the publications since
    the run began.

    Tuples compare by epoch first, which fences off a learner of an earlier epoch that is still
    alive.
    """

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"
