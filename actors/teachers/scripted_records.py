"""The returns that scripted teachers were measured at, and the command that measures them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _record(
    game: str, *, episodes: int, mean: float, std: float, least: float, steps: float
) -> Mapping[str, Any]:
    """A record as `python -m actors.teachers.measure TASK` prints it."""
    name = f"atari/{game}"
    camel = "".join(part.capitalize() for part in game.split("-"))
    return {
        "command": (f"python -m actors.teachers.measure {name} --episodes {episodes} --seed 20000"),
        "measured_seeds": [20_000, 20_000 + episodes],
        "return_mean": mean,
        "return_std": std,
        "return_min": least,
        "steps_mean": steps,
        "versions": {"env_id": f"ALE/{camel}-v5", "engine": "ale-py 0.12.1", "gymnasium": "1.2.2"},
    }


RECORDS: Mapping[str, Mapping[str, Any]] = {
    "atari/freeway": _record("freeway", episodes=20, mean=31.55, std=0.5, least=31.0, steps=2045.2),
    "atari/pong": _record("pong", episodes=30, mean=20.23, std=0.8, least=19.0, steps=3023.6),
    "atari/breakout": _record(
        "breakout", episodes=30, mean=101.73, std=20.46, least=67.0, steps=1514.9
    ),
    "atari/boxing": _record("boxing", episodes=20, mean=69.75, std=9.83, least=54.0, steps=1316.0),
    "atari/demon-attack": _record(
        "demon-attack", episodes=20, mean=4114.25, std=1608.62, least=1520.0, steps=3928.4
    ),
}
"""By task."""
