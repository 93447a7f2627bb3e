"""Captions of our own environments as a data set: `gato record TASK --captions`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image
from rich.console import Console

from actors.records.captioning import Captioned, caption, describe_of
from actors.tasks.resolve import resolve_task
from cluster.runs.data import dataset_import
from gato.episode import Episode
from gato.task import CAPTIONS, Task
from replay.formats.reader import Attempt, Reading
from replay.formats.records.build import fit_image, records_episode
from replay.formats.records.split import is_nth


def record_captions(played: Task, name: str, *, episodes: int, seed: int, console: Console) -> None:
    """Store pictures of a teacher's play with their sentences, an episode each, one in 20 held out.
    Raises ValueError if there are no sentences for the task."""
    describe_of(played)
    task = resolve_task(f"{CAPTIONS}/{name}?answer_tokens=128")

    def opened(known: object) -> Reading:
        del known  # an episode is played either way
        return Reading(_attempts(played, task, name, episodes=episodes, seed=seed), total=episodes)

    origin = f"captions {played.name}"
    dataset_import.make(name, opened, {task.name: task}, console, origin=origin)


def _attempts(
    played: Task, task: Task, name: str, *, episodes: int, seed: int
) -> Iterator[Attempt]:
    for index, made in enumerate(caption(played, episodes=episodes, seed=seed)):
        is_held_out = is_nth(index, episodes)
        yield Attempt(
            what=f"seed {made.seed}",
            make=partial(_episode, played, task, name, made, is_held_out),
        )


def _episode(played: Task, task: Task, name: str, made: Captioned, is_held_out: bool) -> Episode:
    spec = task.observations["image"]
    return records_episode(
        task,
        key=f"captions:{played.name}:{made.seed}",
        name=name,
        is_held_out=is_held_out,
        what=f"seed {made.seed}",
        images=np.stack([fit_image(_png(one), spec, "a picture") for one in made.pictures]),
        answers=made.captions,
        info={"played": played.name},
    )


def _png(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=0)
    return out.getvalue()
