"""Who has a run: one home at a time, and epochs that no other home has used."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.storage.place import Place
from gato.files import read_json

FILE = "tenure.json"
BLOCK = 8
"""Epochs that are claimed at once, so that a learner may be lost while the place is away."""
FIX = "delete it; the run then goes on under its next tenure"


class RunMoved(ValueError):
    """Another home has the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """The time during which one folder is the run's home."""

    number: int
    """1 for the first home of the run, 2 for the second..."""
    token: str
    """Random: tells this folder from a copy of it."""
    where: str
    """For people: the home's name, address and folder."""
    since_s: float
    """Wall-clock time."""


def read_tenure(folder: Path) -> Tenure | None:
    """The tenure of the run in `folder`; None: it has not begun one."""
    file = folder / FILE
    return Tenure(**read_json(file, fix=FIX)) if file.is_file() else None


def newest_tenure(place: Place) -> Tenure | None:
    """The tenure that has the run now.

    Raises:
        PlaceAway: The place cannot be read.
    """
    files = place.names("homes")
    return Tenure(**json.loads(place.get(files[-1]))) if files else None


def require_tenure(place: Place, mine: Tenure) -> None:
    """Raises RunMoved if another home has the run, PlaceAway if that cannot be found out."""
    newest = newest_tenure(place)
    if newest is not None and newest.token != mine.token:
        raise moved(newest)


def moved(newest: Tenure) -> RunMoved:
    """Says where a run is now."""
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(newest.since_s))
    return RunMoved(
        f"the run has moved to {newest.where} on {day}; resume it there, or from a machine that"
        " watches it"
    )


def claim_tenure(place: Place, folder: Path, where: str) -> Tenure:
    """Have the run in `folder` be the only one from now on.

    Raises:
        RunMoved: Another home claimed it at the same moment.
        PlaceAway: The place cannot be written.
    """
    before = newest_tenure(place)
    number = before.number + 1 if before is not None else 1
    mine = Tenure(number=number, token=secrets.token_hex(8), where=where, since_s=time.time())
    text = json.dumps(asdict(mine))
    if not place.create(f"homes/{number:06d}.json", text.encode()):
        newest = newest_tenure(place)
        assert newest is not None
        if newest.token != mine.token:  # else the answer was lost, not the claim
            raise moved(newest)
    (folder / FILE).write_text(text)
    return mine


class Epochs:
    """Epochs that no other home has.

    epochs = Epochs(place, tenure)
    epoch = epochs.claim(at_least=3)
    """

    def __init__(self, place: Place, tenure: Tenure) -> None:
        self._place = place
        self._tenure = tenure
        self._blocks: set[int] = set()

    def claim(self, at_least: int) -> int:
        """An epoch that no other home has, from `at_least` on. Of a block that is claimed already
        it is given out without asking the place.

        Raises:
            RunMoved: Another home has the run.
            PlaceAway: The place cannot be read or written.
        """
        block = (at_least - 1) // BLOCK
        while block not in self._blocks:
            require_tenure(self._place, self._tenure)
            name, mine = f"epochs/{block:06d}", self._tenure.token.encode()
            if self._place.create(name, mine) or self._place.get(name) == mine:
                self._blocks.add(block)
            else:
                block += 1
        return max(at_least, block * BLOCK + 1)


def last_claimed(place: Place) -> int:
    """The highest epoch that any home may have used."""
    blocks = place.names("epochs")
    return (int(blocks[-1].rpartition("/")[2]) + 1) * BLOCK if blocks else 0
