"""What time is spent on, and the most that the device can do in it."""

from __future__ import annotations

import resource
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.profiler import record_function


class Clock:
    """Seconds by what they were spent on. On a GPU they are the device's own, read without waiting
    for it until `take`.

    clock = Clock(device)
    with clock.of("forward"):
        ...
    clock.take()        # {"forward": 0.21}
    """

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self.is_traced = False
        """Whether the blocks are named in a trace."""

    @contextmanager
    def of(self, what: str, *, on_host: bool = False) -> Generator[None]:
        """Count the time of a block. `on_host`: it is the host's, also where there is a GPU."""
        with record_function(what) if self.is_traced else nullcontext():
            yield from self._counted(what, is_gpu=self._is_gpu and not on_host)

    def _counted(self, what: str, *, is_gpu: bool) -> Generator[None]:
        if is_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((what, begin, end))
            return
        begun_s = time.perf_counter()
        yield
        self._add(what, time.perf_counter() - begun_s)

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        if self._events:
            self._events[-1][2].synchronize()
        for what, begin, end in self._events:
            self._add(what, begin.elapsed_time(end) / 1000.0)
        taken, self._seconds, self._events = self._seconds, {}, []
        return taken

    def _add(self, what: str, seconds: float) -> None:
        self._seconds[what] = self._seconds.get(what, 0.0) + seconds


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held so far: of the GPU if it computes there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux, whose ru_maxrss counts what the parent held
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


PRODUCT = 2048
"""Side of the matrices of `product_rate`, on a CPU; twice as much on a GPU."""


def product_rate(device: torch.device, *, bf16: bool) -> float:
    """FLOP/s of products of large matrices: the most that a model's can reach here. It takes about
    half a second."""
    side = 2 * PRODUCT if device.type == "cuda" else PRODUCT // 2
    kind = torch.bfloat16 if bf16 else torch.float32
    left, right = (torch.ones(side, side, dtype=kind, device=device) for _ in range(2))
    fastest_s = float("inf")
    # A GPU's product takes less than a millisecond: several, so that starting them does not count.
    repeats = 16 if device.type == "cuda" else 1
    for _ in range(5):
        begun_s = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize()
        fastest_s = min(fastest_s, time.perf_counter() - begun_s)
    return repeats * 2.0 * side**3 / fastest_s
