"""The learner as a Ray actor: one call trains to the end, others read its reports and stop it. Of
several processes it is rank 0, and has the others."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle, ActorProxy
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from gato.config import ModelConfig
from gato.metrics import LearnerReport
from gato.part_log import name_log
from gato.sequence import Batch
from gato.weights import Weights
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.parallel.ranks import Ranks, meeting_place, own_device
from learner.prefetch import BatchSource
from learner.publishing import Fenced, WeightsSink
from learner.termination import Termination
from learner.update import LossNotFinite

RankOptions = dict[str, Any]
"""Options of a rank's actor: where it is, and what it claims there."""
RANK_WAIT_S = 60.0
"""How long to wait for the other ranks before training begins without those that are not up."""


class _Nothing:
    """What a rank other than 0 has of replay and of the weights store."""

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        return None

    def publish(self, weights: Weights) -> bool:
        return True


class RankActor:
    """A rank other than 0, in a process of its own. It ends with rank 0's process."""

    def __init__(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        folder: Path,
        task_names: list[str],
        seed: int,
    ) -> None:
        name_log(ray.get_runtime_context())
        self._arguments = (config, model, _Nothing(), _Nothing(), folder)
        self._task_names = task_names
        self._seed = seed

    @ray.method
    def pid(self) -> int:
        """The number of this process. It answers as soon as the process is up."""
        return os.getpid()

    @ray.method
    def follow(self, epoch: int, address: str, port: int, rank: int, size: int) -> None:
        """Train with the other ranks, which meet at `address`, to the end."""
        device = own_device()
        store, _ = meeting_place(address, port, size)
        here = ray.util.get_node_ip_address()
        ranks = Ranks.join(store, rank=rank, size=size, device=device, address=here)
        learner = Learner(
            *self._arguments,
            epoch=epoch, task_names=self._task_names, seed=self._seed, device=device, ranks=ranks,
        )  # fmt: skip
        try:
            for _ in learner.run():
                pass
        except LossNotFinite as reason:  # rank 0 reports it
            print(reason, file=sys.stderr)


RemoteRank = ray.remote(RankActor)


class _OtherRanks:
    """The other ranks, as rank 0 has them. If one dies, so does this process: Ray starts rank 0
    again, which starts them again, all from the last checkpoint."""

    def __init__(self, actors: Sequence[ActorProxy[RankActor]], epoch: int) -> None:
        self._actors = actors
        size = 1 + len(actors)
        address = ray.util.get_node_ip_address()
        store, port = meeting_place(address, 0, size)
        self._calls = [
            actor.follow.remote(epoch, address, port, rank, size)
            for rank, actor in enumerate(actors, start=1)
        ]
        self._is_over = threading.Event()
        threading.Thread(target=self._watch, name="ranks", daemon=True).start()
        self.ranks = Ranks.join(store, rank=0, size=size, device=own_device(), address=address)

    def _watch(self) -> None:
        waiting = self._calls
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                ray.get(done)
            except RayError as failure:
                if not self._is_over.is_set():
                    print(f"a rank was lost: {failure}", file=sys.stderr)
                    end_process()

    def end(self) -> None:
        """End the other ranks."""
        self._is_over.set()
        for actor in self._actors:
            _kill(actor)


def _has_come(answer: ray.ObjectRef[int]) -> bool:
    """Whether a process has answered. False also if it died."""
    try:
        ray.get(answer, timeout=0.0)
    except (GetTimeoutError, RayActorError):
        return False
    return True


def _kill(actor: ActorProxy[RankActor]) -> None:
    assert isinstance(actor, ActorHandle)
    ray.kill(actor)


def end_process() -> None:
    """End this process at once, so that Ray starts it again."""
    sys.stderr.flush()
    os._exit(1)


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
        others = self._start_others(epoch)
        if others is None:
            return self._learn(epoch, None)
        try:
            return self._learn(epoch, others.ranks)
        except RuntimeError:  # as of a call that waited for a rank that is gone
            traceback.print_exc()
            end_process()
            raise
        finally:
            others.end()

    def _start_others(self, epoch: int) -> _OtherRanks | None:
        """Start the other ranks; those that are not up in time are left out."""
        config, model, _, _, folder = self._arguments
        name = ray.get_runtime_context().get_actor_name() or "learner"
        actors = [
            RemoteRank.options(
                name=f"{name}-{rank}-epoch{epoch}", max_concurrency=2, **options
            ).remote(config, model, folder, self._task_names, self._seed)
            for rank, options in enumerate(self._others, start=1)
        ]
        answers = [actor.pid.remote() for actor in actors]
        ray.wait(answers, num_returns=len(answers), timeout=RANK_WAIT_S)
        up = [actor for actor, answer in zip(actors, answers, strict=True) if _has_come(answer)]
        for actor in actors:
            if actor not in up:
                _kill(actor)
        if len(up) < len(actors):
            text = (
                f"{1 + len(up)} of {1 + len(actors)} learners have a place; they train without the"
                " others until the learner starts again"
            )
            self._events.append(("problem", text))
        return _OtherRanks(up, epoch) if up else None

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
