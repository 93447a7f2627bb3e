"""What every importer gives: episodes one at a time, what became of the others, and how far the
reading has come."""

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

Known = Callable[[str], bool]
"""Whether an episode of this key is stored already, so that it need not be read."""
DAMAGE = (
    ValueError, OSError, EOFError, LookupError, ArithmeticError, SyntaxError, zlib.error, struct.error, TypeError,
    AttributeError, RuntimeError, MemoryError,
)  # fmt: skip
"""What reading one episode raises if its bytes are not what they should be: h5py, pyarrow, gzip,
NumPy and Pillow agree on nothing narrower."""
NUMBER = re.compile(r"0x[0-9a-f]+|[-+]?\d[\d.,]*(?:e[-+]?\d+)?")
MOST_REASONS = 40
"""Kinds of reasons that are told apart."""
HOPELESS = 100
"""After so many refusals before the first good episode the source is given up: it is of something
else."""


def nothing_known(key: str) -> bool:
    """Read every episode."""
    del key
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What a user says of a source, and what is known of environments."""

    allowed: frozenset[str] = frozenset()
    """Subjects of differences that the user knows, such as `wrapper:NormalizeObservation`."""
    defaults: EnvDefaults = no_defaults


NO_OPTIONS = ImportOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An episode that is still to be read."""

    what: str
    """The episode, as messages call it."""
    make: Callable[[], Episode | None]
    """The checked episode; None if there is nothing to read, such as a chunk without steps. It
    raises one of `DAMAGE` if the episode is bad."""


def attempt_of(episode: Episode, task: Task) -> Attempt:
    """An episode that was played here, which passes the same check as one of a file."""

    def make() -> Episode:
        check_episode(episode, task)
        return episode

    return Attempt(what=f"episode {episode.key}", make=make)


@dataclass(slots=True, kw_only=True)
class Report:
    """What is known of a source beside the episodes that were taken."""

    task: str = ""
    """The task that all episodes of the source are taken as."""
    notes: list[str] = field(default_factory=list[str])
    """What was assumed, converted or allowed, for all episodes."""
    left_out: list[str] = field(default_factory=list[str])
    """What the source holds beyond what is read: then the data set is not complete."""
    rejected: Counter[str] = field(default_factory=Counter[str])
    """Episodes by reason; reasons that differ in numbers alone count under the first of them."""
    _first: dict[str, str] = field(default_factory=dict[str, str])
    """The first reason of each kind."""

    def reject(self, reason: str) -> None:
        """Count an episode that was not taken."""
        kind = NUMBER.sub("#", reason)
        if kind not in self._first and len(self._first) >= MOST_REASONS:
            kind = reason = "for other reasons"
        self.rejected[self._first.setdefault(kind, reason)] += 1


class Reading(Iterator[Episode]):
    """The episodes of a source that are not known yet, one in memory at a time; bad ones are
    counted and passed over.

    reading = read_d4rl(path, tasks, known=store.known)
    for episode in reading:
        print(f"{reading.num_passed} of {reading.total}")
    print(f"{reading.num_known} were there already, refused: {reading.report.rejected}")
    """

    def __init__(
        self, source: Iterator[Attempt | None], *, total: int | None, report: Report | None = None
    ) -> None:
        """`source` says None for an episode that is known. `total` counts known ones too; None if
        it is not known."""
        self._source = source
        self.total = total
        self.report = report or Report()
        self.num_passed = 0
        """Episodes that were given, refused or skipped so far."""
        self.num_known = 0
        """Episodes that were skipped, because they are known."""
        self._has_given = False

    def __next__(self) -> Episode:
        """ValueError if the first `HOPELESS` episodes were all refused."""
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
                self._has_given = True
                return episode
        raise StopIteration

    def _reject(self, problem: BaseException, what: str) -> None:
        self.report.reject(reason_of(problem, what))
        count = self.report.rejected.total()
        if count >= HOPELESS and not self._has_given and not self.num_known:
            raise ValueError(
                f"the first {count} episodes were all refused, the last one: {problem}; it is of"
                " something else, or damaged"
            ) from problem


def reason_of(problem: BaseException, what: str) -> str:
    """Why an episode was refused, without its name and the step, so that equal reasons are counted
    together."""
    text = " ".join(str(problem).split())
    if not isinstance(problem, ValueError):
        text = f"damaged ({type(problem).__name__}: {text})"
    text = re.sub(r"^episode \S+ of [^:]+: ", "", text)
    for named in (f" of {what}", f"{what}: ", f"{what} "):
        text = text.replace(named, "")
    return re.sub(r" at step \d+", "", text)
