"""A trace of a few updates, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from learner.clock import Clock

SKIPPED = 5
"""Updates before those that are traced: the first ones allocate and compile."""


class Profiler:
    """Traces some updates after a learner's start.

    profiler = Profiler(folder, clock, device, num_updates=5, say=say)
    profiler.after_update(step)     # each time
    profiler.close()
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        device: torch.device,
        *,
        num_updates: int,
        say: Callable[[str, str], None],
    ) -> None:
        """`folder`: for the file. `clock`: its blocks have names in the trace. `num_updates`: 0: no
        trace. `say`: kind and text of an event."""
        self._folder = folder
        self._clock = clock
        self._device = device
        self._num_updates = num_updates
        self._say = say
        self._seen = 0
        self._first = 0
        self._profile: torch.profiler.profile | None = None

    def after_update(self, step: int) -> None:
        """Begin or end the trace if it is time; `step`: updates made."""
        if self._seen > SKIPPED + self._num_updates or not self._num_updates:
            return
        self._seen += 1
        if self._seen == SKIPPED:
            self._begin(step)
        elif self._seen == SKIPPED + self._num_updates:
            self._end(step)

    def close(self) -> None:
        """Drop a trace that is not whole."""
        self._clock.is_traced = False
        if self._profile is not None:
            with suppress(RuntimeError):
                self._profile.stop()
            self._profile = None

    def _begin(self, step: int) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        try:
            self._profile = torch.profiler.profile(activities=kinds, record_shapes=True)
            self._profile.start()
        except RuntimeError as problem:  # such as a GPU that another profiler holds
            self._profile = None
            self._say("problem", f"no trace of the learner: {problem}")
            return
        self._first, self._clock.is_traced = step + 1, True

    def _end(self, step: int) -> None:
        if self._profile is None:
            return
        self._clock.is_traced = False
        file = self._folder / f"learner-{self._first}-{step}.json.gz"
        try:
            self._profile.stop()
            file.parent.mkdir(parents=True, exist_ok=True)
            self._profile.export_chrome_trace(str(file))
        except (RuntimeError, OSError) as problem:
            self._say("problem", f"no trace of the learner: {problem}")
            return
        finally:
            self._profile = None
        where = "/".join(file.parts[-3:])  # in the run's folder
        self._say("learner", f"trace of updates {self._first:,} to {step:,}: {where}")
