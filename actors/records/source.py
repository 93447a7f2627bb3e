"""Where an evaluation gets records that were held out of training."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from gato.sequence import Window


@runtime_checkable
class RecordSource(Protocol):
    """Source of held-out records."""

    def held_out(self, task_name: str, most: int) -> Window | None:
        """At most `most` records of a task, one a step, the same in every call; None if there are
        none."""
        ...


class NoRecords:
    """A source without records, for workers of tasks that have environments."""

    def held_out(self, task_name: str, most: int) -> Window | None:
        del task_name, most
        return None
