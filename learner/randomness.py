"""The random numbers of an update: a seed of its own, so that a resumed run draws the same."""

from __future__ import annotations

import numpy as np
import torch


def seed_update(seed: int, step: int, *, part: int = 0) -> None:
    """Seed PyTorch's generators for update `step` of a run with this seed: patch positions,
    dropout. `part`: of a batch that is computed in parts."""
    key = [seed, step, part] if part else [seed, step]
    torch.manual_seed(int(np.random.default_rng(key).integers(2**62)))
