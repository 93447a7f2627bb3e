"""The optimiser: AdamW, and which parameters decay."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import torch

from gato.config import ModelConfig
from gato.network.model import Gato
from learner.config import LearnerConfig


def parameter_groups(model: Gato, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and kernels of the network with decay; norms, biases and tables (ids, places, patch
    rows) without. Frozen ones are in neither group."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    decay = [
        p
        for n, p in model.named_parameters()
        if p.requires_grad and p.ndim >= 2 and id(p) not in tables and not n.endswith("_bias")
    ]
    chosen = {id(p) for p in decay}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def freeze(model: Gato, names: Sequence[str]) -> None:
    """Leave parts of a model as they are.

    Args:
        model: Whose parameters then take no gradient.
        names: Of modules or parameters, such as "embedding" or "transformer.blocks.0".

    Raises:
        ValueError: The model has no part of a name, or nothing is left to train.
    """
    for name in names:
        parts = [p for n, p in model.named_parameters() if n == name or n.startswith(f"{name}.")]
        if not parts:
            known = [n for n, _ in model.named_modules() if n and n.count(".") <= 2]
            near = get_close_matches(name, known, n=1, cutoff=0.4)
            raise ValueError(
                f"learner.frozen: the model has no part {name!r}; it has"
                f" {', '.join(n for n, _ in model.named_children())} and their parts, such as"
                f" {near[0] if near else 'transformer.blocks.0'}"
            )
        for parameter in parts:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("learner.frozen names all of the model: nothing is left to train")


def require_parts(config: ModelConfig, names: Sequence[str]) -> None:
    """ValueError if `freeze` would raise it for a model of this shape, of which only the names are
    made."""
    with torch.device("meta"):
        freeze(Gato(config), names)


def make_optimiser(model: Gato, config: LearnerConfig) -> torch.optim.AdamW:
    """AdamW with the paper's constants (appendix D), as one kernel for all parameters."""
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.max_rate,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )
