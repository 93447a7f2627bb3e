"""Small forms of three results, checked against stored bounds: `make results-small`.

One set of weights on three tasks (`gato start generalist --tasks ...`), two tasks that only a
prompt tells apart, and one whose target returns are reached. It takes about an hour on two slow
cores, needs no files, goes on where it was ended, and fails if a number is out of its bounds
(docs/results/small-bounds.json).

    python -m benchmarks.small              # train what is missing, check
    python -m benchmarks.small check        # of what is there
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.generalist import play
from benchmarks.generalist_page import over
from benchmarks.learning import RESULTS, gato
from benchmarks.machine import ROOT
from cluster.runs.folder import RunFolder

BOUNDS = RESULTS / "small-bounds.json"
TASKS = ("mujoco/hopper", "mujoco/inverted-pendulum", "atari/freeway")
RUN = "generalist-small"
UPDATES = 600
EPISODES = 10
Numbers = dict[str, float]


def train_generalist(root: Path) -> None:
    """Train and evaluate three tasks; a run that is there goes on."""
    if not (root / RUN).is_dir():
        gato(
            "start", "generalist", "--name", RUN, "--tasks", ",".join(TASKS),
            "--updates", str(UPDATES),
        )  # fmt: skip
    elif RunFolder(root, RUN).info().state != "finished":
        gato("resume", RUN)


def generalist(root: Path) -> Numbers:
    """The teachers' returns that are reached, of each task and together."""
    run = RunFolder(root, RUN)
    scales = json.loads((run.path / "scales.json").read_text())
    tasks = {name: play(run, name, EPISODES)["tasks"][name] for name in TASKS}
    together = over({"tasks": tasks, "scales": scales}, "")
    assert together is not None
    return {
        "interquartile mean": together.iqm,
        **{name: played["normalised"] for name, played in tasks.items()},
    }


def target_returns(root: Path) -> Numbers:
    """How much more is reached with the highest target return than with the lowest, as a share of
    what was asked, and the largest miss; 1 is the teacher's return."""
    entry = _part(root, "targets")
    points = [(point["target"], point["mean"] / entry["teacher"]) for point in entry["points"]]
    (low, least), (high, most) = points[0], points[-1]
    return {
        "rise with the target": round((most - least) / (high - low), 3),
        "largest miss": round(max(abs(target - reached) for target, reached in points), 3),
    }


def prompting(root: Path) -> Numbers:
    """The teacher's return that is reached with a demonstration of the task, and with one of the
    opposite task, the worse of both tasks."""
    entry = _part(root, "opposites")
    tasks = entry["tasks"].values()
    means = {
        mode: [task[mode]["mean"] / entry["teacher"] for task in tasks]
        for mode in ("demonstration", "demonstration of the other")
    }
    return {
        "demonstration": round(min(means["demonstration"]), 3),
        "demonstration of the other": round(max(means["demonstration of the other"]), 3),
    }


def _part(root: Path, name: str) -> dict[str, Any]:
    """A part of the context benchmark. Raises FileNotFoundError if it was not measured yet."""
    entries = json.loads((root / "context-small" / "context-small.json").read_text())
    for entry in entries:
        if entry["part"] == name:
            return entry
    raise FileNotFoundError(name)


PARTS = {
    "generalist": generalist,
    "target returns": target_returns,
    "prompting": prompting,
}


def train(root: Path) -> None:
    """Train what is missing."""
    root.mkdir(parents=True, exist_ok=True)
    print(f"training {', '.join(TASKS)}; GATO_RUNS={root} gato status {RUN} says more", flush=True)
    train_generalist(root)
    print("training on prompts and target returns", flush=True)
    command = ("benchmarks.context", "--size", "small", "--parts", "opposites", "targets")
    subprocess.run(
        [sys.executable, "-P", "-m", *command], env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )  # fmt: skip


def checked(
    found: Mapping[str, Numbers], bounds: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> Iterator[tuple[str, str, float | None, str, bool]]:
    """Part, number, its value, its bounds and whether it is within, of every bound. A number that
    was not measured is out of its bounds."""
    for part, names in bounds.items():
        for name, bound in names.items():
            value = found.get(part, {}).get(name)
            least, most = bound.get("least", float("-inf")), bound.get("most", float("inf"))
            told = ", ".join(f"at {word} {limit:g}" for word, limit in bound.items())
            yield part, name, value, told, value is not None and least <= value <= most


def main() -> None:
    """Train what is missing, print all numbers, fail if one is out of its bounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", nargs="?", default="run", choices=["run", "check"])
    word: str = parser.parse_args().word
    root = Path(os.environ.get("GATO_RUNS", "runs/results-small")).absolute()
    os.environ["GATO_RUNS"] = str(root)
    begun_s = time.monotonic()
    if word == "run":
        train(root)
    found: dict[str, Numbers] = {}
    for part, measure in PARTS.items():
        with suppress(FileNotFoundError):  # it was not trained yet
            found[part] = measure(root)
    (root / "results-small.json").write_text(json.dumps(found, indent=1) + "\n")
    rows = list(checked(found, json.loads(BOUNDS.read_text())))
    table = Table("result", "number", "value", "bound", "")
    for part, name, value, told, is_within in rows:
        shown = "not measured" if value is None else f"{value:.2f}"
        table.add_row(part, name, shown, told, "" if is_within else "out of bounds")
    Console().print(table)
    if word == "run":
        print(f"{(time.monotonic() - begun_s) / 60:.0f} minutes")
    if not all(row[-1] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
