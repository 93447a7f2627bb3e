"""The other processes of a learner, its ranks from 1 on, as Ray actors that rank 0 starts and
ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from gato.config import ModelConfig
from gato.part_log import name_log
from gato.sequence import Batch
from gato.weights import Weights
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.parallel.ranks import Ranks, meeting_place, own_device
from learner.preparation.memory import TooManyRows, keep_row_limit
from learner.update import LossNotFinite

RankOptions = dict[str, Any]
"""Options of a rank's actor: where it is, and what it claims there."""
RANK_WAIT_S = 60.0
"""How long to wait for the other ranks before training begins without those that are not up."""
LATE_WAIT_S = 5.0
"""How long to wait for the rest, once one that had no place is up: all are taken in at once."""
START_TRIES = 3
"""How often Ray starts a rank again that dies."""


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
        """Train with the other ranks, which meet at `address`, to the end. Raises TooManyRows if
        memory runs out."""
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
        ranks.leave()


RemoteRank = ray.remote(RankActor)


class OtherRanks:
    """The ranks from 1 on. If one dies, so does this process: Ray starts rank 0 again, which starts
    them again, all from the last checkpoint.

    others = OtherRanks(config, model, folder, names, seed, options, epoch=3)
    ranks = others.meet(when_more=learner.stop)    # None: rank 0 trains alone
    ...
    others.end()
    """

    def __init__(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        folder: Path,
        task_names: list[str],
        seed: int,
        options: Sequence[RankOptions],
        *,
        epoch: int,
        is_stopped: Callable[[], bool],
    ) -> None:
        """Start them, and wait a minute for those that have no place yet, unless `is_stopped`."""
        self._folder = folder
        self._asked_rows = config.micro_batch_rows
        self._epoch = epoch
        name = ray.get_runtime_context().get_actor_name() or "learner"
        self._actors = [
            RemoteRank.options(
                name=f"{name}-{rank}-epoch{epoch}",
                max_concurrency=2,
                max_restarts=START_TRIES,
                **of_rank,
            ).remote(config, model, folder, task_names, seed)
            for rank, of_rank in enumerate(options, start=1)
        ]
        self._answers = [actor.pid.remote() for actor in self._actors]
        self._is_over = threading.Event()
        deadline_s = time.monotonic() + RANK_WAIT_S
        while not all(self._come()) and time.monotonic() < deadline_s and not is_stopped():
            ray.wait(self._answers, num_returns=len(self._answers), timeout=1.0)
        self._up = [a for a, has_come in zip(self._actors, self._come(), strict=True) if has_come]

    def problem(self, *, may_grow: bool) -> str:
        """What is to be said of ranks without a place; empty: there are none."""
        size = 1 + len(self._actors)
        if self.size == size:
            return ""
        then = "the others join when they have one" if may_grow else "they train without the others"
        return f"{self.size} of {size} learners have a place; {then}"

    @property
    def size(self) -> int:
        """Ranks that train, with this process."""
        return 1 + len(self._up)

    def meet(self, when_more: Callable[[], None] | None) -> Ranks | None:
        """Let those that are up train with this process, which is rank 0; None: there are none.

        Args:
            when_more: Called in another thread once ranks that had no place are up.
        """
        if when_more is not None and len(self._up) < len(self._actors):
            self._begin(self._await_more, when_more)
        if not self._up:
            return None
        size = self.size
        address = ray.util.get_node_ip_address()
        store, port = meeting_place(address, 0, size)
        calls = [
            actor.follow.remote(self._epoch, address, port, rank, size)
            for rank, actor in enumerate(self._up, start=1)
        ]
        self._begin(self._watch, calls)
        return Ranks.join(store, rank=0, size=size, device=own_device(), address=address)

    def end(self) -> None:
        """End the other ranks, those without a place too."""
        self._is_over.set()
        for actor in self._actors:
            assert isinstance(actor, ActorHandle)
            ray.kill(actor)

    def _begin(self, watch: Callable[..., None], argument: object) -> None:
        threading.Thread(target=watch, args=(argument,), name="ranks", daemon=True).start()

    def _come(self) -> list[bool]:
        return [_has_come(answer) for answer in self._answers]

    def _watch(self, calls: list[ray.ObjectRef[None]]) -> None:
        while calls:
            done, calls = ray.wait(calls)
            try:
                ray.get(done)
            except RayError as failure:
                if self._is_over.is_set():
                    return
                cause = failure.cause if isinstance(failure, RayTaskError) else None
                if isinstance(cause, TooManyRows):
                    keep_row_limit(self._folder, cause.rows, self._asked_rows)
                print(f"a rank was lost: {failure}", file=sys.stderr)
                end_process()

    def _await_more(self, when_more: Callable[[], None]) -> None:
        """Wait until more ranks are up than train."""
        while not self._is_over.wait(1.0):
            if sum(self._come()) > len(self._up):
                self._is_over.wait(LATE_WAIT_S)
                when_more()
                return


def _has_come(answer: ray.ObjectRef[int]) -> bool:
    """Whether a process has answered. False also if it died."""
    try:
        ray.get(answer, timeout=0.0)
    except RayError:
        return False
    return True


def end_process() -> None:
    """End this process at once, so that Ray starts it again."""
    sys.stderr.flush()
    os._exit(1)
