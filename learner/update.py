"""One update: loss and gradient of a batch, in parts if it is large; step of the optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gato.metrics import Mean
from gato.network.model import Gato, TensorBatch, next_token_loss
from learner.checkpoints.failed_step import save_failed_step
from learner.clock import Clock
from learner.config import LearnerConfig
from learner.randomness import seed_update
from learner.staging import Staged


class LossNotFinite(RuntimeError):
    """The loss or the gradient was NaN or infinite. The update was not made; the message says where
    the step was saved."""


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

    update = Update(model, optimiser, config, device=device, seed=0, folder=folder)
    done = update(staged, step=0)
    """

    def __init__(
        self,
        model: Gato,
        optimiser: torch.optim.Optimizer,
        config: LearnerConfig,
        *,
        device: torch.device,
        seed: int,
        folder: Path,
        task_names: Sequence[str] = (),
    ) -> None:
        """`seed`: of the run; `folder`: where a step that fails is saved; `task_names`: of the
        indices in a batch's `task_index`."""
        self.clock = Clock(device)
        self.bf16 = bool(config.bf16)
        self._model = model
        self._optimiser = optimiser
        self._config = config
        self._schedule = config.schedule
        self._device = device
        self._seed = seed
        self._folder = folder
        self._task_names = task_names

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
                whole = staged.parts[0] if len(staged.parts) == 1 else TensorBatch.of(staged.batch)
                raise self._failure(f"gradient norm {norm.item()}", whole, step)
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

    def gradient(self, staged: Staged, step: int, *, in_detail: bool = False) -> Sums:
        """Add the gradient of a batch's mean loss to that of the model.

        Raises:
            LossNotFinite: Of a part. Gradients of others may have been added.
        """
        self._model.train()
        sums = Sums(max(1, len(self._task_names)), self._device)
        for index, part in enumerate(staged.parts):
            seed_update(self._seed, step, part=index)
            with self.clock.of("forward"), self._autocast():
                loss = next_token_loss(
                    self._model,
                    part,
                    spread_bins=self._config.spread_bins,
                    is_accuracy_wanted=in_detail,
                )
            share = loss.losses.sum() / staged.num_targets
            if not torch.isfinite(share):
                raise self._failure(f"loss {share.item()}", part, step, part=index)
            with self.clock.of("backward"):
                if share.requires_grad:  # not where the only trained part is absent: images
                    share.backward()
            sums.add(part.task_index[loss.rows], loss.losses.detach(), loss.correct)
        return sums

    def _norms(self) -> dict[str, Tensor]:
        named = self._model.named_parameters()
        return {name: p.grad.norm() for name, p in named if p.grad is not None}

    def _failure(self, what: str, batch: TensorBatch, step: int, *, part: int = 0) -> LossNotFinite:
        """The error of a step that was not made, with the command that repeats it."""
        said = f"{what} at step {step}; no update was made"
        try:
            path = save_failed_step(
                self._folder, self._model, self._optimiser, batch, self._config,
                seed=self._seed, step=step, part=part, bf16=self.bf16, what=what,
                task_names=self._task_names,
            )  # fmt: skip
        except OSError as problem:
            return LossNotFinite(f"{said}. The step could not be saved: {problem}")
        return LossNotFinite(f"{said}. To repeat the step: gato debug-step {path}")

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.bf16)


class Sums:
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
