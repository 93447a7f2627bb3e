"""One update: loss, gradient, step of the optimiser."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from gato.metrics import Mean
from gato.network.model import Gato, TensorBatch, next_token_loss
from learner.config import LearnerConfig


class LossNotFinite(RuntimeError):
    """The loss was NaN or infinite. The update was not made; the message says where the batch was
    saved."""


class Update:
    """Updates a model, one batch at a time.

    update = Update(model, optimiser, config, device=device, bf16=True, seed=0, folder=folder)
    norm, loss_by_task = update(batch, step=0)
    """

    def __init__(
        self,
        model: Gato,
        optimiser: torch.optim.Optimizer,
        config: LearnerConfig,
        *,
        device: torch.device,
        bf16: bool,
        seed: int,
        folder: Path,
    ) -> None:
        """`seed`: of the run; `folder`: where a batch with a bad loss is saved."""
        self._model = model
        self._optimiser = optimiser
        self._config = config
        self._schedule = config.schedule
        self._device = device
        self._bf16 = bf16
        self._seed = seed
        self._folder = folder
        self._loss = (
            torch.compile(next_token_loss, fullgraph=True) if config.compile else next_token_loss
        )

    def __call__(self, batch: TensorBatch, step: int) -> tuple[float, dict[int, Mean]]:
        """Make update number `step`, from 0.

        Returns:
            The gradient's norm before clipping, and the loss by task index.

        Raises:
            LossNotFinite: Before anything has changed.
        """
        # Each update draws (patch positions, dropout) from a seed of its own, so that a resumed run
        # has the same random numbers as an unbroken one.
        torch.manual_seed(int(np.random.default_rng([self._seed, step]).integers(2**62)))
        rate = self._schedule.at(step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._model.train()
        with self._autocast():
            loss = self._loss(self._model, batch, spread_bins=self._config.spread_bins)
        mean = loss.mean
        if not torch.isfinite(mean):
            raise LossNotFinite(
                f"loss {mean.item()} at step {step}; no update was made. The batch:"
                f" {self._save_batch(batch, step)}"
            )
        mean.backward()
        # Clips in place; without a limit it only measures.
        norm = torch.nn.utils.clip_grad_norm_(
            self._model.parameters(), self._config.clip_gradient_norm or float("inf")
        )
        if not torch.isfinite(norm):
            self._optimiser.zero_grad(set_to_none=True)
            raise LossNotFinite(
                f"gradient norm {norm.item()} at step {step}; no update was made. The batch:"
                f" {self._save_batch(batch, step)}"
            )
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        # [n]: the task of each target's row. Sums and counts merge right over updates, means do
        # not.
        tasks = batch.task_index[loss.rows]
        by_task: dict[int, Mean] = {}
        for index in tasks.unique().tolist():
            mine = loss.losses.detach()[tasks == index]
            by_task[index] = Mean(float(mine.sum()), len(mine))
        return float(norm), by_task

    def _save_batch(self, batch: TensorBatch, step: int) -> Path:
        path = self._folder / f"bad-batch-{step:09d}.safetensors"
        save_batch(batch, path)
        return path

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)


def save_batch(batch: TensorBatch, path: Path) -> None:
    """Write a batch's tensors to a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: getattr(batch, name) for name in TensorBatch.__dataclass_fields__}
    save_file(
        {k: v.cpu().contiguous() for k, v in fields.items() if isinstance(v, torch.Tensor)}, path
    )
