"""Choosing one token from the logits of the ids that a task may emit: the mean, the likeliest, or a
draw.

Shape letters: N environments, V ids that the task may emit.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gato.config import ActingConfig


def drawn_from(
    logits: Float[Tensor, "N V"], top_k: int | None, top_p: float | None
) -> Float[Tensor, "N V"]:
    """Logits of the ids a draw may give, -inf for the others: of the k likeliest, the fewest that
    have `top_p`.

    At least one id stays. Of equally likely ones at the border, those with the lower ids do.
    """
    if top_k is None and top_p is None:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    out = torch.zeros_like(ordered, dtype=torch.bool)
    if top_k is not None:
        out[:, top_k:] = True
    if top_p is not None:
        p = ordered.masked_fill(out, -math.inf).softmax(-1)
        before = p.cumsum(-1) - p
        out[:, 1:] |= before[:, 1:] >= top_p
    return logits.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -math.inf)


def probabilities(
    logits: Float[Tensor, "N V"], how: str, config: ActingConfig
) -> Float[Tensor, "N V"]:
    """What an action token is chosen by: the temperature's softmax, of fewer ids where one is to be
    drawn."""
    logits = logits / config.temperature
    if how == "sample":
        logits = drawn_from(logits, config.top_k, config.top_p)
    return logits.softmax(-1)
