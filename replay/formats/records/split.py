"""Which records are held out of training: those of a test split, or else one episode in 20, by what
it holds. Copies of an image or a document, other shards and later imports then agree."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

EVERY_NTH = 20
"""Of data without a test split one episode in so many is held out."""
FEW = 400
"""So many episodes or fewer are looked at before one is stored: it may be that none is drawn."""
TEST_WORDS = ("test", "validation", "valid", "val", "dev")
"""Words in the name of a file or folder that make it a test split."""


def is_test_name(name: str) -> bool:
    """Whether a file or folder of this name holds a test split: `test-00000-of-00001.parquet`."""
    words = name.lower().replace("_", "-").replace(".", "-").split("-")
    return any(word.rstrip("0123456789") in TEST_WORDS for word in words)


def is_test_file(file: Path, root: Path) -> bool:
    """Whether a file's name, or that of a folder between it and `root`, is that of a test split."""
    folders = file.parent.relative_to(root).parts if root.is_dir() else ()
    return any(map(is_test_name, (file.stem, *folders)))


def is_nth(index: int, total: int) -> bool:
    """Whether episode `index` of `total` is held out, where each is played or recorded once."""
    return index % EVERY_NTH == min(EVERY_NTH // 2, total - 1) and total > 1


def number_of(content: bytes) -> int:
    """The number that decides on an episode: of its image's file, or of its text."""
    return zlib.crc32(content)


class Split:
    """Draws the held-out episodes of a source without a test split.

    split = Split(map(number_of, contents))   # of all episodes, if they are few
    split.holds_out(number_of(content))
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        """`numbers`: those of all episodes. With none, or many, one in 20 is drawn; of few at least
        one is, and never all."""
        known = set(numbers)
        drawn = {number for number in known if number % EVERY_NTH == 0}
        self._drawn: set[int] | None = None
        if known and len(known) <= FEW:
            self._drawn = drawn if 0 < len(drawn) < len(known) else {min(known)}
            if len(known) == 1:
                self._drawn = set()

    def holds_out(self, number: int) -> bool:
        """Whether the episode of this number is held out."""
        return number % EVERY_NTH == 0 if self._drawn is None else number in self._drawn
