"""Where a run was at the learner's updates, so that a point of a curve stands where its weights
were made."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import final

from cluster.web.line import At

MAX_PLACES = 4096


@final
class Places:
    """The newest places, in the order of updates, as the learner's reports tell them.

    places = Places()
    places.note(At(100, 1.7e9, 4e5, 2e3))
    places.at(120, begin=..., now=...).tokens     # 4e5
    """

    def __init__(self, places: Iterable[Sequence[float]] = ()) -> None:
        """`places`: as `state` returns them."""
        self._places = [At(*map(float, place)) for place in places]

    def note(self, at: At) -> None:
        """Take the place of a report. Where it goes back to a checkpoint, places of updates that
        were lost are forgotten."""
        if self._places and at.step < self._places[-1].step:
            del self._places[bisect_left(self._places, at.step, key=_step) :]
        if not self._places or at.step > self._places[-1].step:  # it also reports while it waits
            self._places.append(at)
        if len(self._places) > 2 * MAX_PLACES:
            del self._places[:MAX_PLACES]

    def at(self, step: int, *, begin: At, now: At) -> At:
        """The place of weights that had made so many updates: that of the last report before, or
        `begin`; `now` if it is no longer known."""
        place = bisect_right(self._places, step, key=_step)
        is_forgotten = place == 0 and len(self._places) > MAX_PLACES and step > 0
        found = self._places[place - 1] if place else now if is_forgotten else begin
        return found._replace(step=float(step))

    def state(self) -> list[list[float]]:
        """What the constructor takes back, as JSON has it."""
        return [list(place) for place in self._places]


def _step(place: At) -> float:
    return place.step
