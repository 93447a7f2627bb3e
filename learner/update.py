"""One update: loss, gradient, step of the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from gato.metrics import Mean
from gato.network.model import Gato, TensorBatch, next_token_loss
from learner.checkpoints.failed_step import save_failed_step
from learner.config import LearnerConfig
from learner.randomness import seed_update


class LossNotFinite(RuntimeError):
    """The loss or the gradient was NaN or infinite. The update was not made; the message says where
    the step was saved."""


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
        task_names: Sequence[str] = (),
    ) -> None:
        """`seed`: of the run; `folder`: where a step that fails is saved; `task_names`: of the
        indices in a batch's `task_index`."""
        self._model = model
        self._optimiser = optimiser
        self._config = config
        self._schedule = config.schedule
        self._device = device
        self._bf16 = bf16
        self._seed = seed
        self._folder = folder
        self._task_names = task_names
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
        seed_update(self._seed, step)
        rate = self._schedule.at(step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._model.train()
        with self._autocast():
            loss = self._loss(self._model, batch, spread_bins=self._config.spread_bins)
        mean = loss.mean
        if not torch.isfinite(mean):
            raise self._failure(f"loss {mean.item()}", batch, step)
        mean.backward()
        # Clips in place; without a limit it only measures.
        norm = torch.nn.utils.clip_grad_norm_(
            self._model.parameters(), self._config.clip_gradient_norm or float("inf")
        )
        if not torch.isfinite(norm):
            self._optimiser.zero_grad(set_to_none=True)
            raise self._failure(f"gradient norm {norm.item()}", batch, step)
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

    def _failure(self, what: str, batch: TensorBatch, step: int) -> LossNotFinite:
        """The error of a step that was not made, with the command that repeats it."""
        said = f"{what} at step {step}; no update was made"
        try:
            path = save_failed_step(
                self._folder, self._model, self._optimiser, batch, self._config,
                seed=self._seed, step=step, bf16=self._bf16, what=what,
                task_names=self._task_names,
            )  # fmt: skip
        except OSError as problem:
            return LossNotFinite(f"{said}. The step could not be saved: {problem}")
        return LossNotFinite(f"{said}. To repeat the step: gato debug-step {path}")

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16)
