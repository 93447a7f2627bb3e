"""How much room there is to draw on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.monitor.format import flowed

MAX_WORKERS = 8
MAX_EVENTS = 4
MOST_EVENTS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What there is to draw on."""

    columns: int
    ascii_only: bool
    rows: int | None = None
    """None: as many as are needed."""
    max_workers: int = MAX_WORKERS
    """Lines for workers."""
    max_events: int = MAX_EVENTS
    """The last ones that are shown."""

    @property
    def is_wide(self) -> bool:
        return self.columns >= 106

    @property
    def is_tall(self) -> bool:
        """Whether there is room for what is not needed at every look."""
        return self.rows is None or self.rows >= 30

    @property
    def separator(self) -> str:
        return ", " if self.ascii_only else " · "

    def joined(self, parts: Sequence[str]) -> str:
        return self.separator.join(parts)

    def flowed(self, parts: Sequence[str], columns: int) -> str:
        """`joined`, on several lines where there is no room for all of it on one."""
        return flowed(parts, columns, self.separator.rstrip() + " ")
