"""Procgen's 16 games and Sokoban, whose packages need an interpreter of their own
(`actors.env_python`)."""

from __future__ import annotations

from collections.abc import Mapping

from gato.array_spec import ArraySpec, Kind
from gato.task import References, Task

ENV_ID = "actors.envs.adapters.outside_env:gato/Outside-v0"
PROCGEN = (
    "Cobbe et al. 2020, appendix C, easy levels: what an agent without observations gets, and the"
    " most there is or that was reached"
)
RETURNS: Mapping[str, tuple[float, float]] = {
    "bigfish": (1.0, 40.0),
    "bossfight": (0.5, 13.0),
    "caveflyer": (3.5, 12.0),
    "chaser": (0.5, 13.0),
    "climber": (2.0, 12.6),
    "coinrun": (5.0, 10.0),
    "dodgeball": (1.5, 19.0),
    "fruitbot": (-1.5, 32.4),
    "heist": (3.5, 10.0),
    "jumper": (3.0, 10.0),
    "leaper": (3.0, 10.0),
    "maze": (5.0, 10.0),
    "miner": (1.5, 13.0),
    "ninja": (3.5, 10.0),
    "plunder": (4.5, 30.0),
    "starpilot": (2.5, 64.0),
}
"""By game of Procgen: the least and the most return."""
SOKOBAN: Mapping[str, tuple[str, int]] = {"boxes-2": ("small-v0", 112), "boxes-4": ("v0", 160)}
"""By name: the end of gym_sokoban's id, and the picture's height and width."""


def _image(size: int) -> Mapping[str, ArraySpec]:
    return {"image": ArraySpec(kind=Kind.IMAGE, shape=(size, size, 3))}


def _procgen(game: str) -> Task:
    least, most = RETURNS[game]
    return Task(
        name=f"procgen/{game}",
        env_id=ENV_ID,
        family="gymnasium",
        observations=_image(64),
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=15),
        references=References(random=least, expert=most, source=PROCGEN),
        max_steps=1000,
        aliases=(f"procgen-{game}-v0",),
        # A seed is a level: Procgen takes it when it is made, so it is made for each episode.
        env_kwargs={
            "env_id": f"procgen:procgen-{game}-v0",
            "distribution_mode": "easy",
            "num_levels": 1,
            "seed_as": "start_level",
        },
    )


def _sokoban(name: str) -> Task:
    version, size = SOKOBAN[name]
    return Task(
        name=f"sokoban/{name}",
        env_id=ENV_ID,
        family="gymnasium",
        observations=_image(size),
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=9),
        max_steps=120,
        aliases=(f"Sokoban-{version}",),
        env_kwargs={"env_id": f"gym_sokoban:Sokoban-{version}"},
    )


ELSEWHERE: tuple[Task, ...] = (*map(_procgen, RETURNS), *map(_sokoban, SOKOBAN))
