"""The optimiser: AdamW, and which parameters decay."""

from __future__ import annotations

import torch

from gato.network.model import Gato
from learner.config import LearnerConfig


def parameter_groups(model: Gato, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and kernels of the network with decay; norms, biases and tables (ids, places, patch
    rows) without."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    decay = [
        p
        for n, p in model.named_parameters()
        if p.ndim >= 2 and id(p) not in tables and not n.endswith("_bias")
    ]
    chosen = {id(p) for p in decay}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def make_optimiser(model: Gato, config: LearnerConfig) -> torch.optim.AdamW:
    """AdamW with the paper's constants (appendix D), as one kernel for all parameters."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.max_rate,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )
