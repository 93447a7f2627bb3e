"""The learner as a Ray actor: one call trains to the end, others read its reports and stop it."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import ray

from gato.config import ModelConfig
from gato.metrics import LearnerReport
from gato.part_log import name_log
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.prefetch import BatchSource
from learner.publishing import Fenced, WeightsSink
from learner.termination import Termination
from learner.update import LossNotFinite


class LearnerActor:
    """Runs a `Learner` in a process of its own. If it dies, Ray starts it again, and it goes on
    from its checkpoint."""

    def __init__(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        source: BatchSource,
        sink: WeightsSink,
        folder: Path,
        task_names: list[str],
        seed: int,
        max_threads: int = 1,
    ) -> None:
        name_log(ray.get_runtime_context())
        self._arguments = (config, model, source, sink, folder)
        self._task_names = task_names
        self._seed = seed
        self._max_threads = max_threads
        self._learner: Learner | None = None
        self._reports: deque[LearnerReport] = deque()
        self._events: deque[tuple[str, str]] = deque()
        self._stop = threading.Event()
        self._began, self._ended = threading.Event(), threading.Event()
        self._outcome = ""
        self._termination = Termination(self._ask_to_stop)

    @ray.method
    def train(self, epoch: int) -> str:
        """Train in `epoch` to the run's end or until `stop`.

        Returns:
            How it ended: "finished", "stopped", or why it failed: another learner publishes, or the
            loss is not finite.
        """
        self._began.set()
        try:
            self._outcome = self._train(epoch)
        except Exception as problem:
            self._outcome = f"the learner failed: {problem!r}"
            raise
        finally:
            self._ended.set()
        return self._outcome

    @ray.method
    def is_training(self) -> bool:
        """Whether `train` was called in this process. It answers as soon as the process is up."""
        return self._began.is_set()

    @ray.method
    def outcome(self) -> str:
        """Wait for the end of a `train` whose caller is gone, and return what it returned."""
        self._ended.wait()
        return self._outcome

    def _train(self, epoch: int) -> str:
        learner = Learner(
            *self._arguments,
            epoch=epoch,
            task_names=self._task_names,
            seed=self._seed,
            max_threads=self._max_threads,
        )
        self._learner = learner
        if self._stop.is_set():
            learner.stop()
        try:
            for report in learner.run():
                self._reports.append(report)
        except (Fenced, LossNotFinite) as reason:
            return str(reason)
        finally:
            self._termination.end_if_asked()
        return "finished" if learner.progress.step >= learner.config.num_updates else "stopped"

    @ray.method
    def take_reports(self) -> tuple[list[LearnerReport], list[tuple[str, str]]]:
        """Reports and events, as kind and text, since the last call."""
        if (learner := self._learner) is not None:
            while learner.notes:
                self._events.append(learner.notes.pop(0))
            while learner.problems:
                self._events.append(("problem", learner.problems.pop(0)))
        reports = [self._reports.popleft() for _ in range(len(self._reports))]
        return reports, [self._events.popleft() for _ in range(len(self._events))]

    @ray.method
    def keep(self, step: int, note: dict[str, object]) -> bool:
        """See `Learner.keep`."""
        return self._learner is not None and self._learner.keep(step, note)

    @ray.method
    def stop(self) -> None:
        """End after the present update."""
        self._ask_to_stop()

    def _ask_to_stop(self) -> bool:
        """Whether there is a training that will end."""
        self._stop.set()
        if self._learner is not None:
            self._learner.stop()
        return self._began.is_set() and not self._ended.is_set()


RemoteLearner = ray.remote(LearnerActor)
