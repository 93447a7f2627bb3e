"""Snapshots of a model's weights as plain arrays: bfloat16 stored as uint16, because NumPy has no
bfloat16; or float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float32, UInt16
from torch import Tensor

from gato.config import ModelConfig
from gato.network.model import Gato
from gato.version import Version

Arrays: TypeAlias = Mapping[str, UInt16[np.ndarray, "..."] | Float32[np.ndarray, "..."]]
"""Weights by name: bfloat16 as uint16, or float32."""


BFLOAT16_INFINITY = 0x7F80
"""Its bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One published version of the weights."""

    version: Version
    learner_step: int
    """Updates the learner had made."""
    arrays: Arrays

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


def acting_config(config: ModelConfig) -> ModelConfig:
    """The shape of the model that acts with a snapshot: without shared rows, dropouts or stochastic
    depth, which only training needs."""
    return replace(
        config, value_waves=0, own_value_rows=True, dropout=0.0, stochastic_depth=0.0,
        action_dropout=0.0,
    )  # fmt: skip


def _acting_state(model: Gato) -> dict[str, Tensor]:
    """The tensors of a model of `acting_config`."""
    state = model.state_dict()
    if model.config.value_waves:
        state["embedding.table.weight"] = model.embedding.weight.detach()
        del state["embedding.wave_mix"]
    return state


def copy_weights(model: Gato) -> dict[str, Tensor]:
    """A copy of the weights for a model of `acting_config`, rounded to bfloat16, in the memory of
    the host. From a GPU it is made without waiting, into pinned memory: whole only once the
    device's present stream has come so far."""
    copies: dict[str, Tensor] = {}
    for name, tensor in _acting_state(model).items():
        copies[name] = torch.empty(
            tensor.shape, dtype=torch.bfloat16, pin_memory=tensor.device.type == "cuda"
        )
        copies[name].copy_(tensor.detach(), non_blocking=True)
    return copies


def as_arrays(copies: Mapping[str, Tensor]) -> dict[str, UInt16[np.ndarray, ...]]:
    """What `copy_weights` made, as arrays of the same memory. Raises ValueError if a weight is not
    finite."""
    arrays = {name: tensor.view(torch.uint16).numpy() for name, tensor in copies.items()}
    for name, bits in arrays.items():
        # Without the sign, infinity is the first that is not finite. On bfloat16 itself PyTorch
        # takes eight times as long on a CPU.
        if bits.size and (bits & 0x7FFF).max() >= BFLOAT16_INFINITY:
            raise _not_finite(name)
    return arrays


def _not_finite(name: str) -> ValueError:
    return ValueError(f"weight {name} is not finite; it is not published")


def snapshot(model: Gato) -> dict[str, UInt16[np.ndarray, ...]]:
    """The weights rounded to bfloat16, for a model of `acting_config`. Raises ValueError if a
    weight is not finite."""
    copies = copy_weights(model)
    if any(tensor.is_pinned() for tensor in copies.values()):
        torch.cuda.current_stream().synchronize()
    return as_arrays(copies)


def exact(model: Gato) -> dict[str, Float32[np.ndarray, ...]]:
    """The weights in float32, for a model of `acting_config`. Raises ValueError if a weight is not
    finite."""
    state = _acting_state(model)
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise _not_finite(name)
    return {
        name: tensor.detach().to("cpu", torch.float32, copy=True).numpy()
        for name, tensor in state.items()
    }


def rounded(arrays: Arrays) -> dict[str, UInt16[np.ndarray, ...]]:
    """The same weights rounded to bfloat16."""
    return {
        name: tensor_of(array).to(torch.bfloat16).view(torch.uint16).numpy()
        for name, array in arrays.items()
    }


def tensor_of(array: UInt16[np.ndarray, ...] | Float32[np.ndarray, ...]) -> Tensor:
    """A weight as a tensor: bfloat16 if the array is of uint16."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor


def load(model: Gato, arrays: Arrays) -> None:
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
            tensor.copy_(tensor_of(arrays[name]))
