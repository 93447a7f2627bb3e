"""Meta-World's scripted experts as teachers, and what they were measured at."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from actors.envs.packages import require_package
from actors.tasks.metaworld_table import ENV_ID, EXPERT_EPISODES, FIRST_SEED, MEASURED
from actors.teachers.control_rules import ControlRule, Observed
from gato.task import Task


def expert(task: Task) -> ControlRule:
    """The expert of a task, which decides from the present state. Raises ValueError if metaworld is
    not installed."""
    require_package(task)
    from metaworld.policies import ENV_POLICY_MAP  # pyright: ignore[reportMissingImports]

    policy: Any = ENV_POLICY_MAP[str(task.env_kwargs["env_name"])]()

    def act(shown: Observed) -> Float[np.ndarray, "N A"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its gains are large on purpose: actions are clipped
            wanted = [policy.get_action(state) for state in shown["state"].astype(np.float64)]
        return np.clip(np.stack(wanted), -1.0, 1.0).astype(np.float32)

    return act


def _record(name: str) -> Mapping[str, Any]:
    _, mean, std, least, solved = MEASURED[name]
    return {
        "command": (
            f"python -m actors.teachers.measure metaworld/{name} --episodes {EXPERT_EPISODES}"
            f" --seed {FIRST_SEED} --noise 0"
        ),
        "measured_seeds": [FIRST_SEED, FIRST_SEED + EXPERT_EPISODES],
        "return_mean": mean,
        "return_std": std,
        "return_min": least,
        "success": solved / EXPERT_EPISODES,
        "steps_mean": 500.0,
        "versions": {
            "env_id": ENV_ID,
            "engine": "mujoco 4.0.0, metaworld 3.0.0",
            "gymnasium": "1.2.2",
        },
    }


EXPERT_RECORDS: Mapping[str, Mapping[str, Any]] = {
    f"metaworld/{name}": _record(name) for name in MEASURED
}
"""By task."""
