"""The rows of all benchmarks: printed, kept in rows.jsonl, and drawn as the table of README.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.machine import ROOT

Row = dict[str, float | str]
"""One measured path; the names of its numbers end in their units."""


def add_rows(
    rows: Iterable[dict[str, float | str]], machine: dict[str, str | int], file: Path
) -> None:
    """Print and append each row as it is measured, then write the table."""
    for measured in rows:
        row = measured | machine
        row.setdefault("ratio", round(float(row["theirs_s"]) / float(row["ours_s"]), 3))
        print(
            f"{row['path']}: {row['ratio']} x {row['against']}"
            f" ({float(row['ours_s']) * 1e3:.2f} ms)",
            flush=True,
        )
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
    write_table(file)


def write_table(file: Path) -> None:
    """The newest row of each path and processor as a table in benchmarks/README.md."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    newest = {(row["path"], row["cpu"]): row for row in rows}
    places = {path: place for place, path in enumerate(dict.fromkeys(row["path"] for row in rows))}
    lines = [
        "# Benchmarks", "",
        "Made by `make bench` and `python -m benchmarks.peers`: one thread, ratios to a yardstick"
        " measured in the same run (above 1: faster than it). All rows: `rows.jsonl`.",
        "Learning curves are made by `python -m benchmarks.curve` (docs/results/).", "",
        "*Memory*: the yardstick's peak by ours, where it was measured.", "",
        "| path | against | ratio | ours | memory | machine | date | commit |",
        "|---|---|--:|--:|--:|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row['path']} | {row['against']} | {row['ratio']} | {row['ours_s'] * 1e3:.2f} ms |"
        f" {row.get('memory_ratio', '')} |"
        f" {row['cpu']} | {row['date']} | {row['commit']} |"
        for row in sorted(newest.values(), key=lambda row: places[row["path"]])
    ]
    (ROOT / "benchmarks" / "README.md").write_text("\n".join(lines) + "\n")
