"""Start a run, watch it, steer it and evaluate it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from cluster.control import lifecycle, run_control
from cluster.control.build_run import make_config
from cluster.control.evaluation.evaluate import evaluate_run
from cluster.control.evaluation.report import EvaluationReport
from cluster.monitor.summary import Summary
from cluster.runs import folder as run_folder
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Run:
    """A run on this machine, by its folder. Any number of processes may have one of the same run.

    run = gato_ray.start("debug")
    for status in run.watch():
        print(status.state, status.learner)
    run.evaluate(episodes=5).tasks["mujoco/inverted-pendulum"].mean
    """

    folder: RunFolder

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_active(self) -> bool:
        """Whether it is starting or running."""
        return self.folder.info().is_active

    @property
    def config(self) -> RunConfig:
        """Every setting."""
        return self.folder.config()

    @property
    def step(self) -> int:
        """Updates that the learner has reported."""
        learner = self.status().learner
        return learner.step if learner is not None else 0

    def status(self) -> Summary:
        """Tasks with their returns, learner, replay, workers and events, as of now."""
        return run_control.summary_of(self.name)

    def watch(self, *, every_s: float = 1.0) -> Iterator[Summary]:
        """The status again and again, until the run has ended; the last one is its last status."""
        while self.is_active:
            yield self.status()
            time.sleep(every_s)
        yield self.status()

    def scale(self, num_workers: int) -> None:
        """Change the number of actor workers. Raises ValueError if the run is not active."""
        run_control.scale(run_control.active_run(self.name), num_workers)

    def stop(self) -> None:
        """Let the learner save, end the run and wait for its end.

        Raises:
            ValueError: The run is not active, or has not stopped after 200 s.
        """
        run_control.ask_to_stop(run_control.active_run(self.name))
        run_control.wait_until_stopped(self.folder)

    def evaluate(
        self, *, tasks: Sequence[str] | None = None, episodes: int = 10, video: bool = False
    ) -> EvaluationReport:
        """Play its last checkpoint in this process; see `evaluate`."""
        return evaluate(self.name, tasks=tasks, episodes=episodes, video=video)


def start(
    run: str = "demo",
    *,
    name: str | None = None,
    tasks: Sequence[str] | None = None,
    data: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    weights: str | None = None,
    address: str | None = None,
) -> Run:
    """Start a run in the background and return when it is running.

    Args:
        run: A preset (`demo`, `clone`, `debug`) or a config file.
        name: Name of the run. Default: the preset's, with a number if it is taken.
        tasks: Other tasks.
        data: Data sets to train on.
        settings: Other settings by path, such as {"learner.num_updates": 500}.
        weights: A run, a checkpoint or a policy file whose model and weights it begins with.
        address: A running Ray cluster, host:port. Default: a local one.

    Raises:
        ValueError: A name or a setting is wrong, or the run did not start; the text says why.
    """
    config = make_config(
        run,
        name=name,
        tasks=tasks,
        data=data,
        settings=[f"{path}={_text(value)}" for path, value in (settings or {}).items()],
        weights=weights,
    )
    folder = lifecycle.start(
        config,
        address=address,
        redis_url=None,
        redis_port=None,
        detach=True,
        console=Console(quiet=True),
    )
    return Run(folder)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def find_run(name: str | None = None) -> Run:
    """The run of that name; without one the newest that is active, else the newest.

    Raises:
        ValueError: There is no such run; the text suggests the nearest name.
    """
    return Run(run_folder.find_run(name))


def watch(name: str | None = None, *, every_s: float = 1.0) -> Iterator[Summary]:
    """The status of a run again and again, until it has ended."""
    return find_run(name).watch(every_s=every_s)


def evaluate(
    what: str, *, tasks: Sequence[str] | None = None, episodes: int = 10, video: bool = False
) -> EvaluationReport:
    """Play a checkpoint in this process, without Ray.

    Args:
        what: A run's name (its last checkpoint), or a checkpoint's folder.
        tasks: Default: those of the run.
        episodes: Episodes of each task, on the seeds that all evaluations use.
        video: Film each task's first episode, into the run's folder under clips.

    Raises:
        ValueError: There is no such checkpoint or task, or an evaluation failed.
    """
    return evaluate_run(what, tasks=tasks, episodes=episodes, video=video)
