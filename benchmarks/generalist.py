"""The result of a run on many tasks, from its folder: 50 episodes a task of the last checkpoint.

    gato start generalist                             # hours; Ctrl-C and gato resume: in pieces
    python -m benchmarks.generalist runs/generalist   # docs/results/generalist.{json,csv,md,png}

    gato start demo --name six-tasks --tasks hopper,halfcheetah,walker2d,pong,freeway,breakout
    python -m benchmarks.generalist runs/six-tasks --preset demo

    gato start breadth
    python -m benchmarks.generalist runs/breadth --episodes 20 --other vqa/easy-vqa=9673

An evaluation that was ended goes on with the episodes that it has.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.tasks.resolve import resolve_tasks
from benchmarks.curve import curve
from benchmarks.learning import RESULTS
from benchmarks.machine import ROOT, about
from cluster.cli.evaluate import measure_text
from cluster.control.evaluation.domains import domain_scores
from cluster.journal.journal import Entry
from cluster.journal.journal_file import JournalFile
from cluster.monitor.format import number_text
from cluster.monitor.iqm import Aggregate, aggregate
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.runs.presets import FOLLOW_TASKS, RUNS
from gato.metrics import LearnerReport
from gato.task import RECORDED

EPISODES = 50
TARGETS: Mapping[str, float] = {
    "atari/pong": 16.5,
    "atari/freeway": 27.0,
    "atari/boxing": 60.0,
    "atari/breakout": 30.5,
}
"""Returns that the run is to reach; Breakout's is the human's."""
ROBOTS_TARGET = 0.85
"""Interquartile mean over the robots, of their teachers: JAT's of its experts."""


