"""The returns that the rules for dm_control were measured at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EPISODES, FIRST_SEED = 20, 20_000
MEASURED: Mapping[str, tuple[float, float, float]] = {
    "pendulum-swingup": (815.0, 113.7, 637.0),
    "cartpole-balance": (999.81, 0.16, 999.4),
    "cartpole-balance-sparse": (1000.0, 0.0, 1000.0),
    "cartpole-swingup": (793.38, 26.06, 691.81),
    "cartpole-swingup-sparse": (604.95, 40.28, 440.0),
    "point-mass-easy": (891.66, 30.27, 856.7),
    "reacher-easy": (981.8, 8.73, 969.0),
    "reacher-hard": (972.1, 9.9, 958.0),
}
"""By task: mean, standard deviation and least of the returns, of 1,000 at most."""


def _record(name: str) -> Mapping[str, Any]:
    """A record as `python -m actors.teachers.measure TASK` prints it."""
    mean, std, least = MEASURED[name]
    return {
        "command": (
            f"python -m actors.teachers.measure dm-control/{name} --episodes {EPISODES} --seed"
            f" {FIRST_SEED} --noise 0"
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
