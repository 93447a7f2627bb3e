"""What a sweep found: its table, the best settings as a file and as a command, a picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.monitor.format import NONE, literal, number_text, score_text
from cluster.monitor.table import print_table
from cluster.runs.config_file import write_config
from cluster.sweep.build import best_config, start_words
from cluster.sweep.folder import SweepFolder
from cluster.sweep.picture import draw
from cluster.sweep.plan import SweepConfig
from cluster.sweep.settings import as_words
from cluster.sweep.state import TrialState, best_of, ranked
from gato.serialization import to_plain

BEST, PICTURE = "best.yaml", "picture.svg"


def write_results(folder: SweepFolder, sweep: SweepConfig, trials: Sequence[TrialState]) -> None:
    """Write the best settings and the picture into the sweep's folder; nothing while no trial has a
    score."""
    best = best_of(trials)
    if best is None:
        return
    write_config(best_config(sweep, best.settings), folder.path / BEST)
    (folder.path / PICTURE).write_text(draw(sweep, trials))


def print_sweep(
    folder: SweepFolder, sweep: SweepConfig, trials: Sequence[TrialState], console: Console
) -> None:
    """Print the table of trials, the best first, and what to do with the best settings."""
    paths = list(sweep.over)
    short = _short_names(paths)
    rows = [
        [
            str(trial.number),
            score_text(trial.score),
            f"{trial.step:,}",
            *(_value_text(trial.settings.get(path)) for path in paths),
            number_text(trial.reports[-1].loss if trial.reports else None),
            f"{trial.word}{f': {trial.reason}' if trial.reason else ''}",
        ]
        for trial in ranked(trials)
    ]
    print_table(
        ["trial", "score", "updates", *short, "loss", "state"],
        rows,
        console,
        left=["state"],
        clipped=["state"],
    )
    best = best_of(trials)
    if best is None:
        return
    console.print(
        f"score: interquartile mean of normalised returns; episodes of each task: {sweep.episodes};"
        " of the best of many it is too high: play it again with more episodes",
        highlight=False,
    )
    if best.generation:
        console.print(
            "pbt changed the settings of the best trial on its way; those shown are the last ones",
            highlight=False,
        )
    checkpoints = folder.trial_path(best.number, best.generation) / "checkpoints"
    checkpoint = checkpoints / f"step-{best.step:09d}"
    lines = [
        shlex.join(start_words(sweep, best.settings) or ["gato", "start", _shown(folder, BEST)]),
        f"gato start {shlex.quote(_shown(folder, BEST))}",
    ]
    if checkpoint.is_dir():
        lines.append(f"gato evaluate {shlex.quote(str(_near(checkpoint)))} --episodes 20")
    for line in dict.fromkeys(lines):
        console.print(literal(line), highlight=False, soft_wrap=True)
    console.print(f"picture {literal(_shown(folder, PICTURE))}", highlight=False, soft_wrap=True)


def to_json(
    folder: SweepFolder, sweep: SweepConfig, trials: Sequence[TrialState]
) -> Mapping[str, object]:
    """What `gato sweep show --json` prints."""
    best = best_of(trials)
    return {
        "sweep": folder.name,
        "active": folder.is_active,
        "scheduler": sweep.scheduler,
        "updates": sweep.updates,
        "over": dict(sweep.over),
        "best": best.number if best else None,
        "trials": [_trial_json(trial) for trial in ranked(trials)],
    }


def _trial_json(trial: TrialState) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.word,
        "reason": trial.reason,
        "score": trial.score,
        "updates": trial.step,
        "generation": trial.generation,
        "settings": dict(trial.settings),
        "start": as_words(trial.settings),
        "reports": [to_plain(report) for report in trial.reports],
    }


def _shown(folder: SweepFolder, file: str) -> str:
    return str(_near(folder.path / file))


def _near(path: Path) -> Path:
    """The path from here, where it is below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _value_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None else str(value)


def _short_names(paths: Sequence[str]) -> list[str]:
    """The last words of the paths; whole ones where two would be alike."""
    last = [path.rpartition(".")[2] for path in paths]
    return [name if last.count(name) == 1 else path for name, path in zip(last, paths, strict=True)]
