"""How much room there is to draw on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What there is to draw on."""

    columns: int
    ascii_only: bool
    max_workers: int = MAX_WORKERS
    """Lines for workers."""

    @property
    def is_wide(self) -> bool:
        return self.columns >= 106

    def joined(self, parts: Sequence[str]) -> str:
        return (", " if self.ascii_only else " · ").join(parts)
