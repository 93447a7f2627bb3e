"""The settings of acting. They need no torch, which takes seconds to import, so that commands read
run files quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gato.bounds import require_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingConfig:
    """How actions are chosen from the logits, which are always restricted to the ids that the task
    accepts."""

    continuous: Literal["mean", "argmax", "sample"] = "mean"
    """mean: of the predicted distribution over the bins; each dimension sees the bins of
    the earlier ones."""
    discrete: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    top_k: int | None = None
    """Draw from the k likeliest ids only (Fan et al. 2018). None: from all."""
    top_p: float | None = None
    """Draw from the fewest ids that together have this probability (nucleus, Holtzman et al. 2020).
    None: from all."""
    window_steps: int | None = None
    """Whole steps that a token can attend to, its own included. None: as many as the model's
    context holds."""
    prompt_steps: int = 0
    """Begin each episode with so many steps of a successful demonstration in the context (paper
    section 2.4), 0: with none."""
    target_return: float | None = 1.0
    """The return that a return-conditioned model aims for: 0 is a random policy's, 1 the expert's.
    None: the model is told no return, as in some rows of training. Other models ignore it."""
    int8: Literal["weights", "dynamic"] | None = None
    """Act with linear layers in 8 bits on a CPU (`gato.network.quantise`): the weights alone, or
    their inputs too."""

    def __post_init__(self) -> None:
        if self.continuous not in ("mean", "argmax", "sample") or self.discrete not in (
            "argmax",
            "sample",
        ):
            raise ValueError(
                "actions are chosen by argmax, sample or (continuous ones) mean, got"
                f" continuous={self.continuous!r} discrete={self.discrete!r}"
            )
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature {self.temperature} must be above 0 and finite; for no randomness use"
                " argmax or mean"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k {self.top_k} must be at least 1; leave it out to draw from all ids"
            )
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(
                f"top_p {self.top_p} must be above 0 and at most 1; leave it out to draw from all"
            )
        if (self.top_k is not None or self.top_p is not None) and "sample" not in (
            self.continuous,
            self.discrete,
        ):
            raise ValueError(
                f"top_k {self.top_k} and top_p {self.top_p} say what to draw from, but nothing is"
                " drawn; set continuous or discrete to 'sample'"
            )
        require_at_least(1, self, "window_steps")
        require_at_least(0, self, "prompt_steps")
        if self.window_steps is not None and self.prompt_steps >= self.window_steps:
            raise ValueError(
                f"prompt_steps {self.prompt_steps} leave no room in a window of {self.window_steps}"
                " steps; lower them, or act (and train) with longer windows"
            )
        if self.int8 not in (None, "weights", "dynamic"):
            raise ValueError(
                f"int8 {self.int8!r} must be 'weights' or 'dynamic'; leave it out to act in full"
                " precision"
            )
