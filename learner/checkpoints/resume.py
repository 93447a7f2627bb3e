"""Resuming: the newest checkpoint that is whole, and what has changed since it was written."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gato.files import DamagedFile
from gato.network.model import Gato
from gato.serialization import from_plain, to_plain
from learner.checkpoints.files import clean_up, list_checkpoints, set_aside
from learner.checkpoints.state import Progress, load_checkpoint, read_record
from learner.config import LearnerConfig

Say = Callable[[str, str], None]
"""Kind and text of an event."""
RANDOM = "update i draws from default_rng([seed, i]); batch i is number i of replay"
SCHEDULE = ("num_updates", "max_rate", "warmup_updates", "final_rate_fraction")


def run_record(
    config: LearnerConfig, model: Gato, *, seed: int, epoch: int, task_names: Sequence[str]
) -> dict[str, Any]:
    """What `checkpoint.json` says of the run: settings with their hash, seed, epoch, tasks and the
    versions of the packages."""
    settings = to_plain(config)
    return {
        "learner": settings,
        "settings_sha256": settings_hash(settings, model.shape()),
        "seed": seed,
        "random": RANDOM,
        "epoch": epoch,
        "tasks": list(task_names),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "gato-ray": _own_version(),
        },
    }


def settings_hash(learner: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """SHA-256 of the learner's and the model's settings as sorted JSON."""
    text = json.dumps({"learner": learner, "model": to_plain(model)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _own_version() -> str:
    try:
        return version("gato-ray")
    except PackageNotFoundError:  # a source tree that was never installed
        return "unknown"


def resume(
    folder: Path,
    model: Gato,
    optimiser: torch.optim.Optimizer,
    record: Mapping[str, Any],
    say: Say,
) -> Progress | None:
    """Load the newest checkpoint that is whole; None if there is none at all.

    Damaged ones are named and renamed to `damaged-step-N`. Settings that differ from the
    checkpoint's are named with what they change.

    Raises:
        ValueError: All checkpoints are damaged, one cannot be read, or the model has another shape.
    """
    if not folder.is_dir():
        return None
    clean_up(folder)
    checkpoints = list_checkpoints(folder)
    for path in reversed(checkpoints):
        try:
            progress = load_checkpoint(path, model, optimiser)
        except OSError as problem:  # such as too many open files: the checkpoint may be whole
            raise ValueError(
                f"cannot read the checkpoint {path} ({problem.strerror or problem}); start the run"
                " again when that is over, or move the checkpoint away"
            ) from problem
        except DamagedFile as problem:
            if path == checkpoints[0]:
                raise ValueError(
                    f"no checkpoint in {folder} is whole, the oldest because {problem}"
                ) from problem
            set_aside(path)
            say(
                "problem",
                f"the checkpoint {path.name} is not used, the one before it is: {problem}",
            )
            optimiser.state.clear()
            continue
        changes = changed_settings(read_record(path), record, progress.step)
        if changes:
            say("settings changed", f"since update {progress.step:,}: {'; '.join(changes)}")
        return progress
    return None


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], step: int) -> list[str]:
    """What differs between two records of a run, and what it means for the updates from `step`.
    Nothing for checkpoints that do not tell their settings."""
    if "learner" not in before:
        return []
    changes: list[str] = []
    was, is_now = before["learner"], now["learner"]
    names = [name for name in is_now if name in was and was[name] != is_now[name]]
    changes += [f"learner.{name} {was[name]} -> {is_now[name]}" for name in names]
    if any(name in SCHEDULE for name in names):
        changes.append(_schedule_change(was, is_now, step))
    for name, means in (
        ("seed", "updates draw other random numbers"),
        ("tasks", "reports name tasks in the new order"),
    ):
        if name in before and before[name] != now[name]:
            changes.append(f"{name} {before[name]} -> {now[name]}: {means}")
    versions = before.get("versions", {})
    changes += [
        f"{name} {versions[name]} -> {here}: results may differ in the last bits"
        for name, here in now["versions"].items()
        if name in ("torch", "numpy") and name in versions and versions[name] != here
    ]
    return changes


def _schedule_change(was: Mapping[str, Any], now: Mapping[str, Any], step: int) -> str:
    known = {name: was[name] for name in ("num_updates", *SCHEDULE[1:]) if name in was}
    schedules = [
        from_plain(LearnerConfig, {**now, **settings}).schedule for settings in (known, {})
    ]
    rates = [schedule.at(step) for schedule in schedules]
    ends = [schedule.num_updates for schedule in schedules]
    how = "longer" if ends[1] > ends[0] else "shorter" if ends[1] < ends[0] else "as long"
    return (
        f"the schedule is {how}, and the rate of the next update is {rates[1]:.3g} instead of"
        f" {rates[0]:.3g}"
    )
