"""One update by several ranks, equal to that of one process on the whole batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from gato.metrics import Mean
from gato.network.model import TensorBatch
from learner.clock import Clock
from learner.config import LearnerConfig
from learner.parallel import Parallel
from learner.ranks import Ranks
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
        bf16: bool,
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
        self._bf16 = bf16
        self._folder = folder
        # Patch positions and stochastic depth are drawn for the whole batch, alike on all ranks.
        # Dropout is drawn for the rank's own rows: alike on two ranks it would be one mask twice.
        draws_own = parallel.model.config.dropout > 0 and not ranks.is_first
        self._seed = [seed, ranks.rank] if draws_own else [seed]

    def __call__(self, staged: Staged, step: int) -> Done:
        """Make update number `step`, from 0, with this rank's part of a batch.

        Returns:
            The gradient's norm before clipping, and the loss by task index, both of the whole
            batch.

        Raises:
            LossNotFinite: On all ranks, before anything has changed.
        """
        (batch,) = staged.parts
        torch.manual_seed(int(np.random.default_rng([*self._seed, step]).integers(2**62)))
        optimiser = self._parallel.optimiser
        for group in optimiser.param_groups:
            group["lr"] = self._schedule.at(step)
        self._parallel.model.train()
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
        with self.clock.of("forward"), autocast:
            total, losses, rows = self._parallel.module(batch)
        by_task = self._loss_by_task(losses, batch.task_index[rows])
        # Sums that are not finite on one rank are so on all of them.
        whole = sum(by_task.values(), Mean())
        if not np.isfinite(whole.value):
            raise LossNotFinite(self._bad(f"loss {whole.value}", batch, step))
        with self.clock.of("backward"):
            self._parallel.backward(total, batch)
        norm = self._parallel.clip(self._config.clip_gradient_norm)
        if not torch.isfinite(norm):
            optimiser.zero_grad(set_to_none=True)
            raise LossNotFinite(self._bad(f"gradient norm {norm.item()}", batch, step))
        with self.clock.of("optimiser"):
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return Done(gradient_norm=float(norm), loss_by_task=by_task)

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

    def _bad(self, what: str, batch: TensorBatch, step: int) -> str:
        path = self._folder / f"bad-batch-{step:09d}-rank-{self._ranks.rank}.safetensors"
        save_batch(batch, path)
        return (
            f"{what} at step {step}; no update was made. Each of {self._ranks.size} learners saved"
            f" its part of the batch, this one {path}"
        )


def save_batch(batch: TensorBatch, path: Path) -> None:
    """Write a batch's tensors to a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: getattr(batch, name) for name in TensorBatch.__dataclass_fields__}
    save_file(
        {k: v.cpu().contiguous() for k, v in fields.items() if isinstance(v, torch.Tensor)}, path
    )
