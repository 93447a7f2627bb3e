"""The result of a run on many tasks, from its folder: 50 episodes a task of the last checkpoint.

    gato start generalist                             # hours; Ctrl-C and gato resume: in pieces
    python -m benchmarks.generalist runs/generalist   # docs/results/generalist.{json,csv,md,png}

    gato start demo --name six-tasks --tasks hopper,halfcheetah,walker2d,pong,freeway,breakout
    python -m benchmarks.generalist runs/six-tasks --preset demo

    gato start breadth
    python -m benchmarks.generalist runs/breadth --episodes 20 --other vqa/easy-vqa=2000

An evaluation that was ended goes on with the episodes that it has.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.tasks.resolve import resolve_tasks
from benchmarks.curve import curve
from benchmarks.generalist_page import EPISODES, write
from benchmarks.machine import ROOT, about
from cluster.journal.journal import Entry
from cluster.journal.journal_file import JournalFile
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.runs.presets import FOLLOW_TASKS, RUNS
from gato.metrics import LearnerReport


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
    folder: Path, preset: str | None, *, episodes: int, other: Mapping[str, int], note: str = ""
) -> dict[str, Any]:
    """Play the last checkpoint; all that is known of the run. `other`: episodes of some tasks.
    `preset`: what it was started from, if not from the preset of its name. `note`: what the page
    is to say of how it was trained."""
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
        "note": note,
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
    if config.initial_weights:
        words.append(f"--from {config.initial_weights}")
    if config.data != base.data:
        words.append(f"--data {','.join(config.data)}")
    if config.learner.num_updates != base.learner.num_updates:
        words.append(f"--updates {config.learner.num_updates}")
    return " ".join(words)


def _begun_s(entries: Sequence[Entry]) -> float:
    return entries[0].time_s


def _parameters(checkpoint: Path) -> int:
    """Numbers in a checkpoint's weights."""
    from learner.checkpoints.initial import stored_arrays

    return sum(array.size for array in stored_arrays(checkpoint).values())


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
    parser.add_argument("--note", default="", help="what the page says of how it was trained")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    pairs = [word.partition("=") for word in arguments.other]
    other = {task: int(number) for task, _, number in pairs}
    name = RunFolder(folder.parent, folder.name).config().name
    if (arguments.preset or name) not in RUNS:
        parser.error(f"name what {name} was started from with --preset")
    result = collect(
        folder, arguments.preset, episodes=arguments.episodes, other=other, note=arguments.note
    )
    write(result, name)


if __name__ == "__main__":
    main()
