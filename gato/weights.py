"""Snapshots of a model's weights as plain arrays: bfloat16 stored as uint16, because NumPy has no
bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt16
from torch import Tensor

from gato.config import ModelConfig
from gato.network.model import Gato
from gato.version import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One published version of the weights."""

    version: Version
    learner_step: int
    """Updates the learner had made."""
    arrays: Mapping[str, UInt16[np.ndarray, ...]]

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


def acting_config(config: ModelConfig) -> ModelConfig:
    """The shape of the model that acts with a snapshot: without shared rows, dropout or stochastic
    depth, which only training needs."""
    return replace(config, value_waves=0, own_value_rows=True, dropout=0.0, stochastic_depth=0.0)


def copy_weights(model: Gato) -> dict[str, Tensor]:
    """A copy of the weights for a model of `acting_config`, rounded to bfloat16, in the memory of
    the host. From a GPU it is made without waiting, into pinned memory: whole only once the
    device's present stream has come so far."""
    state = model.state_dict()
    if model.config.value_waves:
        state["embedding.table.weight"] = model.embedding.weight.detach()
        del state["embedding.wave_mix"]
    copies: dict[str, Tensor] = {}
    for name, tensor in state.items():
        copies[name] = torch.empty(
            tensor.shape, dtype=torch.bfloat16, pin_memory=tensor.device.type == "cuda"
        )
        copies[name].copy_(tensor.detach(), non_blocking=True)
    return copies


def as_arrays(copies: Mapping[str, Tensor]) -> dict[str, UInt16[np.ndarray, ...]]:
    """What `copy_weights` made, as arrays of the same memory. Raises ValueError if a weight is not
    finite."""
    for name, tensor in copies.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weight {name} is not finite; it is not published")
    return {name: tensor.view(torch.uint16).numpy() for name, tensor in copies.items()}


def snapshot(model: Gato) -> dict[str, UInt16[np.ndarray, ...]]:
    """The weights rounded to bfloat16, for a model of `acting_config`. Raises ValueError if a
    weight is not finite."""
    copies = copy_weights(model)
    if any(tensor.is_pinned() for tensor in copies.values()):
        torch.cuda.current_stream().synchronize()
    return as_arrays(copies)


def load(model: Gato, arrays: Mapping[str, UInt16[np.ndarray, ...]]) -> None:
    """Put a snapshot's weights into the model. Raises ValueError if names or shapes differ."""
    state = model.state_dict()
    if set(state) != set(arrays):
        odd = sorted(set(state) ^ set(arrays))
        raise ValueError(f"weights of another model: {len(odd)} names differ, such as {odd[0]!r}")
    for name, tensor in state.items():
        if tuple(tensor.shape) != arrays[name].shape:
            raise ValueError(
                f"weights of another model: {name} is {arrays[name].shape}, expected"
                f" {tuple(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])).view(torch.bfloat16))
