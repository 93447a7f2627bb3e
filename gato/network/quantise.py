"""Linear layers in 8 bits for acting on a CPU: one scale for each output, symmetric
(docs/adr/0012).

Shape letters: M rows, I inputs, O outputs.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from gato.network.model import Gato

Int8Kind = Literal["weights", "dynamic"]
KINDS: tuple[Int8Kind, ...] = ("weights", "dynamic")
FEW_ROWS = 8
"""Up to this many rows the product with int8 weights is faster, above it the product with the same
weights as bfloat16."""
WHOLE_INPUTS = 16
"""PyTorch 2.13's product on int8 weights reads beyond the end of rows whose length is not a
multiple of this."""


def to_int8(x: Float[Tensor, "M I"]) -> tuple[Int8[Tensor, "M I"], Float[Tensor, "M 1"]]:
    """Whole numbers in -127..127 and a scale for each row, whose product is within half a scale of
    `x`."""
    scale = (x.abs().amax(-1, keepdim=True) / 127.0).clamp_min(torch.finfo(torch.float32).tiny)
    return (x / scale).round().to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8.

    `weights`: inputs are not quantised; products are in bfloat16. `dynamic`: inputs are quantised
    too, each row by a scale of its own; products are of whole numbers, exact in int32.
    """

    def __init__(self, linear: nn.Linear, kind: Int8Kind) -> None:
        super().__init__()
        self.kind = kind
        weight, scale = to_int8(linear.weight.detach().float())
        self.weight: Tensor
        self.scale: Tensor
        self.ones: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale[:, 0])
        self.register_buffer("ones", torch.ones(len(weight), dtype=torch.bfloat16))
        self.bias: Tensor | None = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2).float()
        out = self._dynamic(flat) if self.kind == "dynamic" else self._weights(flat)
        out = out if self.bias is None else out.add_(self.bias)
        return out.view(*x.shape[:-1], -1).to(x.dtype)

    def _dynamic(self, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        whole, scale = to_int8(x)
        return torch.ops.aten._int_mm(whole, self.weight.t()).mul(self.scale).mul_(scale)

    def _weights(self, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        # The whole numbers are exact in bfloat16, and so the scales come last, in float32.
        if len(x) <= FEW_ROWS and x.shape[1] % WHOLE_INPUTS == 0:
            out = torch.ops.aten._weight_int8pack_mm(x.bfloat16(), self.weight, self.ones)
        else:
            out = F.linear(x.bfloat16(), self.weight.bfloat16())
        return out.float().mul_(self.scale)


def quantised(model: Gato, kind: Int8Kind) -> Gato:
    """A copy whose linear layers are int8, for acting. All else is shared with `model`, which does
    not change.

    The projection of distances is not quantised: it is computed once for all steps. Raises
    ValueError if the model is not on a CPU.
    """
    device = model.embedding.table.weight.device
    if device.type != "cpu":
        raise ValueError(
            f"int8 is for acting on a CPU, the model is on {device}; leave int8 out there"
        )
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copy = deepcopy(model, shared)  # pyright: ignore[reportArgumentType]
    for module in list(copy.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and name != "distance":
                setattr(module, name, Int8Linear(child, kind))
    return copy
