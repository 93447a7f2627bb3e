"""Marks: what an evaluation on held-out records came to, beside the mean of its returns.

A record that was answered is an episode of one step whose info says what was asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from gato.episode import SUCCESS, Episode
from gato.metrics import Mean
from gato.text import plain_text

KIND, WANTED, GIVEN, BITS, BYTES = "kind", "wanted", "given", "bits", "bytes"
"""Entries of an answered record's info."""
YES_NO, OPEN = "yes/no", "open"
"""Kinds of questions: those whose answer is yes or no, and all others."""
BITS_PER_BYTE = "bits per byte"
CONSTANT = "{} by one constant answer"


def kind_of(answer: str) -> str:
    """The kind of question that has this answer."""
    return YES_NO if plain_text(answer) in ("yes", "no") else OPEN


class Marks:
    """Counts answered records.

    marks = Marks()
    marks.add(episode)
    marks.measures()        # {"yes/no": Mean(212, 256), ...}
    """

    def __init__(self) -> None:
        self._right: dict[str, Mean] = defaultdict(Mean)
        """By kind."""
        self._wanted: dict[str, Counter[str]] = defaultdict(Counter)
        """How often each answer is wanted, by kind."""
        self._bits = Mean()

    def add(self, episode: Episode) -> None:
        """Count an episode; one that is no answered record does not count."""
        info = episode.info
        if BITS in info:
            self._bits += Mean(float(info[BITS]), int(info[BYTES]))
        if KIND in info:
            self._right[info[KIND]] += Mean(float(info[SUCCESS] == "yes"), 1)
            self._wanted[info[KIND]][plain_text(info[WANTED])] += 1

    def measures(self) -> dict[str, Mean]:
        """By name. Of each kind the share of right answers, and what the answer that is most often
        wanted here would get: no constant answer gets more."""
        out: dict[str, Mean] = {}
        for kind in sorted(self._right, reverse=True):
            out[kind] = self._right[kind]
            most = self._wanted[kind].most_common(1)[0][1]
            out[CONSTANT.format(kind)] = Mean(float(most), self._right[kind].count)
        if self._bits.count:
            out[BITS_PER_BYTE] = self._bits
        return out
