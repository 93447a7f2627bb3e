"""A specialist: a small network on normalised observations, computed by NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from actors.teachers.specialist_files import read_arrays, read_record
from gato.compatibility.compare import compare
from gato.compatibility.environment import Comparison, EnvDescription, rescaled
from gato.task import Task

SHIPPED = Path(__file__).parent / "weights"
ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leakyrelu": lambda x: np.maximum(x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}


class Specialist:
    """Maps observations [N, obs] to greedy actions [N, act]; its record says how it was made.

    specialist = load_specialist("mujoco/hopper")
    actions = specialist.mean(observations)

    Arrays: `obs_mean` and `obs_std` [obs]; `log_std` [act], of its actions in training;
    `layer0.weight` [out, in] and `layer0.bias` [out], and so on. Entries of the record that are
    read: `observation_clip`; `activation` (of `ACTIVATIONS`); `output_clip`, bound of the last
    layer; `squash`, whether a tanh scales the last layer to the bounds of actions, as in SAC, or it
    is clipped to them; these bounds, `action_low` and `action_high`; `played_low` and
    `played_high`, bounds that actions are scaled to after that.
    """

    def __init__(self, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        self.record, self._arrays = record, arrays
        self._mean, self._std = arrays["obs_mean"], arrays["obs_std"]
        self._clip = float(record["observation_clip"])
        self._low, self._high = np.asarray(record["action_low"]), np.asarray(record["action_high"])
        self._activation = ACTIVATIONS[record.get("activation", "tanh")]
        self._output_clip = float(record.get("output_clip", np.inf))
        self._squash = bool(record.get("squash", False))
        count = sum(name.endswith(".weight") for name in arrays)
        self._layers = [
            (arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]) for i in range(count)
        ]
        self._played = self._bounds("played") if "played_low" in record else None
        self.action_std: Float[np.ndarray, " act"] = np.exp(arrays["log_std"])
        """Standard deviation of its actions in training, on the scale of the played actions."""
        if self._played is not None:
            (low, high), own = self._played, self._bounds("action")
            self.action_std = (
                self.action_std * (high - low) / np.where(own[1] > own[0], own[1] - own[0], 1.0)
            )

    def _bounds(self, name: str) -> tuple[Float[np.ndarray, " act"], Float[np.ndarray, " act"]]:
        low, high = (
            np.broadcast_to(
                np.asarray(self.record[f"{name}_{end}"], np.float64), (self.output_size,)
            )
            for end in ("low", "high")
        )
        return low, high

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of it (what was converted, allowed, found or is unknown), a line
        each."""
        return tuple(self.record.get("notes", ()))

    @property
    def observation_size(self) -> int:
        return len(self._mean)

    @property
    def output_size(self) -> int:
        """Size of the last layer: one output for each element of an action, or for each discrete
        action."""
        return len(self._layers[-1][1])

    def outputs(self, observations: Float[np.ndarray, "N obs"]) -> Float[np.ndarray, "N out"]:
        """The outputs of the last layer: means of a Gaussian, or logits."""
        if observations.shape[-1] != self.observation_size:
            raise ValueError(self._misfit(f"observations have {observations.shape[-1]} numbers"))
        x = np.clip((observations - self._mean) / self._std, -self._clip, self._clip)
        for weight, bias in self._layers[:-1]:
            x = self._activation(x @ weight.T + bias)
        weight, bias = self._layers[-1]
        return x @ weight.T + bias

    def mean(self, observations: Float[np.ndarray, "N obs"]) -> Float[np.ndarray, "N act"]:
        """The greedy actions, inside the bounds that they are played in."""
        outputs = self.outputs(observations)
        if self._squash:
            outputs = np.clip(outputs, -self._output_clip, self._output_clip)
            outputs = self._low + 0.5 * (np.tanh(outputs) + 1) * (self._high - self._low)
        if self._played is not None:
            outputs = rescaled(
                np.clip(outputs, self._low, self._high), self._bounds("action"), self._played
            )
        return self.clip(outputs)

    def clip(self, actions: Float[np.ndarray, "N act"]) -> Float[np.ndarray, "N act"]:
        """Actions inside the bounds that they are played in."""
        low, high = (self._low, self._high) if self._played is None else self._played
        return np.clip(actions, low, high).astype(np.float32)

    def require_fit(self, task: Task) -> None:
        """Raises ValueError if it was trained on another environment than the task's, or on another
        version of it."""
        if self.record["env_id"] != task.env_id:
            raise ValueError(
                f"a specialist of {self.record['env_id']} for task {task.name} of {task.env_id};"
                " these are different environments to it, train one for this with `gato teach"
                f" {task.name}`"
            )
        shown = sum(spec.size for spec in task.observations.values())
        if shown != self.observation_size:
            raise ValueError(self._misfit(f"task {task.name} shows {shown} numbers"))
        if self.output_size != task.action.size:
            raise ValueError(
                self._misfit(
                    f"task {task.name} takes {task.action.size} numbers and it returns"
                    f" {self.output_size}"
                )
            )

    def fitted(self, task: Task) -> Specialist:
        """The same specialist, its actions scaled to the task's bounds.

        Raises:
            ValueError: as `require_fit`, or if its bounds contradict the task's.
        """
        self.require_fit(task)
        low, high = self._bounds("action")
        compared = self._compared(task, low, high)
        compared.require()
        if compared.scale_from is None or task.action.bounds is None or self._played is not None:
            return self
        to_low, to_high = task.action.bounds
        notes = [*self.notes, *compared.notes]
        return Specialist(
            self._arrays,
            self.record | {"played_low": to_low, "played_high": to_high, "notes": notes},
        )

    def _compared(
        self, task: Task, low: Float[np.ndarray, " act"], high: Float[np.ndarray, " act"]
    ) -> Comparison:
        where = f"the specialist of {self.record['env_id']}"
        return compare(
            EnvDescription(where=where, env_id=self.record["env_id"], action_bounds=(low, high)),
            task,
        )

    def _misfit(self, got: str) -> str:
        return (
            f"{got}, the specialist of {self.record['env_id']} was trained on"
            f" {self.observation_size}; it is for another version of the environment, train one for"
            f" this with `gato teach {self.record['task']}`"
        )


