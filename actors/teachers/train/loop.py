"""Trains a specialist: resumes from the last checkpoint, keeps the best weights, and measures
them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from actors.envs.factory import make_envs
from actors.envs.packages import require_package
from actors.envs.provenance import versions_of
from actors.rollout import play
from actors.tasks.catalog import TASKS
from actors.teachers.kinds import SpecialistTeacher
from actors.teachers.resolve import TAUGHT
from actors.teachers.specialist import Specialist, file_stem
from actors.teachers.specialist_files import read_arrays
from actors.teachers.train.config import SpecialistConfig
from gato.files import damaged, read_json
from gato.task import Task, find_task

OBSERVATION_CLIP = 10.0
SELECTION_SEEDS = range(500, 510)
"""Seeds of the evaluations that choose the best weights."""
MEASURE_SEEDS = range(20_000, 20_020)
"""Seeds of fresh episodes, on which the best weights are measured."""
CHECKPOINT_EVERY = 20
"""Iterations between two checkpoints: half a minute of PPO on two cores."""


@runtime_checkable
class Trainer(Protocol):
    """What the training needs of an algorithm."""

    algorithm: str
    """Its name and version."""

    def iterate(self) -> tuple[int, float]:
        """Train a little.

        Returns:
            Environment steps made in all, and the mean return of the last episodes, which is not
            finite if none has ended.
        """
        ...

    def export(self) -> dict[str, np.ndarray]:
        """Copies of the arrays of a `Specialist`."""
        ...

    def save(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...

    def stop(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class _State:
    """The progress of a training, without the algorithm's own state."""

    steps: int = 0
    iteration: int = 0
    best_return: float = -np.inf
    best_steps: int = 0
    wall_s: float = 0.0
    best: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


def checkpoint_folder(out: Path, config: SpecialistConfig) -> Path:
    """The folder of the training's checkpoint, next to the files that it will write."""
    return out / f"{file_stem(config.task)}.{config.algorithm}.{config.seed}.training"


def _sibling(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}.{name}")


