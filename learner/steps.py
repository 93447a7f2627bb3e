"""A learner's updates, one after the other: what comes before the first, and what comes between
them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from gato.network.model import Gato
from learner.config import LearnerConfig
from learner.parallel.update import ParallelUpdate
from learner.preparation.memory import TooManyRows, is_out_of_memory, row_limit
from learner.preparation.prepare import Prepared, prepare
from learner.profiler import Profiler
from learner.staging import Staged, Stager
from learner.update import Done, Update


class Steps:
    """Makes the updates of a learner. Before the first it measures how to compute; where memory
    runs out it goes on with fewer rows at once.

    steps = Steps(model, update, stager, config, device=device, max_threads=1, ...)
    done = steps(batch, step=0, in_detail=False)
    steps.close()
    """

    def __init__(
        self,
        model: Gato,
        update: Update | ParallelUpdate,
        stager: Stager,
        config: LearnerConfig,
        *,
        device: torch.device,
        max_threads: int,
        folder: Path,
        say: Callable[[str, str], None],
    ) -> None:
        """`folder`: of the checkpoints. `say`: kind and text of an event."""
        self._model = model
        self._update = update
        self._stager = stager
        self._config = config
        self._device = device
        self._max_threads = max_threads
        self._folder = folder
        self._say = say
        self._is_prepared = False
        self.prepared: Prepared | None = None
        """What was found out before the first update of one process."""
        self._profiler = Profiler(
            folder / "traces", update.clock, device, num_updates=config.profile_updates, say=say
        )

    @property
    def product_rate(self) -> float:
        """FLOP/s of large products; 0 where it was not measured."""
        return 0.0 if self.prepared is None else self.prepared.product_rate

    def __call__(self, batch: Staged, step: int, *, in_detail: bool) -> Done:
        """Make update number `step`, from 0. Raises as `Update`, but for a lack of memory only if
        not even one row fits."""
        if not self._is_prepared:
            self._prepare(batch)
        if batch.max_rows > (self._stager.micro_batch_rows or batch.max_rows):
            batch = self._again(batch)  # it was put there before that was known
        done = self._made(batch, step, in_detail=in_detail)
        self._profiler.after_update(step + 1)
        return done

    def close(self) -> None:
        """Drop a trace that is not whole."""
        self._profiler.close()

    def _again(self, batch: Staged) -> Staged:
        staged = self._stager.stage(batch.batch)
        return staged if batch.share is None else Staged.of_share(staged, batch.share)

    def _prepare(self, batch: Staged) -> None:
        self._is_prepared = True
        if isinstance(self._update, ParallelUpdate):
            self._prepare_ranks(self._update, batch)
            return
        self.prepared = self._prepared(self._update, batch)
        for note in self.prepared.notes:
            self._say("learner", note)

    def _prepared(self, update: Update, batch: Staged) -> Prepared:
        most_rows = None
        while True:
            try:
                return prepare(
                    self._model,
                    update,
                    batch.batch,
                    self._config,
                    stager=self._stager,
                    device=self._device,
                    max_threads=self._max_threads,
                    folder=self._folder,
                    most_rows=most_rows,
                )
            except RuntimeError as problem:
                rows = self._stager.micro_batch_rows
                if rows is None or rows == 1 or not is_out_of_memory(problem):
                    raise
            most_rows = self._fewer(rows, when="before the first update")

    def _fewer(self, rows: int, *, when: str) -> int:
        """Half as many rows at once as memory has run out with."""
        fewer = -(-rows // 2)
        self._stager.micro_batch_rows = fewer
        text = (
            f"no memory for {rows} rows at once ({when}); goes on with {fewer}:"
            " learner.micro_batch_rows"
        )
        self._say("problem", text)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return fewer

    def _prepare_ranks(self, update: ParallelUpdate, batch: Staged) -> None:
        limit, bf16 = row_limit(self._folder, self._config.micro_batch_rows), update.bf16
        plan, is_limited = update.plan(batch, limit)
        self._stager.micro_batch_rows = plan.micro_batch_rows
        if (note := update.choose_precision(self._again(batch), self._folder)) is not None:
            self._say("learner", note)
        if update.bf16 != bf16:
            plan, is_limited = update.plan(batch, limit)
            self._stager.micro_batch_rows = plan.micro_batch_rows
        if is_limited:
            rows = plan.micro_batch_rows
            text = (
                f"memory has run out on a learner; each goes on with {rows}"
                f" row{'s' if rows > 1 else ''} at once: learner.micro_batch_rows"
            )
            self._say("problem", text)
        elif plan.accumulate > 1:
            self._say("learner", f"each of the learners: {plan}")

    def _made(self, batch: Staged, step: int, *, in_detail: bool) -> Done:
        if isinstance(self._update, ParallelUpdate):
            try:
                return self._update(batch, step)
            except RuntimeError as problem:
                if batch.max_rows > 1 and is_out_of_memory(problem):
                    raise TooManyRows(batch.max_rows) from problem
                raise
        while True:
            try:
                return self._update(batch, step, in_detail=in_detail)
            except RuntimeError as problem:
                rows = batch.max_rows
                if rows == 1 or not is_out_of_memory(problem):
                    raise
            self._fewer(rows, when=f"step {step}")
            batch = self._again(batch)
