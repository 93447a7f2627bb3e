"""Choosing one token from the logits of the ids that a task may emit: the mean, the likeliest, or a draw.

Shape letters: N environments, V ids that the task may emit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingConfig:
    """How actions are chosen from the logits, which are always restricted to the ids that the task may emit."""

    continuous: Literal["mean", "argmax", "sample"] = "mean"
    """mean: of the predicted distribution over the bins; each dimension sees the earlier ones encoded anew."""
    discrete: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    top_k: int | None = None
    """Draw from the k likeliest ids only (Fan et al. 2018). None: from all."""
    top_p: float | None = None
    """Draw from the fewest ids that together have this probability (nucleus, Holtzman et al. 2020). None: from all."""
    window_steps: int | None = None
    """Whole steps a token may look back on, its own included. None: as many as the model's context holds."""
    prompt_steps: int = 0
    """Begin each episode with so many steps of a successful demonstration in the context (paper section 2.4), 0: with none."""
    wished_return: float | None = 1.0
    """Of a return-conditioned model: the return it is asked for, 0 being a random policy's and 1 the expert's. None:
    nothing is asked for, as in the rows that training leaves untold. Other models do not see it."""
    int8: Literal["weights", "dynamic"] | None = None
    """Act with linear layers in 8 bits on a CPU (`gato.quantise`): of the weights alone, or of what enters them too."""

    def __post_init__(self) -> None:
        if self.continuous not in ("mean", "argmax", "sample") or self.discrete not in ("argmax", "sample"):
            raise ValueError(
                f"actions are chosen by argmax, sample or (continuous ones) mean, got continuous={self.continuous!r} "
                f"discrete={self.discrete!r}"
            )
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature {self.temperature} must be above 0 and finite; for no randomness use argmax or mean"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} must be at least 1; leave it out to draw from all ids")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p {self.top_p} must be above 0 and at most 1; leave it out to draw from all ids")
        if (self.top_k is not None or self.top_p is not None) and "sample" not in (self.continuous, self.discrete):
            raise ValueError(
                f"top_k {self.top_k} and top_p {self.top_p} say what to draw from, but nothing is drawn; set continuous or "
                "discrete to 'sample'"
            )
        if self.window_steps is not None and self.window_steps < 1:
            raise ValueError(f"window_steps {self.window_steps} must be at least 1")
        if self.prompt_steps < 0:
            raise ValueError(f"prompt_steps {self.prompt_steps} must be at least 0")
        if self.window_steps is not None and self.prompt_steps >= self.window_steps:
            raise ValueError(
                f"prompt_steps {self.prompt_steps} leave no room in a window of {self.window_steps} steps; lower them, or act "
                "(and train) with longer windows"
            )
        if self.int8 not in (None, "weights", "dynamic"):
            raise ValueError(
                f"int8 {self.int8!r} must be 'weights' or 'dynamic'; leave it out to act in full precision"
            )


def drawn_from(logits: Float[Tensor, "N V"], top_k: int | None, top_p: float | None) -> Float[Tensor, "N V"]:
    """Logits of the ids a draw may give, -inf for the others: of the k likeliest, the fewest that have `top_p`.

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


def probabilities(logits: Float[Tensor, "N V"], how: str, config: ActingConfig) -> Float[Tensor, "N V"]:
    """What an action token is chosen by: the temperature's softmax, of fewer ids where one is to be drawn."""
    logits = logits / config.temperature
    if how == "sample":
        logits = drawn_from(logits, config.top_k, config.top_p)
    return logits.softmax(-1)
