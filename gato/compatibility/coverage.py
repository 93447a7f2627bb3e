"""How observations become tokens: which values are clipped, and which differ although their tokens
do not.

Shape letters: T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gato.array_spec import ArraySpec, Kind
from gato.compatibility.counts import NumberCounts, TextCounts
from gato.compatibility.coverage_text import (
    Of,
    blind_text,
    clipped_text,
    entry_names,
    how_to_fix,
    text_warning,
)
from gato.compatibility.entry import EntryCoverage
from gato.tokenizer import TokenLayout


class Coverage:
    """Counts what is shown and what its tokens keep, in bounded memory.

    coverage = Coverage(task.observations, layout)
    for episode in episodes:
        coverage.observe(episode.observations)
    for line in coverage.warnings(task.name):
        print(line)

    Continuous arrays are counted, and texts if the layout has an encoder. Images and discrete
    values lose nothing.
    """

    def __init__(
        self,
        specs: Mapping[str, ArraySpec],
        layout: TokenLayout,
        *,
        of: Of = "observations",
    ) -> None:
        """`of` says what is counted, for the warnings: `Coverage({"action": task.action}, layout,
        of="actions")`."""
        self._specs = dict(specs)
        self._layout = layout
        self._of: Of = of
        encode = layout.text.encode if layout.text is not None else None
        self._counts: dict[str, NumberCounts | TextCounts] = {}
        for name, spec in specs.items():
            if spec.kind is Kind.CONTINUOUS:
                self._counts[name] = NumberCounts(spec, layout.num_bins)
            elif spec.kind is Kind.TEXT:
                self._counts[name] = TextCounts(spec, encode)

    def observe(self, observations: Mapping[str, Shaped[np.ndarray, "T ..."]]) -> None:
        """Count T steps, each array [T, *shape]. Many steps in one call (an episode) cost the
        least."""
        for name, counts in self._counts.items():
            if len(observations[name]):
                counts.observe(observations[name])

    def merged(self, other: Coverage) -> Coverage:
        """Both together. Raises ValueError if they are of other arrays."""
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
        """One for each element that was measured; none if nothing was observed."""
        return [entry for name, counts in self._counts.items() for entry in counts.entries(name)]

    def to_json(self) -> dict[str, Any]:
        """All counts as what JSON can hold, for `from_json`."""
        return {name: counts.to_json() for name, counts in self._counts.items()}

    @staticmethod
    def from_json(
        specs: Mapping[str, ArraySpec], layout: TokenLayout, plain: Mapping[str, Any]
    ) -> Coverage:
        """The inverse of `to_json`. Raises ValueError if other arrays were counted."""
        coverage = Coverage(specs, layout)
        if coverage._counts.keys() != plain.keys():
            raise ValueError(
                f"a stored coverage is of {sorted(plain)}, expected {sorted(coverage._counts)}"
            )
        for name, counts in coverage._counts.items():
            counts.load(plain[name])
        return coverage

    def warnings(self, task: str = "TASK", *, beside: Coverage | None = None) -> list[str]:
        """One line for each fault of an array, with the entries that have it, the numbers and what
        to do. `beside`: what else was seen of the task; values that differ there in their tokens
        are not said to be lost."""
        lines: list[str] = []
        both = self if beside is None else self.merged(beside)
        for name, counts in self._counts.items():
            entries, wider = counts.entries(name), both._counts[name].entries(name)
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
                if entry.is_blind and wider[place].is_blind and not entry.is_saturated
            ]
            if spec.kind is Kind.TEXT:
                lines += [text_warning(entries[0], spec)] if outside else []
                continue
            for places, says in (
                (beyond, clipped_text),
                (outside, clipped_text),
                (blind, blind_text),
            ):
                if places:
                    faulty = [entries[place] for place in places]
                    lines.append(
                        f"{entry_names(entries, places)}: {says(faulty)};"
                        f" {how_to_fix(faulty, self._of, task)}"
                    )
        return lines
