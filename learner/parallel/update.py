"""One update by several ranks, equal to that of one process on the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from gato.metrics import Mean
from gato.network.model import TensorBatch
from learner.clock import Clock
from learner.config import LearnerConfig
from learner.parallel.model import Parallel
from learner.parallel.ranks import Ranks
from learner.preparation.memory import MemoryPlan, TooManyRows, is_out_of_memory
from learner.preparation.precision import (
    bf16_unless_said,
    candidates,
    choose,
    keep_choice,
    kept_choice,
    told,
)
from learner.preparation.prepare import equal_parts, plan_share
from learner.staging import Staged
from learner.update import Done, LossNotFinite


class ParallelUpdate:
    """Updates a model that several ranks have, one batch at a time, like `Update`.

    The loss is the mean over the targets of the whole batch, not the mean of the ranks' means.
    """

    def __init__(
        self,
        parallel: Parallel,
        config: LearnerConfig,
        ranks: Ranks,
        *,
        num_tasks: int,
        device: torch.device,
        seed: int,
        folder: Path,
    ) -> None:
        """`seed`: of the run; `folder`: where a part of a batch with a bad loss is saved."""
        self.clock = Clock(device)
        self._parallel = parallel
        self._config = config
        self._schedule = config.schedule
        self._ranks = ranks
        self._num_tasks = num_tasks
        self._device = device
        self._ways = candidates(config, device, max_threads=1)
        # Ranks on other kinds of devices may have no choice: all measure, or none.
        self._is_measured = not parallel.is_sharded and ranks.least(len(self._ways)) > 1
        self.bf16 = not self._is_measured and bool(ranks.least(bf16_unless_said(config, device)))
        """Until it is measured float32, which needs more memory."""
        self._folder = folder
        # Patch positions and stochastic depth are drawn for the whole batch, alike on all ranks.
        # Dropout is drawn for the rank's own rows: alike on two ranks it would be one mask twice.
        draws_own = parallel.model.config.dropout > 0 and not ranks.is_first
        self._seed = [seed, ranks.rank] if draws_own else [seed]

    def plan(self, staged: Staged, limit: int | None) -> tuple[MemoryPlan, bool]:
        """How many rows each rank computes at once, and whether it is fewer because of rank 0's
        `limit`: as many as on the one with the least memory. Raises ValueError, see `plan_share`
        and `equal_parts`."""
        assert staged.share is not None
        plan = plan_share(
            self._parallel.model,
            staged.batch,
            staged.share,
            self._config,
            device=self._device,
            bf16=self.bf16,
            num_shards=self._ranks.size if self._parallel.is_sharded else 1,
        )
        rows = self._ranks.least(plan.micro_batch_rows)
        limit = self._ranks.of_first(limit)
        is_limited = limit is not None and limit < rows
        rows = limit if limit is not None and is_limited else rows
        if self._parallel.is_sharded:  # each part gathers the parameters of all ranks
            rows = equal_parts(staged.share, rows)
        return replace(plan, micro_batch_rows=rows), is_limited

    def choose_precision(self, staged: Staged, folder: Path) -> str | None:
        """Take the faster precision, which rank 0 measures on its first part, alone: the ranks must
        compute alike. Where the ranks share the parameters none can measure alone, and the kind of
        device decides.

        Returns:
            What is to be said of it; None: nothing was measured.

        Raises:
            TooManyRows: There is too little memory for its first part.
        """
        if not self._is_measured:
            return None
        chosen, note = self._ways[0], None
        if self._ranks.is_first:
            part = staged.parts[0]
            known = kept_choice(folder, self._ways, self._device)
            if known is None:
                try:
                    known, seconds = choose(
                        self._ways,
                        lambda way: self._gradient_alone(part, bf16=way.bf16),
                        self._device,
                    )
                except RuntimeError as problem:
                    if len(part.ids) > 1 and is_out_of_memory(problem):
                        raise TooManyRows(len(part.ids)) from problem
                    raise
                note = f"each of the learners {told(known, seconds, rows=len(part.ids))}"
                with suppress(OSError):
                    keep_choice(folder, self._ways, self._device, known)
            chosen = known
        self.bf16 = self._ranks.of_first(chosen.bf16)
        return self._ranks.of_first(note)

    def _gradient_alone(self, part: TensorBatch, *, bf16: bool) -> None:
        """Compute a gradient and drop it, without the other ranks."""
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=bf16)
        try:
            with self._parallel.adding(is_last=False):
                with autocast:
                    total, _, _ = self._parallel.module(part)
                self._parallel.backward(total, part)
        finally:
            self._parallel.model.zero_grad(set_to_none=True)

    def __call__(self, staged: Staged, step: int) -> Done:
        """Make update number `step`, from 0, with this rank's part of a batch.

        Returns:
            The gradient's norm before clipping, and the loss by task index, both of the whole
            batch.

        Raises:
            LossNotFinite: On all ranks, before anything has changed.
        """
        optimiser = self._parallel.optimiser
        for group in optimiser.param_groups:
            group["lr"] = self._schedule.at(step)
        self._parallel.model.train()
        try:
            by_task = self._gradient(staged.parts, step)
            # Sums that are not finite on one rank are so on all of them.
            whole = sum(by_task.values(), Mean())
            if not np.isfinite(whole.value):
                raise LossNotFinite(self._bad(f"loss {whole.value}", staged.parts, step))
            norm = self._parallel.clip(self._config.clip_gradient_norm)
            if not torch.isfinite(norm):
                raise LossNotFinite(self._bad(f"gradient norm {norm.item()}", staged.parts, step))
            with self.clock.of("optimiser"):
                optimiser.step()
        finally:
            optimiser.zero_grad(set_to_none=True)
        return Done(gradient_norm=float(norm), loss_by_task=by_task)

    def _gradient(self, parts: Sequence[TensorBatch], step: int) -> dict[int, Mean]:
        """Add up the gradients of this rank's parts, and of all ranks; the loss by task, of all."""
        losses: list[torch.Tensor] = []
        tasks: list[torch.Tensor] = []
        for index, part in enumerate(parts):
            # Each part draws for the whole batch, and so the same; but not the same dropout.
            number = [step, index] if self._parallel.model.config.dropout > 0 else [step]
            torch.manual_seed(int(np.random.default_rng([*self._seed, *number]).integers(2**62)))
            autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self.bf16)
            with self._parallel.adding(is_last=index + 1 == len(parts)):
                with self.clock.of("forward"), autocast:
                    total, of_part, rows = self._parallel.module(part)
                with self.clock.of("backward"):
                    self._parallel.backward(total, part)
            losses.append(of_part)
            tasks.append(part.task_index[rows])
        return self._loss_by_task(torch.cat(losses), torch.cat(tasks))

    def _loss_by_task(self, losses: torch.Tensor, task: torch.Tensor) -> dict[int, Mean]:
        """The losses [n] of the targets of each task [n], over all ranks."""
        sums = torch.zeros(2, self._num_tasks, dtype=torch.float64, device=losses.device)
        sums[0].index_add_(0, task, losses.double())
        sums[1].index_add_(0, task, torch.ones_like(losses, dtype=torch.float64))
        totals, counts = self._ranks.sum(sums.cpu()).tolist()
        return {
            index: Mean(total, int(count))
            for index, (total, count) in enumerate(zip(totals, counts, strict=True))
            if count
        }

    def _bad(self, what: str, parts: Sequence[TensorBatch], step: int) -> str:
        first = self._folder / f"bad-batch-{step:09d}-rank-{self._ranks.rank}.safetensors"
        for index, part in enumerate(parts):
            save_batch(part, first if not index else first.with_stem(f"{first.stem}-{index}"))
        return (
            f"{what} at step {step}; no update was made. Each of {self._ranks.size} learners saved"
            f" its part of the batch, this one {first}"
        )


def save_batch(batch: TensorBatch, path: Path) -> None:
    """Write a batch's tensors to a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: getattr(batch, name) for name in TensorBatch.__dataclass_fields__}
    save_file(
        {k: v.cpu().contiguous() for k, v in fields.items() if isinstance(v, torch.Tensor)}, path
    )
