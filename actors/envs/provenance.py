"""What is recorded of an environment with its episodes: its versions, and Gymnasium's spec of
it."""

from __future__ import annotations

import copy
import os
from importlib import metadata

import ale_py
import gymnasium
import mujoco
from gymnasium.envs.registration import WrapperSpec

from actors.envs.env import ENV_PYTHON
from actors.envs.gymnasium_env import registered
from actors.envs.packages import OUTSIDE_ID
from gato.task import Task


def env_spec_of(task: Task) -> str:
    """Gymnasium's spec of the task's environment as JSON, so that users of a data set can make it
    again.

    A game is described before it is resized: 210x160 RGB, the maximum of the last two frames.
    """
    spec = copy.deepcopy(registered(task.env_id))
    if task.family == "atari":
        skip = int(task.env_kwargs["frameskip"])
        spec.kwargs |= {
            "frameskip": 1,
            "repeat_action_probability": float(task.env_kwargs["sticky"]),
            "full_action_space": True,
        }
        wrapper = "gymnasium.wrappers.stateful_observation:MaxAndSkipObservation"
        skipping = WrapperSpec(
            name="MaxAndSkipObservation", entry_point=wrapper, kwargs={"skip": skip}
        )
        spec.additional_wrappers = (*spec.additional_wrappers, skipping)
    elif task.family != "mujoco":
        spec.kwargs |= dict(task.env_kwargs)
        spec.max_episode_steps = task.max_steps
    return spec.to_json()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def versions_of(task: Task) -> dict[str, str]:
    """The environment's id and the versions of its engine and of Gymnasium: episodes of different
    ones may not be comparable."""
    engines = {
        "mujoco": f"mujoco {mujoco.__version__}",
        "atari": f"ale-py {ale_py.__version__}",
        "gymnasium": f"gymnasium {gymnasium.__version__}",
        "metaworld": f"mujoco {mujoco.__version__}, metaworld {_version('metaworld')}",
        "dm-control": f"mujoco {mujoco.__version__}, dm_control {_version('dm-control')}",
    }
    outside = task.env_id.endswith(OUTSIDE_ID)
    python = str(task.env_kwargs.get("python") or os.environ.get(ENV_PYTHON, ""))
    versions = {
        "env_id": str(task.env_kwargs["env_id"]) if outside else task.env_id,
        "engine": f"in another interpreter: {python}" if outside else engines[task.family],
        "gymnasium": gymnasium.__version__,
    }
    sticky = float(task.env_kwargs.get("sticky", 0.0))
    return versions | ({"sticky": f"{sticky:g}"} if sticky else {})
