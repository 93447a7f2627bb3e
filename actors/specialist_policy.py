"""A specialist's policy for playing: a small tanh network on normalised observations, in NumPy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file

SHIPPED = Path(__file__).parent / "specialists"


class Specialist:
    """Maps observations [N, obs] to the mean of a Gaussian over actions [N, act]; its record says how it was made.

    specialist = load_specialist("mujoco/hopper")
    actions = specialist.mean(observations)
    """

    def __init__(self, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        self.record = record
        self._mean, self._std = arrays["obs_mean"], arrays["obs_std"]
        self._clip = float(record["observation_clip"])
        self._low, self._high = float(record["action_low"]), float(record["action_high"])
        self.action_std: Float[np.ndarray, " act"] = np.exp(arrays["log_std"])
        """Standard deviation of its actions in training."""
        count = sum(name.endswith(".weight") for name in arrays)
        self._layers = [(arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]) for i in range(count)]

    @property
    def observation_size(self) -> int:
        return len(self._mean)

    def mean(self, observations: Float[np.ndarray, "N obs"]) -> Float[np.ndarray, "N act"]:
        """The greedy actions, clipped to the bounds."""
        if observations.shape[-1] != self.observation_size:
            raise ValueError(
                f"observations have {observations.shape[-1]} numbers, the specialist of {self.record['env_id']} was trained "
                f"on {self.observation_size}; it is for another version of the environment, train one for this with "
                f"`gato teach {self.record['task']}`"
            )
        x = np.clip((observations - self._mean) / self._std, -self._clip, self._clip)
        for weight, bias in self._layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = self._layers[-1]
        return self.clip(x @ weight.T + bias)

    def clip(self, actions: Float[np.ndarray, "N act"]) -> Float[np.ndarray, "N act"]:
        """Actions inside the bounds."""
        return np.clip(actions, self._low, self._high).astype(np.float32)


def load_specialist(task_name: str, folder: Path = SHIPPED) -> Specialist:
    """The specialist of a task. ValueError where there is none, or where its files do not belong together."""
    stem = folder / task_name.split("/")[-1]
    weights, record = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    if not weights.is_file() or not record.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.safetensors"))) or "none"
        raise ValueError(
            f"no specialist for {task_name} in {folder} (there: {known}); train one with `gato teach {task_name}`"
        )
    about = json.loads(record.read_text())
    if about["task"] != task_name:
        raise ValueError(f"{record} is of task {about['task']}, not {task_name}")
    return Specialist(load_file(weights), about)
