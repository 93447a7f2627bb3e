"""The tables of docs/learner.md, each between two marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.tables import table

PAGE = ROOT / "docs" / "learner.md"


def write_tables(
    tables: Mapping[str, Sequence[dict[str, Any]]], measured: Mapping[str, Any]
) -> None:
    """Put rows between the marks of their names, with what they were measured on."""
    text = PAGE.read_text()
    on = f"On {measured['cpu']}, {measured['date']}, commit {measured['commit']}."
    for name, rows in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        below = "" if name == "arithmetic" else f"\n\n{on}"
        text = f"{before}{begin}\n{table(rows)}{below}\n{end}{after}"
    PAGE.write_text(text)
