"""Trains one model with several settings and seeds on the same stored episodes, and plays it.

A study is a sweep of `gato sweep` over given settings, without its drawing and its scheduler: a
trial reads the same batches as any other of its seed, and is evaluated on the same episodes.
Results are kept trial by trial, so that a study that was ended goes on where it was.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import ROOT, about
from cluster.sweep.build import Asked, make_sweep
from cluster.sweep.folder import SweepFolder
from cluster.sweep.merge import merge_data
from cluster.sweep.plan import SweepConfig
from cluster.sweep.space import Value
from cluster.sweep.state import TrialState
from cluster.sweep.training import train

RESULTS = ROOT / "docs" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is trained."""

    name: str
    """Of its files in docs/results."""
    base: str
    """A preset, or a config file."""
    data: Sequence[str]
    settings: Sequence[str]
    """Of all trials, as `path=value`."""
    trials: Sequence[Mapping[str, Value]]
    """Settings of each."""
    updates: int
    evaluate_every: int
    episodes: int
    """Of each task in an evaluation."""
    labels: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Kept with each of its trials."""
    bf16: bool = False
    """Products in bfloat16, alike in all trials."""
    last: Callable[[Path, SweepConfig], Mapping[str, Any]] | None = None
    """Measures more of a trained trial, given its folder; kept with the trial."""


def gato(*words: str) -> None:
    """Run a command of `gato`; RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cluster.cli.main", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"gato {' '.join(words)}: {done.stderr or done.stdout}")


def record(task: str, episodes: int, *, name: str, seed: int = 0) -> None:
    """Record a teacher's episodes as a data set, unless it is there."""
    if not (Path(os.environ["GATO_RUNS"]) / "data" / name).is_dir():
        gato("record", task, "--episodes", str(episodes), "--name", name, "--seed", str(seed))


def carry_out(study: Study) -> list[dict[str, Any]]:
    """Train the trials that docs/results/NAME.json does not have yet; return what it has of this
    study."""
    file = RESULTS / f"{study.name}.json"
    kept: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    if all(_has(kept, {**study.labels, **settings}) for settings in study.trials):
        return kept
    bf16 = f"learner.bf16={str(study.bf16).lower()}"
    sweep = make_sweep(
        Asked(
            base=study.base, name=study.name, data=study.data, over=["seed=choice:0,1"],
            settings=[*study.settings, bf16], scheduler="none", reduction=None,
            trials=len(study.trials), updates=study.updates, evaluate_every=study.evaluate_every,
            episodes=study.episodes, seed=None, cpus=1, gpus=0,
        )
    )  # fmt: skip
    folder = SweepFolder.create(sweep)
    if not sweep.stores:
        store = merge_data(sweep.base, folder.path / "replay", Console(quiet=True))
        sweep = replace(sweep, stores=(str(store),))
    for number, settings in enumerate(study.trials, start=1):
        label = {**study.labels, **settings}
        if _has(kept, label):
            continue
        trial = _trained(folder, sweep, number, settings)
        if study.last is not None:
            trial |= study.last(folder.trial_path(number, 0), sweep)
        kept.append({"settings": label, **trial, "machine": about()})
        file.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"{study.name}: {label}: {trial['slices'][-1]}", flush=True)
    return kept


def _has(kept: Iterable[Mapping[str, Any]], label: Mapping[str, Any]) -> bool:
    return any(trial["settings"] == label for trial in kept)


def _trained(
    folder: SweepFolder, sweep: SweepConfig, number: int, settings: Mapping[str, Value]
) -> dict[str, Any]:
    state = TrialState(number=number, settings=settings)
    folder.make_trial(sweep, state)
    begun_s = time.monotonic()
    return {
        "slices": [
            {
                "step": each.step,
                "loss": None if each.loss is None else round(each.loss, 4),
                "score": round(each.score, 4),
                "returns": {task: round(mean, 2) for task, mean in each.returns.items()},
                "minutes": round((time.monotonic() - begun_s) / 60.0, 2),
            }
            for each in train(folder.trial_path(number, 0), sweep, reported_step=0)
        ],
        "scales": {
            name: {"random": scale.random_return, "teacher": scale.teacher_return}
            for name, scale in sweep.scales.items()
        },
    }


def with_mean_scores(trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trials with scores that are the mean of the tasks' normalised returns: a sweep's score is
    the interquartile mean of episodes, which of two tasks follows the worse one."""

    def scored(trial: Mapping[str, Any], each: Mapping[str, Any]) -> dict[str, Any]:
        scales = trial["scales"]
        return {
            **each,
            "score": statistics.mean(
                (value - scales[task]["random"])
                / (scales[task]["teacher"] - scales[task]["random"])
                for task, value in each["returns"].items()
            ),
        }

    return [
        {**trial, "slices": [scored(trial, each) for each in trial["slices"]]} for trial in trials
    ]


def last_scores(trials: Iterable[Mapping[str, Any]], **labels: object) -> list[float]:
    """The scores of the last checkpoints of the trials that have these settings."""
    return [
        trial["slices"][-1]["score"]
        for trial in trials
        if all(trial["settings"].get(name) == value for name, value in labels.items())
    ]
