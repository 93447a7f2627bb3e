"""Choosing one token from the logits of the ids that a task accepts: the mean, the likeliest, or a
sample.

Shape letters: N environments, V ids that the task accepts.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gato.acting.config import ActingConfig


def restrict(
    logits: Float[Tensor, "N V"], top_k: int | None, top_p: float | None
) -> Float[Tensor, "N V"]:
    """Logits of the ids that may be sampled, -inf for the others: of the `top_k` likeliest, the
    fewest that together have probability `top_p`.

    At least one id remains. Of equally likely ids at the border, those with lower ids remain.
    """
    if top_k is None and top_p is None:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    out = torch.zeros_like(ordered, dtype=torch.bool)
    if top_k is not None:
        out[:, top_k:] = True
    if top_p is not None:
        p = ordered.masked_fill(out, -math.inf).softmax(-1)
        # An id is left out if those before it already have `top_p`; the likeliest never is.
        before = p.cumsum(-1) - p
        out[:, 1:] |= before[:, 1:] >= top_p
    return logits.masked_fill(torch.zeros_like(out).scatter(-1, order, out), -math.inf)


def probabilities(
    logits: Float[Tensor, "N V"], how: str, config: ActingConfig
) -> Float[Tensor, "N V"]:
    """The probabilities that an action token is chosen by.

    Args:
        logits: Of the ids that the task accepts.
        how: "mean", "argmax" or "sample"; only samples are restricted by `top_k` and `top_p`.
        config: The temperature and the restrictions.
    """
    if config.temperature != 1.0:
        logits = logits / config.temperature
    if how == "sample":
        logits = restrict(logits, config.top_k, config.top_p)
    return logits.softmax(-1)
