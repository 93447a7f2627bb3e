"""One update: loss and gradient of a batch, in parts if it is large; step of the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gato.metrics import Mean
from gato.network.model import Gato, TensorBatch, next_token_loss
from learner.clock import Clock
from learner.config import LearnerConfig
from learner.staging import Staged


class LossNotFinite(RuntimeError):
    """The loss was NaN or infinite. The update was not made; the message says where the batch was
    saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an update saw. Sums and counts merge right over updates, means do not."""

    gradient_norm: float
    """Before clipping."""
    loss_by_task: Mapping[int, Mean]
    accuracy_by_task: Mapping[int, Mean] = field(default_factory=dict[int, Mean])
    norm_by_part: Mapping[str, float] = field(default_factory=dict[str, float])


class Update:
    """Updates a model, one batch at a time.

    update = Update(model, optimiser, config, device=device, num_tasks=2, seed=0, folder=folder)
    done = update(staged, step=0)
    """

    def __init__(
        self,
        model: Gato,
        optimiser: torch.optim.Optimizer,
        config: LearnerConfig,
        *,
        device: torch.device,
        num_tasks: int,
        seed: int,
        folder: Path,
    ) -> None:
        """`num_tasks`: indices that a batch's `task_index` may have; `seed`: of the run; `folder`:
        where a batch with a bad loss is saved."""
        self.clock = Clock(device)
        self.bf16 = bool(config.bf16)
        self._model = model
        self._optimiser = optimiser
        self._config = config
        self._schedule = config.schedule
        self._device = device
        self._num_tasks = num_tasks
        self._seed = seed
        self._folder = folder

    def __call__(self, staged: Staged, step: int, *, in_detail: bool = False) -> Done:
        """Make update number `step`, from 0; `in_detail`: with accuracies, and norms by part.

        Raises:
            LossNotFinite: Before anything has changed.
            torch.OutOfMemoryError, RuntimeError: There is too little memory; nothing has changed.
        """
        rate = self._schedule.at(step)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        try:
            sums = self.gradient(staged, step, in_detail=in_detail)
            # Measures; without a limit nothing is clipped.
            norms = self._norms() if in_detail else {}
            norm = torch.nn.utils.clip_grad_norm_(
                self._model.parameters(), self._config.clip_gradient_norm or float("inf")
            )
            if not torch.isfinite(norm):
                raise LossNotFinite(
                    f"gradient norm {norm.item()} at step {step}; no update was made. The batch:"
                    f" {self._save_batch(staged, step)}"
                )
            with self.clock.of("optimiser"):
                self._optimiser.step()
        finally:
            self._optimiser.zero_grad(set_to_none=True)
        return Done(
            gradient_norm=float(norm),
            loss_by_task=sums.means(sums.losses),
            accuracy_by_task=sums.means(sums.correct) if in_detail else {},
            norm_by_part=by_part(norms),
        )

    def gradient(self, staged: Staged, step: int, *, in_detail: bool = False) -> _Sums:
        """Add the gradient of a batch's mean loss to that of the model.

        Raises:
            LossNotFinite: Of a part. Gradients of others may have been added.
        """
        # Each update draws (patch positions, dropout) from a seed of its own, so that a resumed run
        # has the same random numbers as an unbroken one.
        torch.manual_seed(int(np.random.default_rng([self._seed, step]).integers(2**62)))
        self._model.train()
        sums = _Sums(self._num_tasks, self._device)
        for part in staged.parts:
            with self.clock.of("forward"), self._autocast():
                loss = next_token_loss(
                    self._model,
                    part,
                    spread_bins=self._config.spread_bins,
                    is_accuracy_wanted=in_detail,
                )
            share = loss.losses.sum() / staged.num_targets
            if not torch.isfinite(share):
                raise LossNotFinite(
                    f"loss {share.item()} at step {step}; no update was made. The batch:"
                    f" {self._save_batch(staged, step)}"
                )
            with self.clock.of("backward"):
                share.backward()
            sums.add(part.task_index[loss.rows], loss.losses.detach(), loss.correct)
        return sums

    def _norms(self) -> dict[str, Tensor]:
        named = self._model.named_parameters()
        return {name: p.grad.norm() for name, p in named if p.grad is not None}

    def _save_batch(self, staged: Staged, step: int) -> Path:
        path = self._folder / f"bad-batch-{step:09d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = TensorBatch.of(staged.batch)
        fields = {name: getattr(whole, name) for name in TensorBatch.__dataclass_fields__}
        save_file(
            {k: v.contiguous() for k, v in fields.items() if isinstance(v, torch.Tensor)}, path
        )
        return path

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.bf16)


class _Sums:
    """Sums and counts by task, on the device until they are read."""

    def __init__(self, num_tasks: int, device: torch.device) -> None:
        # In double precision, as sums in Python are. The length is fixed: a GPU need not be asked.
        self.losses, self.correct, self._counts = (
            torch.zeros(num_tasks, dtype=torch.float64, device=device) for _ in range(3)
        )

    def add(self, tasks: Tensor, losses: Tensor, correct: Tensor | None) -> None:
        """Add n targets: the index of each one's task, its loss, whether it was right."""
        self.losses.index_add_(0, tasks, losses.double())
        self._counts.index_add_(0, tasks, torch.ones_like(losses, dtype=torch.float64))
        if correct is not None:
            self.correct.index_add_(0, tasks, correct.double())

    def means(self, totals: Tensor) -> dict[int, Mean]:
        """By task."""
        pairs = zip(totals.tolist(), self._counts.tolist(), strict=True)
        return {task: Mean(total, int(n)) for task, (total, n) in enumerate(pairs) if n}


def by_part(norms: Mapping[str, Tensor]) -> dict[str, float]:
    """The norm of each part of the model: tables, patches, attention, feedforward, norms."""
    squares: dict[str, list[Tensor]] = {}
    for name, norm in norms.items():
        squares.setdefault(part_of(name), []).append(norm.float().square())
    return {part: float(torch.stack(all_of).sum().sqrt()) for part, all_of in squares.items()}


def part_of(name: str) -> str:
    """The part of the model that a parameter is in, by its name."""
    if name.startswith("embedding."):
        return "patches" if name.startswith("embedding.patch.") else "tables"
    if ".attention." in name:
        return "attention"
    return "norms" if "norm" in name else "feedforward"
