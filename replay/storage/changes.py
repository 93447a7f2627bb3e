"""Changes that an import made to an episode, noted in its info, and summed over the episodes of a
store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replay.storage.header import Header

FIELD = "changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clipped:
    """Action values outside of the task's bounds that were clipped to them."""

    values: int
    outside: int
    furthest: float
    """Distance of the furthest one from its bound, in units of the action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes to one episode."""

    cut_from: int = 0
    """Steps that it had, if more than the task's limit; 0: it was not cut."""
    split_from: int = 0
    """Rows of the unmarked run that it is a part of; 0: the file marks where it ends."""
    is_scaled: bool = False
    """Whether its actions were scaled from the source's bounds."""
    clipped: Clipped | None = None

    @property
    def info(self) -> dict[str, str]:
        """As entries of an episode's info; empty if nothing was changed."""
        plain: dict[str, object] = {}
        if self.cut_from:
            plain["cut_from"] = self.cut_from
        if self.split_from:
            plain["split_from"] = self.split_from
        if self.is_scaled:
            plain["scaled"] = True
        if self.clipped:
            plain["clipped"] = [self.clipped.values, self.clipped.outside, self.clipped.furthest]
        return {FIELD: json.dumps(plain)} if plain else {}


def changes_of(info: Mapping[str, str]) -> Changes:
    """The inverse of `Changes.info`; no changes if there is no readable entry."""
    try:
        plain = json.loads(info.get(FIELD, "{}"))
        clipped = plain.get("clipped")
        return Changes(
            cut_from=int(plain.get("cut_from", 0)),
            split_from=int(plain.get("split_from", 0)),
            is_scaled=bool(plain.get("scaled", False)),
            clipped=(
                Clipped(values=int(clipped[0]), outside=int(clipped[1]), furthest=float(clipped[2]))
                if clipped
                else None
            ),
        )
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
    ):  # another program wrote an info of this name
        return Changes()


@dataclass(slots=True, kw_only=True)
class ChangeTally:
    """Changes of many episodes."""

    cut: int = 0
    steps_cut_off: int = 0
    split: int = 0
    scaled: int = 0
    clipped: int = 0
    """Episodes with clipped actions."""
    values: int = 0
    """Action values of these episodes."""
    values_clipped: int = 0
    furthest: float = 0.0

    def count(self, header: Header) -> None:
        changes = changes_of(header.info)
        if changes.cut_from:
            self.cut += 1
            self.steps_cut_off += changes.cut_from - header.steps
        self.split += bool(changes.split_from)
        self.scaled += changes.is_scaled
        if changes.clipped is not None:
            self.clipped += 1
            self.values += changes.clipped.values
            self.values_clipped += changes.clipped.outside
            self.furthest = max(self.furthest, changes.clipped.furthest)

    def lines(self) -> list[tuple[str, str]]:
        """Lines of a table, (kind of change, what and how often); only of changes that were
        made."""
        lines: list[tuple[str, str]] = []
        if self.cut:
            lines.append(
                (
                    "cut",
                    (
                        f"{self.cut:,} longer than the task's limit, {self.steps_cut_off:,} steps"
                        " left out"
                    ),
                )
            )
        if self.split:
            lines.append(
                ("cut", f"{self.split:,} at the task's limit: the file does not mark their ends")
            )
        if self.scaled:
            lines.append(
                ("scaled", f"{self.scaled:,}: actions, from the source's bounds to the task's")
            )
        if self.clipped:
            share = self.values_clipped / self.values
            lines.append(
                (
                    "clipped",
                    (
                        f"{self.clipped:,}: {share:.2%} of their action values, by up to"
                        f" {self.furthest:.3g}"
                    ),
                )
            )
        return lines


def tally_of(headers: Iterable[Header]) -> ChangeTally:
    """The changes of all episodes together."""
    tally = ChangeTally()
    for header in headers:
        tally.count(header)
    return tally
