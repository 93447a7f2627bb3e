"""One model on several ranks: copies of all of it (DDP), or a part on each (FSDP2)."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gato.network.model import Gato, TensorBatch, next_token_loss
from learner.config import LearnerConfig
from learner.optimiser import make_optimiser
from learner.parallel.ranks import Ranks
from learner.preparation.memory import state_bytes

DDP_SHARE = 0.5
"""Of a GPU's memory that the training state may take; the rest is for activations."""

Moments = dict[str, dict[str, Tensor]]
"""The optimiser's state by parameter and moment."""


def way_of(config: LearnerConfig, model: Gato, device: torch.device) -> Literal["ddp", "fsdp"]:
    """How the ranks keep the model: as the settings say, else by its size."""
    if config.parallel is not None:
        return config.parallel
    if device.type != "cuda" or config.compile:
        return "ddp"
    memory = torch.cuda.get_device_properties(device).total_memory
    needed = state_bytes(model, bf16=False)
    return "fsdp" if needed > DDP_SHARE * memory else "ddp"


class PartLoss(nn.Module):
    """The loss of a rank's part of a batch, as a module: what DDP and FSDP wrap."""

    def __init__(self, model: Gato, config: LearnerConfig) -> None:
        super().__init__()
        self.model = model
        self._spread_bins = config.spread_bins
        self._loss = (
            torch.compile(next_token_loss, fullgraph=True) if config.compile else next_token_loss
        )

    def forward(self, batch: TensorBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of the losses, the losses [n], and the row that each came from [n]."""
        loss = self._loss(self.model, batch, spread_bins=self._spread_bins)
        total = loss.losses.sum()
        assert batch.share is not None
        if not len(batch.patches):
            # Ranks add up gradients of the same parameters: without images these are zeros.
            for parameter in self.model.embedding.patch.parameters():
                total = total + 0.0 * parameter.sum()
        return total, loss.losses.detach(), loss.rows


class Parallel:
    """A model and its optimiser on this rank.

    parallel = Parallel(model, optimiser, config, ranks, device)     # rank 0's state, on all
    total, losses, rows = parallel.module(part)                      # as often on every rank
    saved = parallel.whole()                                         # of rank 0, to save
    """

    def __init__(
        self,
        model: Gato,
        optimiser: torch.optim.Optimizer,
        config: LearnerConfig,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        """Take over rank 0's weights and moments.

        Args:
            model: On the CPU, of the same shape on all ranks. It is moved to the device.
            optimiser: Of this model. Another takes its place.
            config: How to train.
            ranks: Those that train together.
            device: Of this rank.
        """
        self.model = model
        self._ranks = ranks
        moments = _of_first(model, optimiser, ranks)
        self.is_sharded = way_of(config, model, device) == "fsdp"
        self._whole: tuple[Gato, torch.optim.Optimizer] | None = None
        if self.is_sharded and ranks.is_first:
            whole = copy.deepcopy(model)
            self._whole = whole, make_optimiser(whole, config)
        self.module = _spread(model, config, ranks, device, is_sharded=self.is_sharded)
        self.optimiser = make_optimiser(model, config)
        for name, parameter in model.named_parameters():
            if name in moments:
                self.optimiser.state[parameter] = {
                    moment: _placed(value, parameter, device)
                    for moment, value in moments[name].items()
                }

    def whole(self) -> tuple[Gato, torch.optim.Optimizer] | None:
        """Rank 0's whole model and optimiser, to publish or save; None on the others. To be called
        on all ranks."""
        if not self.is_sharded:
            return (self.model, self.optimiser) if self._ranks.is_first else None
        whole = dict(self._whole[0].named_parameters()) if self._whole is not None else {}
        for name, parameter in self.model.named_parameters():
            value = _joined(parameter.detach())
            state = self.optimiser.state.get(parameter, {})
            moments = {key: _joined(moment).cpu() for key, moment in sorted(state.items())}
            if self._whole is not None:
                with torch.no_grad():
                    whole[name].copy_(value)
                if moments:
                    self._whole[1].state[whole[name]] = moments
        return self._whole

    @contextmanager
    def adding(self, *, is_last: bool) -> Generator[None]:
        """Add to the gradients of this rank; those of the last part with the other ranks'."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
            yield
            return
        assert isinstance(self.module, DistributedDataParallel)
        with nullcontext() if is_last else self.module.no_sync():
            yield

    def backward(self, total: Tensor, batch: TensorBatch) -> None:
        """Compute the gradient of the mean over the targets of the whole batch, from the sum of the
        losses of this rank's part."""
        share = batch.share
        assert share is not None
        # DDP and FSDP average over ranks, so the factor makes it a sum.
        (total * (share.size / share.num_targets)).backward()
        if not share.num_patches:
            # No gradient is not zeros: without one the optimiser leaves a parameter as it is.
            for parameter in self.model.embedding.patch.parameters():
                parameter.grad = None

    def clip(self, limit: float | None) -> Tensor:
        """Clip the gradient of the whole batch, in place; without a limit it is only measured.

        Returns:
            Its norm before. If that is not finite, nothing was clipped.
        """
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = _joined(
            torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        )
        if limit is not None and torch.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm


def _spread(
    model: Gato, config: LearnerConfig, ranks: Ranks, device: torch.device, *, is_sharded: bool
) -> nn.Module:
    part_loss = PartLoss(model, config)
    if not is_sharded:
        return DistributedDataParallel(part_loss.to(device), forward_sync_buffers=False)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for block in model.transformer.blocks:
        fully_shard(block, mesh=mesh)
    # The table of ids belongs to the root, which uses it twice: as embedding and as head.
    fully_shard(part_loss, mesh=mesh)
    return part_loss.to(device)


def _of_first(model: Gato, optimiser: torch.optim.Optimizer, ranks: Ranks) -> Moments:
    """Give all ranks rank 0's weights, and return its moments."""
    for parameter in model.parameters():
        ranks.copy_first(parameter.data)
    state: Mapping[Tensor, Mapping[str, Tensor]] = optimiser.state
    named = dict(model.named_parameters())
    mine = {name: dict(state[p]) for name, p in named.items() if p in state}
    shapes = ranks.of_first(
        {n: {k: (v.shape, v.dtype) for k, v in moments.items()} for n, moments in mine.items()}
    )
    out: Moments = {}
    for name, of_name in shapes.items():
        for key, (shape, dtype) in of_name.items():
            value = mine[name][key] if ranks.is_first else torch.empty(shape, dtype=dtype)
            ranks.copy_first(value)
            out.setdefault(name, {})[key] = value
    return out


def _placed(value: Tensor, parameter: Tensor, device: torch.device) -> Tensor:
    """A moment where its parameter is; the count of steps is a number on every rank."""
    value = value.to(device)
    if not isinstance(parameter, DTensor) or value.ndim == 0:
        return value
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(value, mesh, placements, src_data_rank=None)


def _joined(tensor: Tensor) -> Tensor:
    """The whole of a tensor of which each rank may have a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
