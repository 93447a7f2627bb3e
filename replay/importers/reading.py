"""What every importer gives: episodes one at a time, how many there are, and how far the reading has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gato.episode import Episode

Known = Callable[[str], bool]
"""Whether an episode of this key is stored already, so that it need not be read."""


def nothing_known(key: str) -> bool:
    """Read every episode."""
    del key
    return False


class Reading(Iterator[Episode]):
    """The episodes of a source that are not known yet, one in memory at a time.

    reading = read_d4rl(path, tasks, known=store.known)
    for episode in reading:
        print(f"{reading.num_passed} of {reading.total}")
    print(f"{reading.num_known} were there already")
    """

    def __init__(self, source: Iterator[Episode | None], *, total: int | None) -> None:
        """`source` says None for an episode that is known. `total` counts known ones too; None where nobody knows it."""
        self._source = source
        self.total = total
        self.num_passed = 0
        """Episodes that were given or skipped so far."""
        self.num_known = 0
        """Episodes that were skipped, because they are known."""

    def __next__(self) -> Episode:
        for episode in self._source:
            self.num_passed += 1
            if episode is not None:
                return episode
            self.num_known += 1
        raise StopIteration
