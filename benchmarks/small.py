"""Small forms of three results, checked against stored bounds: `make results-small`.

One set of weights on three tasks (`gato start generalist --tasks ...`), the decision-transformer
run on data of mixed quality, and two tasks that only a prompt tells apart. It takes less than an
hour on two cores, needs no files, goes on where it was ended, and fails if a number is out of its
bounds (docs/results/small-bounds.json).

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

from benchmarks.generalist import over, play
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


def decision_transformer(root: Path) -> Numbers:
    """How much more is reached with the target return of an expert than with a tenth of it, on data
    of mixed quality, as a share of what was asked."""
    out: Numbers = {}
    for entry in _entries(root / "decision-transformer-small"):
        by_target = {point["target"]: point["mean"] for point in entry["points"]}
        low, high = min(by_target), sorted(by_target)[-2]  # the last asks for more than the expert
        rise = (by_target[high] - by_target[low]) / (high - low)
        out[f"{entry['model']}, rise with the target"] = round(rise, 3)
    return out


def prompting(root: Path) -> Numbers:
    """The teacher's return that is reached with a demonstration of the task, and with one of the
    opposite task, the worse of both tasks."""
    entries = _entries(root / "context-small")
    entry = next(entry for entry in entries if entry["part"] == "opposites")
    tasks = entry["tasks"].values()
    means = {
        mode: [task[mode]["mean"] / entry["teacher"] for task in tasks]
        for mode in ("demonstration", "demonstration of the other")
    }
    return {
        "demonstration": round(min(means["demonstration"]), 3),
        "demonstration of the other": round(max(means["demonstration of the other"]), 3),
    }


def _entries(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / f"{folder.name}.json").read_text())


PARTS = {
    "generalist": generalist,
    "decision-transformer": decision_transformer,
    "prompting": prompting,
}


def train(root: Path) -> None:
    """Train what is missing: the generalist with both cores, then the others beside each other."""
    root.mkdir(parents=True, exist_ok=True)
    print(f"training {', '.join(TASKS)}; GATO_RUNS={root} gato status {RUN} says more", flush=True)
    train_generalist(root)
    print("training on target returns, and on prompts", flush=True)
    commands = (
        ("benchmarks.decision_transformer", "--size", "small"),
        ("benchmarks.context", "--size", "small", "--parts", "opposites"),
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", *command], env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        for command in commands
    ]
    failed = [" ".join(c) for c, p in zip(commands, processes, strict=True) if p.wait()]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


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
