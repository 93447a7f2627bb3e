"""Where samples go while a run is followed, and how far each place is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from cluster.exporters.series import Sample


@runtime_checkable
class Sink(Protocol):
    """Takes the samples of one entry after another; those of an entry have one step."""

    def write(self, samples: Sequence[Sample]) -> None: ...

    def flush(self) -> None:
        """Bring what was written where it outlives this process."""
        ...

    def close(self) -> None: ...


@final
class Feed:
    """A sink with the number of the last entry that it has, kept in a file: a follower that is
    started again goes on from there."""

    def __init__(self, sink: Sink, file: Path, of: str) -> None:
        """`of`: names the run and the place; a file of others counts as none."""
        self._sink, self._file, self._of = sink, file, of
        self._last = self._kept = _last_in(file, of)

    def take(self, number: int, samples: Sequence[Sample]) -> None:
        """The samples of an entry, unless the sink has them."""
        if number <= self._last:
            return
        if samples:
            self._sink.write(samples)
        self._last = number

    def keep(self) -> None:
        """Note how far the sink is, after it has all."""
        if self._last == self._kept:
            return
        self._sink.flush()
        draft = self._file.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps({"of": self._of, "last": self._last}) + "\n")
        os.replace(draft, self._file)
        self._kept = self._last

    def close(self) -> None:
        self.keep()
        self._sink.close()


def _last_in(file: Path, of: str) -> int:
    try:
        kept = json.loads(file.read_text())
        return int(kept["last"]) if kept["of"] == of else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
