"""The warnings of coverage in words: which entries, how much is lost, how to fix it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from gato.array_spec import ArraySpec
from gato.compatibility.entry import EntryCoverage

Of = Literal["observations", "actions"]
"""What was counted. The warnings name different fixes for the two."""


def clipped_text(entries: Sequence[EntryCoverage]) -> str:
    shares = _span([100.0 * entry.clipped_share for entry in entries])
    where = (
        "outside of the space's bounds"
        if entries[0].is_bounded
        else "beyond +-256, where the tokens of unbounded values end"
    )
    return (
        f"{shares} % of the values are clipped ({where}): {_range(entries)} became"
        f" {_tokens(entries)}"
    )


def blind_text(entries: Sequence[EntryCoverage]) -> str:
    least = min(entry.distinct_values for entry in entries)
    return (
        f"the agent can hardly tell the values apart: {least} or more distinct ones,"
        f" {_range(entries)}, became {_tokens(entries)}"
    )


def _tokens(entries: Sequence[EntryCoverage]) -> str:
    span = _span([entry.distinct_tokens for entry in entries])
    return f"{span} distinct token{'' if span == '1' else 's'}"


def text_warning(entry: EntryCoverage, spec: ArraySpec) -> str:
    return (
        f"{entry.name}: {100.0 * entry.clipped_share:.3g} % of the texts are cut: they have up to"
        f" {entry.most:,.0f} tokens, the task keeps {spec.num_tokens}; make the task in Python with"
        f" task_of(..., text_tokens={entry.most:.0f}), or give a SentencePiece model (gato start"
        " --text), which needs fewer"
    )


def _range(entries: Sequence[EntryCoverage]) -> str:
    return (
        f"{min(entry.least for entry in entries):,.6g} to"
        f" {max(entry.most for entry in entries):,.6g}"
    )


def _span(numbers: Sequence[float] | Sequence[int]) -> str:
    least, most = f"{min(numbers):.3g}", f"{max(numbers):.3g}"
    return least if least == most else f"{least} to {most}"


def _round_out(least: float, most: float) -> tuple[float, float]:
    """Two digits of each, rounded outwards: bounds that a person would write."""

    def rounded(value: float, towards: Callable[[float], int]) -> float:
        if value == 0.0:
            return 0.0
        unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
        return towards(round(value / unit, 6)) * unit

    return rounded(least, math.floor), rounded(most, math.ceil)


def entry_names(entries: Sequence[EntryCoverage], places: Sequence[int], most: int = 4) -> str:
    """Entries by name, those that follow one another as a range: state[0..2], state[5]."""
    breaks = [0, *(at + 1 for at, (a, b) in enumerate(pairwise(places)) if b != a + 1), len(places)]
    words: list[str] = []
    for start, end in pairwise(breaks):
        first, last = entries[places[start]].name, entries[places[end - 1]].name
        simple = "," not in first
        joined = f"{first[:-1]}..{last[last.index('[') + 1 :]}" if simple else f"{first}..{last}"
        words.append(first if end - start == 1 else joined)
    more = f" and {len(words) - most} more ranges" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def how_to_fix(entries: Sequence[EntryCoverage], of: Of, task: str) -> str:
    """The ways to lose less of these entries."""
    if of == "actions":
        return (
            "give the action space the bounds that the data has, or rescale the data's actions"
            " to the space's bounds"
        )
    least, most = min(entry.least for entry in entries), max(entry.most for entry in entries)
    low, high = _round_out(least, most)
    ways = (
        [f"give the space bounds that fit (for example Box({low:.12g}, {high:.12g}))"]
        if high <= 1e6 >= -low
        else []
    )
    ways.append(
        "wrap the environment (gymnasium.wrappers.RescaleObservation, NormalizeObservation or"
        " TransformObservation)"
    )
    ways.append(f"start the run with --normalise {task}")
    return ", ".join(ways[:-1]) + ", or " + ways[-1]
