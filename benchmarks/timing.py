"""How long work takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np


def median_s(work: Callable[[], object], *, repeats: int) -> float:
    """Seconds, the median of some runs."""
    times: list[float] = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def paired_s(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    blocks: int = 15,
    block_s: float = 0.02,
) -> tuple[float, float]:
    """Seconds a call of each: medians over blocks of calls that take turns, so that a machine that
    is slower for a while is so for both."""
    calls = [_calls(work, block_s) for work in (ours, theirs)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(blocks):
        for work, count, into in zip((ours, theirs), calls, times, strict=True):
            begun = time.perf_counter()
            for _ in range(count):
                work()
            into.append((time.perf_counter() - begun) / count)
    return statistics.median(times[0]), statistics.median(times[1])


def _calls(work: Callable[[], object], block_s: float) -> int:
    """How many calls take about `block_s`."""
    work()
    return max(1, round(block_s / median_s(work, repeats=3)))


def milliseconds(seconds: Sequence[float], percentile: int) -> float:
    """A percentile of durations; 0 where there are none."""
    return round(1e3 * float(np.percentile(seconds, percentile)), 1) if len(seconds) else 0.0
