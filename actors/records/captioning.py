"""Captions of our own environments: pictures of a teacher's play, each with a sentence made of the
environment's state.

A sentence says what can be seen: of games where things are, from the emulator's RAM; of BabyAI what
is in sight and what is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from actors.envs.env import NoPictureError
from actors.envs.factory import WorkerEnvs
from actors.players.player import TimeStep
from actors.teachers.resolve import teacher_for
from actors.teachers.scripted import Boxing, Freeway, Pong
from gato.task import Task
from gato.text import bytes_to_text
from gato.threads import use_threads

EVERY_STEPS = 8
"""Steps from one picture to the next."""
MOST_PICTURES = 64
"""Of one episode."""
MOST_THINGS = 3
"""Things in sight that a sentence of BabyAI names."""
LEVELS = "minigrid:BabyAI-"
Row = Mapping[str, Shaped[np.ndarray, "..."]]
Describe = Callable[[Row, Row], str]
"""A sentence of what one environment shows and what only a teacher may look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """Pictures of one episode with their sentences."""

    seed: int
    pictures: list[UInt8[np.ndarray, "H W 3"]]
    captions: list[str]


def _pong(shown: Row, extras: Row) -> str:
    del shown
    x, y, paddle = (int(extras["ram"][at]) for at in (Pong.BALL_X, Pong.BALL, Pong.PADDLE))
    own = f"the right paddle is {_third(paddle, 80, 150, ('high', 'in the middle', 'low'))}"
    if not y:
        return f"there is no ball, {own}"
    across = _third(x, 105, 155, ("left", "in the middle", "right"))
    return f"the ball is {across} and {'high' if y < Pong.MIDDLE else 'low'}, {own}"


def _freeway(shown: Row, extras: Row) -> str:
    del shown
    height = int(extras["ram"][Freeway.CHICKEN])
    return f"the chicken is {_third(height, 60, 120, ('low', 'half way', 'high'))}"


def _boxing(shown: Row, extras: Row) -> str:
    del shown
    x, other_x, y, other_y = (
        int(extras["ram"][at]) for at in (Boxing.X, Boxing.OTHER_X, Boxing.Y, Boxing.OTHER_Y)
    )
    side = "left" if x <= other_x else "right"
    return f"the white boxer is {side} of the black one and {'above' if y < other_y else 'below'}"


def _level(shown: Row, extras: Row) -> str:
    from actors.envs.babyai import in_sight  # an extra

    del extras
    things = in_sight(shown["view"])[:MOST_THINGS]
    seen = ", ".join(f"a {thing}" for thing in things) or "nothing"
    return f"in sight: {seen}; {bytes_to_text(shown['mission'])}"


def _third(value: int, low: int, high: int, names: tuple[str, str, str]) -> str:
    return names[(value >= low) + (value >= high)]


GAMES: Mapping[str, Describe] = {
    "atari/pong": _pong,
    "atari/freeway": _freeway,
    "atari/boxing": _boxing,
}


def describe_of(task: Task) -> Describe:
    """What makes sentences of a task. Raises ValueError if nothing does."""
    found = _level if task.name.startswith(LEVELS) else GAMES.get(task.name)
    if found is None:
        raise ValueError(
            f"there are no sentences for {task.name}; captions are made of {', '.join(GAMES)} and"
            f" {LEVELS}..."
        )
    return found


def caption(task: Task, *, episodes: int, seed: int) -> Iterator[Captioned]:
    """Play the task's teacher on the seeds `seed`, `seed` + 1, ...; yield the pictures of each
    episode and their sentences. The same arguments yield the same.

    Raises:
        ValueError: if there are no sentences for the task, no teacher, or it cannot be drawn.
    """
    describe = describe_of(task)
    use_threads()
    teacher = teacher_for(task, noise=0.0)
    envs = WorkerEnvs(backend="loop")(task, 1)
    try:
        for number in range(seed, seed + episodes):
            envs.reset_row(0, number)
            made = Captioned(seed=number, pictures=[], captions=[])
            step, is_over, at = None, False, 0
            while not is_over and len(made.pictures) < MOST_PICTURES:
                shown = {name: values.copy() for name, values in envs.observations.items()}
                extras = envs.extras()
                if at % EVERY_STEPS == 0:
                    made.pictures.append(envs.picture(0))
                    made.captions.append(describe(_first(shown), _first(extras)))
                step = TimeStep(
                    observations=shown,
                    rewards=np.zeros(1, np.float32),
                    active=np.ones(1, np.bool_),
                    is_first=np.array([step is None]),
                    seeds=np.array([number]),
                    extras=extras,
                )
                _, terminated, truncated = envs.step(teacher.act(step), step.active)
                is_over, at = bool(terminated[0] or truncated[0]), at + 1
            yield made
    except NoPictureError as problem:
        raise ValueError(str(problem)) from problem
    finally:
        envs.close()


def _first(arrays: Mapping[str, Shaped[np.ndarray, "1 ..."]]) -> Row:
    return {name: values[0] for name, values in arrays.items()}
