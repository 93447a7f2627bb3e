"""`python -m benchmarks.peers`."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks.machine import ROOT, about
from benchmarks.rows import Row, add_rows
from gato.threads import use_threads

PARTS = {
    "acting": "hugging_face",
    "training": "hugging_face",
    "environments": "env_runners",
    "weights": "broadcast",
}
"""Parts, and the modules that measure them."""


def measures(part: str) -> Callable[[], Iterator[Row]]:
    """What measures a part. Raises ValueError if the peer is not installed."""
    try:
        return getattr(import_module(f"benchmarks.peers.{PARTS[part]}"), part)
    except ModuleNotFoundError as problem:
        raise ValueError(
            f"{part} needs {problem.name}; pip install -e '.[peers]' in the project's folder"
        ) from problem


def main() -> None:
    """Measure, add the rows to benchmarks/rows.jsonl and write the table."""
    parser = argparse.ArgumentParser(description="Measure against what others would use.")
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; default: all")
    parts: list[str] = parser.parse_args().parts or list(PARTS)
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    use_threads(1)
    try:
        found = [measures(part) for part in parts]
    except ValueError as problem:
        parser.error(str(problem))
    rows = itertools.chain.from_iterable(measure() for measure in found)
    add_rows(rows, about(), ROOT / "benchmarks" / "rows.jsonl")


if __name__ == "__main__":
    main()