def file_stem(task_name: str) -> str:
    """The stem of a task's files: `hopper` of v5, `mujoco-v4-hopper` of v4. A task with options has
    those of the task itself."""
    return task_name.partition("?")[0].removeprefix("mujoco/").replace("/", "-")


def load_specialist(task_name: str, folder: Path = SHIPPED) -> Specialist:
    """The specialist of a task. Raises ValueError if there is none, or its two files do not belong
    together."""
    stem = folder / file_stem(task_name)
    weights, record = stem.with_suffix(".safetensors"), stem.with_suffix(".json")
    if not weights.is_file() or not record.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.safetensors"))) or "none"
        raise ValueError(
            f"no specialist for {task_name} in {folder} (there: {known}); "
            + (
                f"train one with `gato teach {task_name.partition('?')[0]}`"
                if task_name.startswith("mujoco")
                else "`gato teach` trains robots'"
            )
        )
    about = read_record(record, frozenset(ACTIVATIONS))
    if about["task"] != task_name.partition("?")[0]:
        raise ValueError(f"{record} is of task {about['task']}, not {task_name}")
    specialist = Specialist(read_arrays(weights), about)
    for end in ("action_low", "action_high"):
        if np.size(about[end]) not in (1, specialist.output_size):
            raise ValueError(
                f"{record} has {np.size(about[end])} numbers in {end}, its network returns"
                f" {specialist.output_size}; copy both files again, or train it again with `gato"
                f" teach {task_name}`"
            )
    return specialist
