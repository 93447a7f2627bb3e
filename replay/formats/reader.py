"""Reading: what every importer returns. Episodes one at a time, reasons for the rejected ones, and
progress."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gato.compatibility.environment import EnvDefaults, no_defaults
from gato.episode import Episode, check_episode
from gato.task import Task

FindTask = Callable[[str], Task]
"""The task of a name; raises ValueError if there is none."""
Known = Callable[[str], bool]
"""Whether an episode of this key is stored already, so that it need not be read."""
DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    LookupError,
    ArithmeticError,
    SyntaxError,
    zlib.error,
    struct.error,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
)
"""Exceptions for a damaged episode. h5py, pyarrow, gzip, NumPy and Pillow have nothing narrower in
common."""
NUMBER = re.compile(r"0x[0-9a-f]+|[-+]?\d[\d.,]*(?:e[-+]?\d+)?")
MOST_REASONS = 40
"""Kinds of reasons that are counted separately."""
HOPELESS = 100
"""Rejected episodes before the first good one after which reading stops: the source is of something
else."""


def nothing_known(key: str) -> bool:
    """Read every episode."""
    del key
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the user knows of a source, and the defaults of environments."""

    allowed: frozenset[str] = frozenset()
    """Subjects of differences that the user knows, such as `wrapper:NormalizeObservation`."""
    defaults: EnvDefaults = no_defaults
    name: str = ""
    """What the data set is to be called, where it is known."""
    find_task: FindTask | None = None
    """Finds tasks of recorded text, whose names the importer makes."""


NO_OPTIONS = ImportOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An episode that was not read yet."""

    what: str
    """Name of the episode in messages."""
    make: Callable[[], Episode | None]
    """Reads and checks it. None: there is nothing to read, such as a chunk without steps. Raises
    one of `DAMAGE` if the episode is bad."""


def attempt_of(episode: Episode, task: Task) -> Attempt:
    """An episode that is in memory; it gets the same check as one of a file."""

    def make() -> Episode:
        check_episode(episode, task)
        return episode

    return Attempt(what=f"episode {episode.key}", make=make)


@dataclass(slots=True, kw_only=True)
class Report:
    """What is known of a source besides its episodes."""

    task: str = ""
    """The task of all episodes."""
    notes: list[str] = field(default_factory=list[str])
    """Assumptions, conversions and allowed differences, for all episodes."""
    left_out: list[str] = field(default_factory=list[str])
    """Data of the source that is not read: then the data set is not complete."""
    rejected: Counter[str] = field(default_factory=Counter[str])
    """Number of rejected episodes by reason; reasons that differ only in numbers are counted
    together."""
    _first: dict[str, str] = field(default_factory=dict[str, str])
    """The first reason of each kind."""

    def reject(self, reason: str) -> None:
        """Count a rejected episode."""
        kind = NUMBER.sub("#", reason)
        if kind not in self._first and len(self._first) >= MOST_REASONS:
            kind = reason = "for other reasons"
        self.rejected[self._first.setdefault(kind, reason)] += 1


class Reading(Iterator[Episode]):
    """The episodes of a source that are not known yet, one in memory at a time; bad ones are
    counted and skipped.

    reading = read_d4rl(path, tasks, known=store.known)
    for episode in reading:
        print(f"{reading.num_passed} of {reading.total}")
    print(f"{reading.num_known} were known, rejected: {reading.report.rejected}")
    """

    def __init__(
        self, source: Iterator[Attempt | None], *, total: int | None, report: Report | None = None
    ) -> None:
        """`source` yields None for a known episode. `total` counts known ones too; None: not
        known."""
        self._source = source
        self.total = total
        self.report = report or Report()
        self.num_passed = 0
        """Episodes that were returned, rejected or skipped so far."""
        self.num_known = 0
        """Episodes that were skipped because they are known."""
        self._has_returned = False
        self.change: Callable[[Episode], Episode] | None = None
        """What each episode is changed by before it is returned."""

    def __next__(self) -> Episode:
        """Raises ValueError if the first `HOPELESS` episodes were all rejected."""
        for attempt in self._source:
            self.num_passed += 1
            if attempt is None:
                self.num_known += 1
                continue
            try:
                episode = attempt.make()
            except DAMAGE as problem:
                self._reject(problem, attempt.what)
                continue
            if episode is not None:
                self._has_returned = True
                return episode if self.change is None else self.change(episode)
        raise StopIteration

    def _reject(self, problem: BaseException, what: str) -> None:
        self.report.reject(reason_of(problem, what))
        count = self.report.rejected.total()
        if count >= HOPELESS and not self._has_returned and not self.num_known:
            raise ValueError(
                f"the first {count} episodes were all rejected, the last one: {problem}; it is of"
                " something else, or damaged"
            ) from problem


def reason_of(problem: BaseException, what: str) -> str:
    """Why an episode was rejected, without its name and step, so that equal reasons count
    together."""
    text = " ".join(str(problem).split())
    if not isinstance(problem, ValueError):
        text = f"damaged ({type(problem).__name__}: {text})"
    text = re.sub(r"^episode \S+ of [^:]+: ", "", text)
    for named in (f" of {what}", f"{what}: ", f"{what} "):
        text = text.replace(named, "")
    return re.sub(r" at step \d+", "", text)
