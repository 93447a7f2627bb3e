"""The learner as a Ray actor: one call trains to the end, others read its reports and stop it. Of
several processes it is rank 0, and has the others."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import ray

from gato.config import ModelConfig
from gato.metrics import LearnerReport
from gato.part_log import name_log
from learner.checkpoints.files import keep_as_best
from learner.checkpoints.state import checkpoint_path
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.parallel.ranks import Ranks
from learner.prefetch import BatchSource
from learner.preparation.memory import TooManyRows, keep_row_limit
from learner.publishing import Fenced, WeightsSink
from learner.remote_ranks import OtherRanks, RankOptions, end_process
from learner.termination import Termination
from learner.update import LossNotFinite

MORE_LEARNERS = "more learners"
"""Outcome of a training that ends, saved, because more processes can train: to be begun again."""


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
        others: Sequence[RankOptions] = (),
        max_threads: int = 1,
    ) -> None:
        """`others`: of the ranks from 1 on, if several processes train together."""
        name_log(ray.get_runtime_context())
        self._others = others
        self._arguments = (config, model, source, sink, folder)
        self._folder = folder
        self._task_names = task_names
        self._seed = seed
        self._max_threads = max_threads
        self._learner: Learner | None = None
        self._reports: deque[LearnerReport] = deque()
        self._events: deque[tuple[str, str]] = deque()
        self._taking = threading.Lock()
        self._stop = threading.Event()
        self._began, self._ended = threading.Event(), threading.Event()
        self._outcome = ""
        self._is_more = False
        """Whether it ends because more processes can train."""
        self._grew_from = 0
        """Processes before the last time it ended so; 0: it has not."""
        self._termination = Termination(self._ask_to_stop)

    @ray.method
    def train(self, epoch: int) -> str:
        """Train in `epoch` to the run's end or until `stop`.

        Returns:
            How it ended: "finished", "stopped", `MORE_LEARNERS`, or why it failed: another learner
            publishes, or the loss is not finite.
        """
        self._is_more = False
        self._ended.clear()
        self._began.set()
        try:
            self._outcome = self._train(epoch)
        except Exception as problem:
            self._outcome = f"the learner failed: {problem!r}"
            raise
        finally:
            if self._outcome == MORE_LEARNERS:  # and is asked to train again
                self._take_notes()
                self._learner = None
                self._began.clear()
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
        if not self._others:
            return self._learn(epoch, None)
        config, model, _, _, folder = self._arguments
        others = OtherRanks(
            config, model, folder, self._task_names, self._seed, self._others,
            epoch=epoch, is_stopped=self._stop.is_set,
        )  # fmt: skip
        # Where more processes were there but not in time, they would not be the next time either.
        may_grow = others.size > self._grew_from
        if problem := others.problem(may_grow=may_grow):
            self._events.append(("problem", problem))
        try:
            ranks = others.meet(when_more=self._end_for_more if may_grow else None)
            outcome = self._learn(epoch, ranks)
            if outcome == MORE_LEARNERS:
                self._grew_from = others.size
                if ranks is not None:
                    ranks.leave()
            return outcome
        except RuntimeError as problem:  # as of a call that waited for a rank that is gone
            if others.size == 1:
                raise
            traceback.print_exc()
            if isinstance(problem, TooManyRows):
                keep_row_limit(folder, problem.rows, config.micro_batch_rows)
            end_process()
            raise
        finally:
            others.end()

    def _end_for_more(self) -> None:
        """End, to begin again with the processes that have a place now."""
        self._is_more = True
        if self._learner is not None:
            self._learner.stop()

    def _learn(self, epoch: int, ranks: Ranks | None) -> str:
        learner = Learner(
            *self._arguments,
            epoch=epoch,
            task_names=self._task_names,
            seed=self._seed,
            ranks=ranks,
            max_threads=self._max_threads,
        )
        self._learner = learner
        if self._stop.is_set() or self._is_more:
            learner.stop()
        try:
            for report in learner.run():
                self._reports.append(report)
        except (Fenced, LossNotFinite) as reason:
            return str(reason)
        finally:
            self._termination.end_if_asked()
        if learner.progress.step >= learner.config.num_updates:
            return "finished"
        return "stopped" if self._stop.is_set() or not self._is_more else MORE_LEARNERS

    @ray.method
    def take_reports(self) -> tuple[list[LearnerReport], list[tuple[str, str]]]:
        """Reports and events, as kind and text, since the last call."""
        self._take_notes()
        reports = [self._reports.popleft() for _ in range(len(self._reports))]
        return reports, [self._events.popleft() for _ in range(len(self._events))]

    def _take_notes(self) -> None:
        with self._taking:
            if (learner := self._learner) is not None:
                while learner.notes:
                    self._events.append(learner.notes.pop(0))
                while learner.problems:
                    self._events.append(("problem", learner.problems.pop(0)))

    @ray.method
    def keep(self, step: int, note: dict[str, object]) -> bool:
        """Keep the checkpoint of a step as `best`, with `note` in its `best.json`. False if it is
        not there, or not any more."""
        return keep_as_best(checkpoint_path(self._folder, step), note)

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
