"""The learner's settings, which need no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from learner.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """How the learner trains. The optimiser's constants are the paper's (appendix D)."""

    num_updates: int
    max_rate: float = 1e-4
    warmup_updates: int | None = None
    """None: 1.5 % of the run, the paper's share."""
    final_rate_fraction: float = 0.1
    """The rate at the end of the run, as a fraction of `max_rate`; 1: constant after the
    warm-up."""
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """On matrices of the network; not on norms, biases, or the tables of embeddings and
    positions."""
    clip_gradient_norm: float | None = 1.0
    """The paper names no clipping; None turns it off."""
    frozen: tuple[str, ...] = ()
    """Parts of the model that are not trained, by the names of its modules and parameters, such as
    embedding or transformer.blocks.0."""
    spread_bins: float = 0.0
    """Standard deviation, in bins, by which the target of a continuous action is spread over its
    neighbours."""
    publish_every: int = 100
    """Updates between two publications of the weights."""
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    """The newest so many; the one with the best evaluation is kept besides."""
    report_every: int = 20
    """Updates between two reports, at most; a slow learner reports every ten seconds."""
    bf16: bool | None = None
    """Autocast to bfloat16. None: if it is faster than float32 here, which the learner measures on
    its own model when a run begins."""
    micro_batch_rows: int | None = None
    """Rows of a batch that a learner computes at once; the gradients of the others are added. None:
    as many as the memory is planned to hold."""
    activation_checkpointing: bool = False
    """Keep only the inputs of each block and compute the rest again for the gradient: less memory,
    a third more work."""
    compile: bool | None = None
    """Compile the transformer's blocks (`torch.compile`). It needs a C++ compiler, and a minute at
    the start; where it fails, the learner says why and goes on without. None: on a GPU."""
    profile_updates: int = 0
    """Updates to trace soon after each start of the learner (`gato start --profile`), into the
    folder checkpoints/traces of the run."""
    num_threads: int | None = None
    """Threads of one operation on a CPU. None: as many as are fastest, of those that leave each
    worker a core. On a cluster so many cores are reserved for each learner; None: one."""
    num_learners: int = 1
    """Processes that train the model together, each with a GPU if there are any. They share the
    rows of each batch: the batch stays the same."""
    parallel: Literal["ddp", "fsdp"] | None = None
    """How several processes keep the model: each all of it (ddp), or each a part (fsdp). None: fsdp
    if the training state takes more than half of a GPU's memory."""

    def __post_init__(self) -> None:
        for name in (
            "num_updates",
            "publish_every",
            "checkpoint_every",
            "keep_checkpoints",
            "report_every",
            "num_learners",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.profile_updates < 0:
            raise ValueError(f"profile_updates is {self.profile_updates}, it must be at least 0")
        for name in ("micro_batch_rows", "num_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1, or null")
        self._check_training()
        if self.parallel == "fsdp" and self.compile:
            raise ValueError(
                "learner.parallel=fsdp cannot be compiled; use learner.parallel=ddp, or"
                " learner.compile=false"
            )

    def _check_training(self) -> None:
        """Raises ValueError for settings that would train wrongly, or not at all."""
        # Written so that nan, for which every comparison is false, is rejected too.
        for name in ("max_rate", "epsilon", "clip_gradient_norm"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                or_null = ", or null" if name == "clip_gradient_norm" else ""
                raise ValueError(f"{name} is {value}, it must be above 0 and finite{or_null}")
        for name in ("weight_decay", "spread_bins", "warmup_updates"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, it must be at least 0 and finite")
        if not 0.0 <= self.final_rate_fraction <= 1.0:
            raise ValueError(
                f"final_rate_fraction {self.final_rate_fraction:g} must be from 0 to 1, which keeps"
                " the rate constant"
            )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, each must be at least 0 and below 1")

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            max_rate=self.max_rate,
            num_updates=self.num_updates,
            warmup_updates=self.warmup_updates,
            final_fraction=self.final_rate_fraction,
        )