def _discard(folder: Path) -> None:
    """Delete a folder. It is renamed first, so that an interrupted deletion leaves no half of it in
    its place."""
    old = _sibling(folder, "old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _save(folder: Path, config: SpecialistConfig, trainer: Trainer, state: _State) -> None:
    """Write a checkpoint next to the last one, and replace that: an interruption leaves one that is
    complete."""
    new = _sibling(folder, "new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    trainer.save(new / "algorithm")
    if state.best:
        save_file(state.best, new / "best.safetensors")
    numbers = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "best"}
    part = new / "state.part"
    part.write_text(json.dumps({"config": asdict(config), **numbers}))
    part.rename(new / "state.json")  # the last file: with it the folder is complete
    _discard(folder)
    new.rename(folder)


def _load(folder: Path, config: SpecialistConfig, trainer: Trainer) -> _State:
    """The state of the training in `folder`, which is loaded into the trainer; a new state if there
    is none. Raises ValueError if the checkpoint is damaged, or has other settings."""
    new = _sibling(folder, "new")
    # The training was interrupted between writing this newer checkpoint and renaming it.
    if (new / "state.json").is_file():
        _discard(folder)
        new.rename(folder)
    if not folder.is_dir():
        return _State()
    file, fix = folder / "state.json", f"delete {folder} to train from the beginning"
    if not file.is_file():
        raise damaged(file, "it is missing", fix=fix)
    numbers = read_json(file, fix=fix)
    kept, wanted = numbers.pop("config", None), json.loads(json.dumps(asdict(config)))
    expected = {f.name for f in fields(_State) if f.name != "best"}
    if not isinstance(kept, dict) or not numbers.keys() <= expected:
        raise damaged(file, f"expected config and {', '.join(sorted(expected))}", fix=fix)
    if kept != wanted:
        other = ", ".join(
            f"{key} {kept.get(key)} there, {value} here"
            for key, value in wanted.items()
            if kept.get(key) != value
        )
        raise ValueError(
            f"{folder} holds a training with other settings ({other}); go on with the same ones, or"
            " delete the folder"
        )
    trainer.restore(folder / "algorithm")
    best = folder / "best.safetensors"
    return _State(**numbers, best=read_arrays(best, fix=fix) if best.is_file() else {})


def returns_of(
    task: Task, specialist: Specialist, seeds: range, *, noise: float = 0.0
) -> Float[np.ndarray, " episodes"]:
    """Returns of the specialist, one episode for each seed; `noise` is in its own standard
    deviations."""
    teacher = SpecialistTeacher(task, noise=noise, specialist=specialist, perturb_all=True)
    envs = make_envs(task, min(10, len(seeds)))
    episodes = play(envs, teacher, list(seeds), source="measure", new_key=lambda: "measure")
    returns = np.array([episode.episode_return for episode in episodes])
    envs.close()
    return returns


def train_specialist(
    config: SpecialistConfig,
    out: Path,
    *,
    progress: Callable[[int, float | None], None],
    make_trainer: Callable[[SpecialistConfig, Task], Trainer],
) -> dict[str, Any]:
    """Train, keep the best weights of regular evaluations, measure them, and write both files.

    After an interruption, the same call resumes from the last checkpoint, in a folder next to the
    files, which is deleted when the training is done.

    Args:
        out: Folder of the two files.
        progress: Called after each iteration with the environment steps made, and the latest mean
            return of training episodes (None if none has ended).
        make_trainer: Makes the algorithm.

    Returns:
        The record of the specialist.

    Raises:
        ValueError: if the task is not a robot, or the checkpoint is of other settings.
    """
    task = find_task(config.task, TASKS)
    if task.family not in TAUGHT:
        raise ValueError(
            f"{task.name} is not a robot; specialists are trained on tasks such as mujoco/hopper"
            " and dm-control/cheetah-run"
        )
    require_package(task)
    about: dict[str, Any] = {
        "task": task.name,
        "env_id": task.env_id,
        "activation": "tanh" if config.algorithm == "ppo" else "relu",
        "observation_clip": OBSERVATION_CLIP if config.algorithm == "ppo" else 1e9,
        "action_low": task.action.low,
        "action_high": task.action.high,
        "squash": config.algorithm == "sac",
    }
    folder, trainer = checkpoint_folder(out, config), make_trainer(config, task)
    try:
        state, latest = _load(folder, config, trainer), None
        begun = time.monotonic() - state.wall_s
        while state.steps < config.env_steps:
            state.steps, mean_return = trainer.iterate()
            state.iteration += 1
            latest = mean_return if np.isfinite(mean_return) else latest
            progress(state.steps, latest)
            if state.iteration % config.evaluate_every == 0 or state.steps >= config.env_steps:
                arrays = trainer.export()
                mean = float(returns_of(task, Specialist(arrays, about), SELECTION_SEEDS).mean())
                if mean > state.best_return:
                    state.best, state.best_return, state.best_steps = arrays, mean, state.steps
            if state.iteration % CHECKPOINT_EVERY == 0 or state.steps >= config.env_steps:
                state.wall_s = time.monotonic() - begun
                _save(folder, config, trainer, state)
    finally:
        trainer.stop()
    specialist = Specialist(state.best, about)
    greedy = returns_of(task, specialist, MEASURE_SEEDS)
    sampled = returns_of(task, specialist, MEASURE_SEEDS, noise=1.0)
    record = about | {
        "algorithm": trainer.algorithm,
        "command": command_of(config),
        "config": asdict(config),
        "date": datetime.now(UTC).date().isoformat(),
        "env_steps": state.steps,
        "kept": (
            f"the best of evaluations every {config.evaluate_every} iterations (10 episodes), here"
            f" after {state.best_steps} steps"
        ),
        "measured_seeds": [MEASURE_SEEDS.start, MEASURE_SEEDS.stop],
        "return_mean": round(float(greedy.mean()), 2),
        "return_std": round(float(greedy.std()), 2),
        "sampled_return_mean": round(float(sampled.mean()), 2),
        "sampled_return_std": round(float(sampled.std()), 2),
        "versions": versions_of(task),
        "wall_s": round(time.monotonic() - begun, 1),
    }
    stem = out / file_stem(task.name)
    save_file(state.best, stem.with_suffix(".safetensors"))
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    _discard(folder)
    return record


def command_of(config: SpecialistConfig) -> str:
    """The command that trains the same specialist again."""
    more = "" if config.algorithm == "ppo" else f" --algorithm {config.algorithm}"
    return (
        f"python -m actors.teachers.train.rllib {config.task} --seed {config.seed} --steps"
        f" {config.env_steps}{more}"
    )
