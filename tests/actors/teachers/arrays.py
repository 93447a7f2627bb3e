"""Arrays of a small specialist, for tests."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def arrays_of(sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The arrays of a network of these layer sizes, with statistics that change nothing."""
    rng = np.random.default_rng(1)
    arrays = {
        "obs_mean": np.zeros(sizes[0], np.float32),
        "obs_std": np.ones(sizes[0], np.float32),
        "log_std": np.zeros(sizes[-1], np.float32),
    }
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        arrays[f"layer{index}.weight"] = rng.normal(size=(outputs, inputs)).astype(np.float32)
        arrays[f"layer{index}.bias"] = rng.normal(size=outputs).astype(np.float32)
    return arrays
