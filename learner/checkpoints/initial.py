"""Trained weights as the checkpoint from which another run's learner begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gato.config import ModelConfig
from gato.network.model import Gato
from gato.weights import Arrays, load
from learner.checkpoints.files import read_tensors
from learner.checkpoints.state import Progress, read_record, save_checkpoint


def stored_arrays(checkpoint: Path) -> Arrays:
    """The weights of a checkpoint, as they are trained. Raises ValueError if it is damaged."""
    tensors = read_tensors(checkpoint / "model.safetensors", read_record(checkpoint))
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def write_initial(
    folder: Path, config: ModelConfig, arrays: Arrays, origin: Mapping[str, Any]
) -> None:
    """Write the checkpoint of step 0: these weights, with no optimiser state.

    Args:
        folder: Of the run's checkpoints.
        config: Of the run's model.
        arrays: The weights.
        origin: Where they come from; `checkpoint.json` says it.

    Raises:
        ValueError: The weights are of another model.
    """
    model = Gato(config)
    load(model, arrays)
    save_checkpoint(folder, model, None, Progress(step=0, number=0), more={"initial": dict(origin)})