def play(run: RunFolder, task: str, episodes: int) -> dict[str, Any]:
    """What `gato evaluate --json` prints of one task."""
    out = subprocess.run(
        [sys.executable, "-P", "-m", "cluster.cli.main", "evaluate", run.name, "--task", task,
         "--episodes", str(episodes), "--resume", "--json"],
        env=os.environ
        | {"GATO_RUNS": str(run.path.parent.absolute()), "PYTHONPATH": str(ROOT)},
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(out.stdout)


def collect(
    folder: Path, preset: str | None, *, episodes: int, other: Mapping[str, int]
) -> dict[str, Any]:
    """Play the last checkpoint; all that is known of the run. `other`: episodes of some tasks.
    `preset`: what it was started from, if not from the preset of its name."""
    run = RunFolder(folder.parent, folder.name)
    played = {name: play(run, name, other.get(name, episodes)) for name in run.config().tasks}
    entries = JournalFile(folder / "journal").read_all()
    scales = json.loads((folder / "scales.json").read_text())
    config = run.config()
    reports = [entry.record for entry in entries if isinstance(entry.record, LearnerReport)]
    return {
        "command": _command(config, preset or config.name),
        "preset": preset,
        "episodes": episodes,
        "tasks": {name: of["tasks"][name] for name, of in played.items()},
        "scales": scales,
        "seed": config.seed,
        "updates": max((report.step for report in reports), default=0),
        "planned_updates": config.learner.num_updates,
        "trained_tokens": sum(report.tokens for report in reports),
        "wall_s": round(entries[-1].time_s - _begun_s(entries), 1),
        "learner_s": round(math.fsum(report.wall_s for report in reports), 1),
        "parameters": _parameters(Path(next(iter(played.values()))["checkpoint"])),
        "curves": {
            name: curve(entries, name, _begun_s(entries), scales[name])
            for name in scales
            if name in played
        },
        "machine": about(),
    }


def _command(config: RunConfig, preset: str) -> str:
    """The command that starts the run, of its own tasks and updates where they are not those that
    the preset has, or takes for these tasks."""
    base, words = RUNS[preset], [f"gato start {preset}"]
    if config.name != preset:
        words.append(f"--name {config.name}")
    if config.tasks != base.tasks:
        if preset in FOLLOW_TASKS:
            base = FOLLOW_TASKS[preset](base, resolve_tasks(*config.tasks))
        words.append(f"--tasks {','.join(config.tasks)}")
    if config.learner.num_updates != base.learner.num_updates:
        words.append(f"--updates {config.learner.num_updates}")
    return " ".join(words)


def _begun_s(entries: Sequence[Entry]) -> float:
    return entries[0].time_s


def _parameters(checkpoint: Path) -> int:
    """Numbers in a checkpoint's weights."""
    from learner.checkpoints.initial import stored_arrays

    return sum(array.size for array in stored_arrays(checkpoint).values())


def over(result: Mapping[str, Any], family: str) -> Aggregate | None:
    """Interquartile mean of the teachers' returns over the tasks of a family, such as mujoco."""
    scores = [
        [
            (value - result["scales"][name]["random_return"])
            / (result["scales"][name]["teacher_return"] - result["scales"][name]["random_return"])
            for value in task["returns"]
        ]
        for name, task in result["tasks"].items()
        if name in result["scales"] and _is_of(name, family)
    ]
    return aggregate(scores)


def _is_of(task: str, family: str) -> bool:
    """Whether a task is of this family; of none, those that are played are."""
    played = re.split("[/:]", task)[0]
    return played == family if family else played not in RECORDED


def write(result: Mapping[str, Any], name: str) -> None:
    """docs/results/NAME.json, .csv, .md and .png."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "episode", "return"])
        for task, played in result["tasks"].items():
            writer.writerows([task, i, value] for i, value in enumerate(played["returns"]))
    machine = result["machine"]
    episodes = result.get("episodes", EPISODES)
    other = [
        f"{task}={len(played['returns'])}"
        for task, played in result["tasks"].items()
        if len(played["returns"]) != episodes
    ]
    options = f" --preset {result['preset']}" if result.get("preset") else ""
    options += f" --episodes {episodes}" if episodes != EPISODES else ""
    options += f" --other {' '.join(other)}" if other else ""
    lines = [
        f"# The run {name}", "",
        f"One set of weights ({result['parameters'] / 1e6:.2f} million numbers) on all tasks:"
        f" `{result['command']}` (seed {result['seed']}), then"
        f" `python -m benchmarks.generalist RUN{options}`."
        f" {result['updates']:,} of {result['planned_updates']:,} updates,"
        f" {result['trained_tokens'] / 1e6:,.0f} million tokens,"
        f" {result['learner_s'] / 3600:.1f} hours of the learner{_wall(result)}. {machine['cpu']},"
        f" {machine['date']}, commit {machine['commit']}. Last checkpoint; 0 is a random"
        " policy, 1 the teacher.", "",
        *_domains(result),
        *_tasks(result), "",
    ]  # fmt: skip
    for task, played in result["tasks"].items():
        if played.get("measures"):
            said = (measure_text(*measure) for measure in played["measures"].items())
            lines.append(f"- {task}: {', '.join(said)}.")
    for family, target in (("mujoco", ROBOTS_TARGET), ("atari", None), ("", None)):
        if (found := over(result, family)) is not None:
            said = f"{found.iqm:.2f}"
            if (bounds := found.bounds) is not None:
                said += f", 95 % interval {bounds[0]:.2f} to {bounds[1]:.2f}"
            said += f"; the target is {target}" if target else ""
            lines.append(
                f"- Interquartile mean over {found.num_tasks} tasks ({family or 'all'}): {said}."
            )
    lines += [*_on_the_way(result), "", "Tasks count alike there, however many episodes they have."]
    lines += ["", f"![curves]({name}.png)", "", f"[All returns]({name}.csv)."]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    _draw(result, name)


def _on_the_way(result: Mapping[str, Any]) -> list[str]:
    """What the run's own evaluations came to after each half hour, if its curves have minutes."""
    curves = [points for points in result["curves"].values() if points and "minutes" in points[0]]
    last = max((point["minutes"] for points in curves for point in points), default=0.0)
    said: list[str] = []
    for minutes in range(30, min(int(last), 240) + 1, 30):
        seen = [[p["normalised"] for p in points if p["minutes"] <= minutes] for points in curves]
        if all(seen) and (over_tasks := aggregate([[of[-1]] for of in seen])) is not None:
            said.append(f"{over_tasks.iqm:.2f} after {minutes} minutes")
    return [f"- Of the evaluations on the way, of few episodes: {', '.join(said)}."] if said else []


def _domains(result: Mapping[str, Any]) -> list[str]:
    """The table of domains; nothing where two kinds of task say no more than their means."""
    scores = domain_scores(
        {name: (task.get("success"), task["normalised"]) for name, task in result["tasks"].items()}
    )
    if len(scores) < 3:
        return []
    return [
        "| domain | tasks | success | of the teacher | accuracy |", "|---|--:|--:|--:|--:|",
        *(f"| {' | '.join(score.cells())} |" for score in scores), "",
    ]  # fmt: skip


def _tasks(result: Mapping[str, Any]) -> list[str]:
    """The table of tasks, with a column of success where some task has it."""
    has_success = any(task.get("success") is not None for task in result["tasks"].values())
    titles = ["task", "episodes", "return", "±", "of the teacher", "teacher", "random"]
    titles += ["success"] if has_success else ["target"]
    lines = [f"| {' | '.join(titles)} |", "|---" + "|--:" * (len(titles) - 1) + "|"]
    for name, task in result["tasks"].items():
        scale = result["scales"].get(name, {})
        success, target = task.get("success"), TARGETS.get(name)
        percent = "-" if success is None else f"{success:.0%}"
        cells = [
            name, str(len(task["returns"])), f"{task['return']:,.1f}",
            f"{task['return_std']:,.1f}", number_text(task["normalised"]),
            number_text(scale.get("teacher_return")), number_text(scale.get("random_return")),
            percent if has_success else "" if target is None else f"{target:g}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _wall(result: Mapping[str, Any]) -> str:
    minutes = result.get("wall_s", 0.0) / 60
    return f", {minutes:.0f} minutes in all, pauses included" if minutes else ""


def _draw(result: Mapping[str, Any], name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = result["curves"]
    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(12, 2.4 * rows), sharex=True, squeeze=False
    )
    for axis, (task, points) in zip(axes.flat, curves.items(), strict=False):
        axis.plot([p["step"] for p in points], [p["normalised"] for p in points], marker=".")
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
        axis.set_title(task, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("updates")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Play what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the run, such as runs/generalist")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="of each task")
    parser.add_argument(
        "--other", nargs="*", default=[], metavar="TASK=N", help="other episodes of some tasks"
    )
    parser.add_argument("--preset", choices=list(RUNS), help="that the run was started from")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    pairs = [word.partition("=") for word in arguments.other]
    other = {task: int(number) for task, _, number in pairs}
    name = RunFolder(folder.parent, folder.name).config().name
    if (arguments.preset or name) not in RUNS:
        parser.error(f"name what {name} was started from with --preset")
    result = collect(folder, arguments.preset, episodes=arguments.episodes, other=other)
    write(result, name)


if __name__ == "__main__":
    main()
