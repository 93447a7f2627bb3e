"""A tiny data set and sweeps on it, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from actors.tasks.resolve import resolve_task
from actors.teachers.demonstrate import demonstrate
from cluster.runs.data import dataset_import
from cluster.sweep.build import Asked, make_sweep
from cluster.sweep.folder import SweepFolder
from cluster.sweep.journal import Planned
from cluster.sweep.plan import SweepConfig, draw_trials
from gato.episode import Episode
from replay.formats.reader import Attempt, Reading, attempt_of

TASK = "mujoco/inverted-pendulum"
ASKED = Asked(
    base="debug",
    name=None,
    data=["poles"],
    over=["learner.max_rate=log:1e-4:3e-3"],
    settings=[],
    scheduler="asha",
    reduction=None,
    trials=3,
    updates=6,
    evaluate_every=2,
    episodes=1,
    seed=None,
    cpus=1,
    gpus=0,
)


def record(name: str = "poles", *, episodes: int = 2, seed: int = 0) -> None:
    """A data set of a teacher's episodes."""
    task = resolve_task(TASK)

    def attempt(episode: Episode) -> Attempt:
        return attempt_of(episode, task=task)

    dataset_import.make(
        name,
        lambda known: Reading(
            map(attempt, demonstrate(task, episodes=episodes, seed=seed, teacher_spec="")),
            total=episodes,
        ),
        {task.name: task},
        Console(quiet=True),
        origin="a test",
    )


def asked(**changes: Any) -> Asked:
    return replace(ASKED, **changes)


def sweep_of(**changes: Any) -> SweepConfig:
    return make_sweep(asked(**changes))


def planned(sweep: SweepConfig) -> SweepFolder:
    """The folder of a sweep whose trials were drawn."""
    folder = SweepFolder.create(sweep)
    for number, settings in enumerate(draw_trials(sweep), 1):
        folder.journal.append(Planned(trial=number, settings=settings))
    return folder
