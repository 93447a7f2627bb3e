"""How observations become tokens: which values are clipped, and which differ although their tokens
do not.

Shape letters: T steps, n elements of one step, k distinct values, b bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from gato.task import ArraySpec, Kind
from gato.text import bytes_to_text
from gato.tokenizer import TokenLayout, bins, scale

MANY_VALUES = 64
"""Distinct values of an entry are counted up to here."""
SOME_VALUES = 16
NO_TOKENS = 2
"""An entry of SOME_VALUES distinct values that fill no more tokens than these is one the agent is
blind to."""
LEAST_SPREAD = 0.02
"""Unless its values differ by less than this share of the largest: the mu-law's bins are 2 % wide,
and what stays in one for a while is a height or a cosine that hardly moved yet, as in
HumanoidStandup."""
FEW_TOKENS = 8
WIDE_SPREAD = 0.5
"""An entry of MANY_VALUES that differ by more than this share of the largest is also blind with
FEW_TOKENS. (Hopper's height of 1.13 to 1.25 has six, and a policy walks by them.)"""
CLIPPED_SHARE = 0.01
"""Share of values outside of their bounds that is warned of."""
CLIPPED_SHARE_UNBOUNDED = 0.25
"""The same beyond the mu-law's +-256. Humanoid's contact forces have rare large values, of which up
to 20 % are clipped."""
LEAST_CLIPPED = 5
MOST_ELEMENTS = 4096
"""Elements of one array that are measured; of a larger one, so many at even distances."""
CHUNK_VALUES = 1 << 20
MOST_TEXTS = 4096
"""Distinct texts that are encoded to see whether they fit; later ones are not measured."""


Of = Literal["observations", "actions"]
"""What was counted: the warnings name other ways to fix the one than the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCoverage:
    """What was seen of one element of an observation (of a text: of all of it), and what its tokens
    keep."""

    name: str
    """Such as `state[3]`."""
    num_values: int
    num_clipped: int
    """Values beyond the range of the tokens, which become its first or last token; of a text, texts
    that were cut."""
    least: float
    most: float
    """Smallest and largest value; of a text, the fewest and most tokens."""
    distinct_values: int
    """Counted up to `MANY_VALUES`."""
    distinct_tokens: int
    is_bounded: bool
    """Whether it is scaled by finite bounds, not companded."""

    @property
    def clipped_share(self) -> float:
        """0 to 1."""
        return self.num_clipped / self.num_values if self.num_values else 0.0

    @property
    def is_saturated(self) -> bool:
        """Whether so many values are clipped that the space should have other bounds. Constants
        lose nothing."""
        if self.distinct_values == 1:
            return False
        share = CLIPPED_SHARE if self.is_bounded else CLIPPED_SHARE_UNBOUNDED
        return self.num_clipped >= LEAST_CLIPPED and self.clipped_share > share

    @property
    def is_blind(self) -> bool:
        """Whether values that differ have the same tokens. Constants are not blind."""
        spread = self.most - self.least
        largest = max(abs(self.least), abs(self.most))
        if self.distinct_tokens <= NO_TOKENS:
            return self.distinct_values >= SOME_VALUES and spread > LEAST_SPREAD * largest
        return (
            self.distinct_tokens <= FEW_TOKENS
            and self.distinct_values >= MANY_VALUES
            and spread > WIDE_SPREAD * largest
        )


class _Numbers:
    """The counts of one continuous array."""

    def __init__(self, spec: ArraySpec, num_bins: int) -> None:
        self._spec = spec
        self._num_bins = num_bins
        size = spec.size
        self.elements: Integer[np.ndarray, " n"] = (
            np.arange(size)
            if size <= MOST_ELEMENTS
            else np.linspace(0, size - 1, MOST_ELEMENTS).astype(np.int64)
        )
        count = len(self.elements)
        self.num_values = 0
        self.clipped: Integer[np.ndarray, " n"] = np.zeros(count, np.int64)
        self.least: Float[np.ndarray, " n"] = np.full(count, np.inf)
        self.most: Float[np.ndarray, " n"] = np.full(count, -np.inf)
        self.tokens: Bool[np.ndarray, "n b"] = np.zeros((count, num_bins), np.bool_)
        self.values: list[Float[np.ndarray, " k"]] = [np.empty(0, np.float32)] * count

    def observe(self, values: Shaped[np.ndarray, "T ..."]) -> None:
        rows = max(1, CHUNK_VALUES // self._spec.size)
        flat = values.reshape(len(values), self._spec.size)
        for start in range(0, len(flat), rows):
            self._observe(flat[start : start + rows].astype(np.float32))

    def _observe(self, x: Float[np.ndarray, "T n"]) -> None:
        # What is not finite is refused elsewhere; here it counts as clipped, and nothing else is
        # said of it.
        finite = np.isfinite(x)
        x = x if finite.all() else np.where(finite, x, np.float32(np.finfo(np.float32).max))
        y = scale(x, self._spec)[:, self.elements]
        x = x[:, self.elements]
        # A bound that rounding passed is no fault: clipped is what lies more than a bin beyond the
        # last one.
        self.clipped += (np.abs(y) > 1.0 + 2.0 / self._num_bins).sum(axis=0)
        self.num_values += len(x)
        self.least = np.minimum(self.least, x.min(axis=0))
        self.most = np.maximum(self.most, x.max(axis=0))
        self.tokens[np.arange(x.shape[1]), bins(y, self._num_bins)] = True
        for column, known in enumerate(self.values):
            if len(known) < MANY_VALUES:
                self.values[column] = np.unique(np.concatenate([known, x[:, column]]))[:MANY_VALUES]

    def add(self, other: _Numbers) -> None:
        self.num_values += other.num_values
        self.clipped += other.clipped
        self.least = np.minimum(self.least, other.least)
        self.most = np.maximum(self.most, other.most)
        self.tokens |= other.tokens
        self.values = [
            np.unique(np.concatenate(pair))[:MANY_VALUES]
            for pair in zip(self.values, other.values, strict=True)
        ]

    def entries(self, name: str) -> list[EntryCoverage]:
        if not self.num_values:
            return []
        bounded = self._spec.bounded
        return [
            EntryCoverage(
                name=_entry_name(name, self._spec.shape, int(element)),
                num_values=self.num_values,
                num_clipped=int(self.clipped[place]),
                least=float(self.least[place]),
                most=float(self.most[place]),
                distinct_values=len(self.values[place]),
                distinct_tokens=int(self.tokens[place].sum()),
                is_bounded=bool(bounded[element]),
            )
            for place, element in enumerate(self.elements)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "num_values": self.num_values,
            "clipped": self.clipped.tolist(),
            "least": self.least.tolist() if self.num_values else None,
            "most": self.most.tolist() if self.num_values else None,
            "tokens": [row.tobytes().hex() for row in np.packbits(self.tokens, axis=1)],
            "values": [values.tolist() for values in self.values],
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        count, width = self.tokens.shape
        packed = [np.frombuffer(bytes.fromhex(row), np.uint8) for row in plain["tokens"]]
        if len(packed) != count or len(packed[0]) != math.ceil(width / 8):
            raise ValueError(
                f"a stored coverage has {len(packed)} elements, the array {count}, or other bins;"
                " measure it anew"
            )
        self.tokens = np.unpackbits(np.stack(packed), axis=1)[:, :width].astype(np.bool_)
        self.num_values = int(plain["num_values"])
        self.clipped = np.array(plain["clipped"], np.int64)
        if self.num_values:
            self.least, self.most = np.array(plain["least"]), np.array(plain["most"])
        self.values = [np.array(values, np.float32) for values in plain["values"]]


class _Texts:
    """The counts of one text: the lengths of what its encoder makes of it."""

    def __init__(self, spec: ArraySpec, encode: Callable[[str], list[int]] | None) -> None:
        self._spec = spec
        self._encode = encode
        self._lengths: dict[bytes, int] = {}
        self.num_values = 0
        self.clipped = 0
        self.least, self.most = math.inf, -math.inf

    def observe(self, values: Shaped[np.ndarray, "T ..."]) -> None:
        if self._encode is None:
            return
        distinct, counts = np.unique(values, axis=0, return_counts=True)
        for row, count in zip(distinct, counts.tolist(), strict=True):
            length = self._lengths.get(row.tobytes())
            if length is None:
                if len(self._lengths) >= MOST_TEXTS:
                    continue
                length = self._lengths[row.tobytes()] = len(self._encode(bytes_to_text(row)))
            self.num_values += count
            self.clipped += count * (length > self._spec.num_tokens)
            self.least, self.most = min(self.least, length), max(self.most, length)

    def add(self, other: _Texts) -> None:
        self.num_values, self.clipped = (
            self.num_values + other.num_values,
            self.clipped + other.clipped,
        )
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def entries(self, name: str) -> list[EntryCoverage]:
        if not self.num_values:
            return []
        return [
            EntryCoverage(
                name=name,
                num_values=self.num_values,
                num_clipped=self.clipped,
                least=float(self.least),
                most=float(self.most),
                distinct_values=len(self._lengths),
                distinct_tokens=0,
                is_bounded=True,
            )
        ]

    def to_json(self) -> dict[str, Any]:
        seen = self.num_values > 0
        return {
            "num_values": self.num_values, "clipped": self.clipped,
            "least": self.least if seen else None, "most": self.most if seen else None,
        }  # fmt: skip

    def load(self, plain: Mapping[str, Any]) -> None:
        self.num_values, self.clipped = int(plain["num_values"]), int(plain["clipped"])
        if self.num_values:
            self.least, self.most = plain["least"], plain["most"]


class Coverage:
    """Counts what is shown and what its tokens keep, in bounded memory.

    coverage = Coverage(task.observations, layout)
    for episode in episodes:
        coverage.observe(episode.observations)
    for line in coverage.warnings(task.name):
        print(line)

    Continuous arrays are counted, and texts where the layout has an encoder. Images and discrete
    values lose nothing.
    """

    def __init__(
        self,
        specs: Mapping[str, ArraySpec],
        layout: TokenLayout,
        *,
        of: Of = "observations",
    ) -> None:
        """`of`: whether the warnings speak of what is shown or of what is done: Coverage({"action":
        task.action}, layout, of="actions")."""
        self._specs = dict(specs)
        self._layout = layout
        self._of: Of = of
        encode = layout.text.encode if layout.text is not None else None
        self._counts: dict[str, _Numbers | _Texts] = {}
        for name, spec in specs.items():
            if spec.kind is Kind.CONTINUOUS:
                self._counts[name] = _Numbers(spec, layout.num_bins)
            elif spec.kind is Kind.TEXT:
                self._counts[name] = _Texts(spec, encode)

    def observe(self, observations: Mapping[str, Shaped[np.ndarray, "T ..."]]) -> None:
        """Count T steps, each array [T, *shape]. Many steps in one call (an episode) cost the
        least."""
        for name, counts in self._counts.items():
            if len(observations[name]):
                counts.observe(observations[name])

    def merged(self, other: Coverage) -> Coverage:
        """Both together. ValueError if they are of other arrays."""
        if other._specs != self._specs or other._layout != self._layout:
            raise ValueError(
                "two coverages of other arrays or layouts cannot be merged; measure them on the"
                " same task"
            )
        both = Coverage(self._specs, self._layout, of=self._of)
        for name, counts in both._counts.items():
            for part in (self, other):
                counts.add(part._counts[name])  # pyright: ignore[reportArgumentType] of one kind, as the specs are the same
        return both

    def entries(self) -> list[EntryCoverage]:
        """One for each element that was measured; none where nothing was observed."""
        return [entry for name, counts in self._counts.items() for entry in counts.entries(name)]

    def to_json(self) -> dict[str, Any]:
        """All counts as what JSON can hold, for `from_json`."""
        return {name: counts.to_json() for name, counts in self._counts.items()}

    @staticmethod
    def from_json(
        specs: Mapping[str, ArraySpec], layout: TokenLayout, plain: Mapping[str, Any]
    ) -> Coverage:
        """The inverse of `to_json`. ValueError if the arrays are not those that were counted."""
        coverage = Coverage(specs, layout)
        if coverage._counts.keys() != plain.keys():
            raise ValueError(
                f"a stored coverage is of {sorted(plain)}, expected {sorted(coverage._counts)}"
            )
        for name, counts in coverage._counts.items():
            counts.load(plain[name])
        return coverage

    def warnings(self, task: str = "TASK") -> list[str]:
        """One line for each fault of an array, with the entries that have it, the numbers and what
        to do."""
        lines: list[str] = []
        for name, counts in self._counts.items():
            entries = counts.entries(name)
            spec = self._specs[name]
            beyond = [
                place
                for place, entry in enumerate(entries)
                if entry.is_saturated and not entry.is_bounded
            ]
            outside = [
                place
                for place, entry in enumerate(entries)
                if entry.is_saturated and entry.is_bounded
            ]
            blind = [
                place
                for place, entry in enumerate(entries)
                if entry.is_blind and not entry.is_saturated
            ]
            if spec.kind is Kind.TEXT:
                lines += [_text_warning(entries[0], spec)] if outside else []
                continue
            for places, says in ((beyond, _clipped), (outside, _clipped), (blind, _blind)):
                if places:
                    faulty = [entries[place] for place in places]
                    lines.append(
                        f"{_names(entries, places)}: {says(faulty)};"
                        f" {self._fix(faulty, spec, task)}"
                    )
        return lines

    def _fix(self, entries: Sequence[EntryCoverage], spec: ArraySpec, task: str) -> str:
        if self._of == "actions":
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


def _clipped(entries: Sequence[EntryCoverage]) -> str:
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


def _blind(entries: Sequence[EntryCoverage]) -> str:
    least = min(entry.distinct_values for entry in entries)
    return (
        f"the agent can hardly tell the values apart: {least} or more distinct ones,"
        f" {_range(entries)}, became {_tokens(entries)}"
    )


def _tokens(entries: Sequence[EntryCoverage]) -> str:
    span = _span([entry.distinct_tokens for entry in entries])
    return f"{span} distinct token{'' if span == '1' else 's'}"


def _text_warning(entry: EntryCoverage, spec: ArraySpec) -> str:
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
    """Two digits of each, outwards: bounds that a person would write."""

    def rounded(value: float, towards: Callable[[float], int]) -> float:
        if value == 0.0:
            return 0.0
        unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
        return towards(round(value / unit, 6)) * unit

    return rounded(least, math.floor), rounded(most, math.ceil)


def _entry_name(name: str, shape: tuple[int, ...], element: int) -> str:
    if not shape:
        return name
    return f"{name}[{','.join(str(int(place)) for place in np.unravel_index(element, shape))}]"


def _names(entries: Sequence[EntryCoverage], places: Sequence[int], most: int = 4) -> str:
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
