"""Experiment trackers that speak nearly one language (init, log, finish): Weights & Biases, trackio
and SwanLab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, final, get_args

from cluster.exporters.series import Sample

TrackerName = Literal["wandb", "trackio", "swanlab"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)
STEP = "updates"
"""The series that Weights & Biases draws the others over: it takes steps in growing order alone,
and evaluations are of older weights than the learner's newest."""


@final
class Tracker:
    """A run in a tracker, by the name that it has here."""

    def __init__(
        self,
        name: TrackerName,
        *,
        project: str,
        run: str,
        run_id: str,
        settings: Mapping[str, Any],
        folder: Path,
    ) -> None:
        """Begin, or go on with, the run in the tracker.

        Args:
            name: Which tracker; its own settings and login are in its own files and environment.
            project: Of the tracker.
            run: Its name there.
            run_id: Of the run, by which the tracker goes on with it.
            settings: Shown with it.
            folder: For the tracker's files.

        Raises:
            ValueError: The tracker is not installed, or does not begin.
        """
        try:
            self._module: Any = import_module(name)
        except ImportError as problem:
            raise ValueError(
                f"{name} is not installed; install it beside gato-ray: pip install {name}"
            ) from problem
        self._name = name
        folder.mkdir(parents=True, exist_ok=True)
        own: dict[TrackerName, dict[str, Any]] = {
            "wandb": {"name": run, "id": run_id, "resume": "allow", "dir": str(folder)},
            "trackio": {"name": run, "resume": "allow"},
            "swanlab": {"name": run, "id": run_id, "resume": "allow", "log_dir": str(folder)},
        }
        try:
            begun: Any = self._module.init(project=project, config=dict(settings), **own[name])
        except Exception as problem:  # each has exceptions of its own
            raise ValueError(f"{name} did not begin: {problem}") from problem
        if name == "wandb":
            begun.define_metric("*", step_metric=STEP)

    def write(self, samples: Sequence[Sample]) -> None:
        values: dict[str, float] = {sample.name: sample.value for sample in samples}
        step = samples[0].step
        if self._name == "wandb":
            self._module.log({**values, STEP: step})
        else:
            self._module.log(values, step=step)

    def flush(self) -> None:
        """They send by themselves."""

    def close(self) -> None:
        self._module.finish()
