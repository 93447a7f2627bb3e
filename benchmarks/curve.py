"""Learning curves over seeds: runs, stores every evaluation, measures the last checkpoint and draws
the picture.

A quarter of an hour for each seed; the second imports a file first:

    python -m benchmarks.curve run demo --seeds 0 1 2
    python -m benchmarks.curve run clone --data ../hopper_expert-v5.hdf5 --seeds 0

The same from a run that has ended, and pictures and tables of what is stored:

    python -m benchmarks.curve collect runs/demo
    python -m benchmarks.curve draw
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT, about
from cluster.journal.journal import Entry
from cluster.journal.journal_file import JournalFile
from cluster.monitor.epochs import Epochs
from cluster.monitor.scores import failure_of
from gato.metrics import Evaluation
from gato.version import Version

RESULTS = ROOT / "docs" / "results"
GATO = Path(sys.executable).parent / "gato"
EPISODES = 20


def run(name: str, seed: int, data: Path | None) -> None:
    """One run of this seed, in a folder that is thrown away; what it did is kept in
    docs/results."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GATO_RUNS": folder}
        words = [str(GATO), "start", name, "--seed", str(seed)]
        if data is not None:
            subprocess.run(
                [str(GATO), "import", str(data), "--name", data.stem], env=environment, check=True
            )
            words += ["--data", data.stem]
        subprocess.run(words, env=environment, check=True)
        collect(Path(folder) / name)


def collect(run_folder: Path) -> None:
    """Keep the evaluations of a finished run, and those of its last checkpoint, played again."""
    info = json.loads((run_folder / "run.json").read_text())
    name, seed, begun_s = info["config"]["name"], info["config"]["seed"], info["created_s"]
    entries = JournalFile(run_folder / "journal").read_all()
    scales = json.loads((run_folder / "scales.json").read_text())
    out = subprocess.run(
        [str(GATO), "evaluate", run_folder.name, "--episodes", str(EPISODES), "--json"],
        env=os.environ | {"GATO_RUNS": str(run_folder.parent)}, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    tasks = list(scales)
    data = "".join(f" --data {entry}" for entry in info["config"]["data"])
    kept = {
        "command": f"gato start {name} --seed {seed}{data}",
        "seed": seed,
        "machine": about(),
        "wall_s": round(entries[-1].time_s - begun_s, 1),
        "scales": scales,
        "last_checkpoint": json.loads(out.stdout)["tasks"],
        "tasks": {task: curve(entries, task, begun_s, scales[task]) for task in tasks},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}-seed{seed}.json").write_text(json.dumps(kept, indent=1) + "\n")


def curve(
    entries: list[Entry], task: str, begun_s: float, scale: dict[str, float]
) -> list[dict[str, float]]:
    """Minutes since the command was typed, updates, mean return and its normalised value, of each
    version that was evaluated, in the order of updates. Weights that were lost, as the learner
    resumed from an older checkpoint, are left out."""
    epochs = Epochs.of(entries)
    kept: dict[Version, tuple[int, dict[str, float]]] = {}
    for entry in entries:
        record = entry.record
        if not isinstance(record, Evaluation) or record.task != task:
            continue
        is_lost = epochs.has_lost(record.version, record.learner_step)
        if is_lost or failure_of(record) is not None:
            continue
        if len(record.returns) < kept.get(record.version, (0, {}))[0]:  # the same seeds, fewer
            continue
        mean = sum(record.returns) / len(record.returns)
        normalised = (mean - scale["random_return"]) / (
            scale["teacher_return"] - scale["random_return"]
        )
        kept[record.version] = (
            len(record.returns),
            {
                "minutes": round((entry.time_s - begun_s) / 60, 2),
                "step": record.learner_step,
                "return": round(mean, 2),
                "normalised": round(normalised, 4),
            },
        )
    # Of two versions of one update, after a resume, the newer counts.
    by_step = {point["step"]: point for _, (_, point) in sorted(kept.items())}
    return [by_step[step] for step in sorted(by_step)]


def draw(name: str) -> None:
    """docs/results/NAME.png, and NAME.md with the last checkpoints' returns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs: list[dict[str, Any]] = [
        json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{name}-seed*.json"))
    ]
    tasks = list(runs[0]["tasks"])
    figure, axes = pyplot.subplots(
        1, len(tasks), figsize=(5.5 * len(tasks), 3.6), sharey=True, squeeze=False
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        for entry in runs:
            points = entry["tasks"][task]
            axis.plot(
                [p["minutes"] for p in points],
                [p["normalised"] for p in points],
                marker=".",
                label=f"seed {entry['seed']}",
            )
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set(title=task, xlabel=f"minutes since `gato start {name}`")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("return (0 random, 1 teacher)")
    axes[0][-1].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    pyplot.close(figure)
    machine = runs[0]["machine"]
    commits = ", ".join(dict.fromkeys(entry["machine"]["commit"] for entry in runs))
    lines = [
        f"# The run {name} over seeds", "",
        f"Made by `python -m benchmarks.curve run {name} --seeds ...` (`{runs[0]['command']}`),"
        " drawn by `python -m benchmarks.curve draw`.",
        f"{machine['cpu']}, 2 cores, no GPU, {machine['date']}, commits {commits}."
        " Returns of the last checkpoint, never the best,",
        f"over {EPISODES} episodes; 0 is a random policy, 1 the teacher or the data's experts.",
        "",
        "| seed | task | return | ± | normalised | updates | minutes in all |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for entry in runs:
        for task, last in entry["last_checkpoint"].items():
            lines.append(
                f"| {entry['seed']} | {task} | {last['return']:,.1f} | {last['return_std']:,.1f} |"
                f" {last['normalised']:.2f} | {last['step']:,} | {entry['wall_s'] / 60:.1f} |"
            )
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, "", f"![curves]({name}.png)"]) + "\n")


def main() -> None:
    """Run seeds, or draw what was kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("word", choices=["run", "collect", "draw"])
    parser.add_argument(
        "what", nargs="?", default="demo", help="a named run, or the folder of one that has ended"
    )
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.word == "run":
        for seed in arguments.seeds:
            run(arguments.what, seed, arguments.data)
    if arguments.word == "collect":
        collect(Path(arguments.what))
    for name in sorted({path.name.partition("-seed")[0] for path in RESULTS.glob("*-seed*.json")}):
        draw(name)


if __name__ == "__main__":
    main()
