"""Writes the coverage of the tests into docs/testing.md; `make coverage` runs it after the
tests."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, about

REPORT = ROOT / ".coverage" / "coverage.json"
PAGE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- coverage: written by `make coverage` -->", "<!-- coverage: end -->"


@dataclass(slots=True)
class Counts:
    """Statements and branches, and how many of them the tests took."""

    lines: int = 0
    lines_covered: int = 0
    branches: int = 0
    branches_covered: int = 0

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add a file, as coverage.py summarises it."""
        self.lines += summary["num_statements"]
        self.lines_covered += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.branches_covered += summary["covered_branches"]

    def cells(self) -> str:
        """Number and percentage of each, as cells of a table."""
        return " | ".join(
            f"{number:,} | {100 * covered / max(number, 1):.1f} %"
            for number, covered in (
                (self.lines, self.lines_covered),
                (self.branches, self.branches_covered),
            )
        )


def section(report: Mapping[str, Any], *, commit: str, date: str) -> str:
    """The section of the page: a row for each folder, and one for all."""
    rooms: defaultdict[str, Counts] = defaultdict(Counts)
    total = Counts()
    for file, entry in report["files"].items():
        rooms[str(Path(file).parent)].add(entry["summary"])
        total.add(entry["summary"])
    rows = [f"| `{room}` | {rooms[room].cells()} |" for room in sorted(rooms)]
    return "\n".join(
        (
            BEGIN,
            "| folder | lines | covered | branches | covered |",
            "|---|--:|--:|--:|--:|",
            *rows,
            f"| **all** | {total.cells()} |",
            "",
            f"Commit {commit}, {date}, coverage.py {report['meta']['version']}.",
            END,
        )
    )


def replaced(page: str, text: str) -> str:
    """The page with `text` in place of the section that it has.

    Raises:
        ValueError: If the page has no such section.
    """
    made, count = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: text, page, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"expected one section from {BEGIN} to {END}, found {count}")
    return made


def main() -> None:
    """Write the section of the last `make coverage`."""
    made_on = about()
    report = json.loads(REPORT.read_text())
    text = section(report, commit=str(made_on["commit"]), date=str(made_on["date"]))
    PAGE.write_text(replaced(PAGE.read_text(), text))
    print(text)


if __name__ == "__main__":
    main()
