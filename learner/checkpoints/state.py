"""Checkpoints: the weights, the optimiser's state and the progress of a run, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gato.config import ModelConfig
from gato.files import damaged, read_json
from gato.network.model import Gato
from gato.serialization import from_plain
from learner.checkpoints.files import FIX, RECORD, read_tensors, remove_old, write_checkpoint

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run: all that a resume needs next to the weights and the optimiser's
    state."""

    step: int
    """Updates made."""
    number: int
    """Publications of weights made."""


def state_tensors(
    model: Gato, optimiser: torch.optim.Optimizer | None
) -> dict[str, dict[str, Tensor]]:
    """All tensors of a checkpoint, by file and name; they are the model's and the optimiser's own,
    not copies."""
    state: Mapping[Tensor, Mapping[str, Tensor]] = {} if optimiser is None else optimiser.state
    moments: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in state.get(parameter, {}).items():
            moments[f"{name}|{key}"] = value.detach().reshape(-1) if value.ndim == 0 else value
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    return {"model": weights, "optimiser": {k: v.detach() for k, v in moments.items()}}


def record_of(
    model: Gato, progress: Progress, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What `checkpoint.json` says; `more`: of the run."""
    return {
        **(more or {}),
        "format": FORMAT,
        "step": progress.step,
        "number": progress.number,
        "model": model.shape(),
    }


def checkpoint_path(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return folder / f"step-{step:09d}"


def save_checkpoint(
    folder: Path,
    model: Gato,
    optimiser: torch.optim.Optimizer | None,
    progress: Progress,
    *,
    keep: int = 2,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write `folder/step-N` and delete all but the newest `keep` checkpoints. Without an optimiser,
    training goes on from it with a new one.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: If it cannot be written (a full disk). Older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, progress.step)
    tensors = {
        file: {name: value.cpu().contiguous() for name, value in of_file.items()}
        for file, of_file in state_tensors(model, optimiser).items()
    }
    write_checkpoint(path, tensors, record_of(model, progress, more))
    remove_old(folder, keep=keep, written=path)
    return path


def read_record(path: Path) -> dict[str, Any]:
    """What `checkpoint.json` says. Raises ValueError if it is missing or damaged."""
    file = path / RECORD
    if not file.is_file():
        raise ValueError(
            f"{path} is not a checkpoint: it has no checkpoint.json; give a folder such as"
            " checkpoints/step-000001000"
        )
    about = read_json(file, fix=FIX)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {about.get('format')}, this version reads {FORMAT}"
        )
    for name, kind in (("model", dict), ("step", int), ("number", int), ("files", dict)):
        if name == "files" and name not in about:
            continue  # from before there were checksums
        if not isinstance(about.get(name), kind):
            raise damaged(file, f"{name} is {about.get(name)!r}, expected {kind.__name__}", fix=FIX)
    return about


def read_model_config(path: Path) -> ModelConfig:
    """The shape of the model that a checkpoint holds; a setting newer than the checkpoint has its
    default."""
    saved = read_record(path)["model"]
    unknown = sorted(set(saved) - {field.name for field in fields(ModelConfig)})
    if unknown:
        raise ValueError(
            f"{path} has the model setting {unknown[0]!r}, which this version does not know; update"
            " gato-ray"
        )
    try:
        return from_plain(ModelConfig, saved)
    except (TypeError, ValueError) as problem:
        raise damaged(path / "checkpoint.json", problem, fix=FIX) from problem


def load_checkpoint(
    path: Path, model: Gato, optimiser: torch.optim.Optimizer | None = None
) -> Progress:
    """Load a checkpoint into the model (and the optimiser).

    Raises:
        ValueError: If its model has another shape, or (DamagedFile) a file is damaged.
    """
    about = read_record(path)
    saved_config = read_model_config(path)
    if saved_config != model.config:
        mine = model.shape()
        wrong = [
            f"{k} {v} (wanted {mine.get(k)})"
            for k, v in asdict(saved_config).items()
            if v != mine.get(k)
        ]
        if saved_config.normalise != model.config.normalise:  # too many numbers for one line
            wrong = [
                *(w for w in wrong if not w.startswith("normalise ")),
                "other statistics for normalising observations",
            ]
        raise ValueError(
            f"{path} holds a model of another shape: {', '.join(wrong)}; start a new run, or give"
            " the run this model's sizes"
        )
    _load_model(path / "model.safetensors", about, model)
    if optimiser is not None:
        _load_optimiser(path / "optimiser.safetensors", about, model, optimiser)
    return Progress(step=about["step"], number=about["number"])


def _load_model(file: Path, about: Mapping[str, Any], model: Gato) -> None:
    try:
        model.load_state_dict(read_tensors(file, about))
    except RuntimeError as problem:
        # PyTorch names all tensors that are missing, unexpected or of another shape.
        raise damaged(file, " ".join(str(problem).split())[:200], fix=FIX) from problem


def _load_optimiser(
    file: Path, about: Mapping[str, Any], model: Gato, optimiser: torch.optim.Optimizer
) -> None:
    """Put the moments of a file into the optimiser. A parameter that was never updated has none."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in read_tensors(file, about).items():
        name, _, moment = key.partition("|")
        states.setdefault(name, {})[moment] = value
    for name, parameter in model.named_parameters():
        state = states.pop(name, {})
        if not state:
            continue
        wrong = [
            moment
            for moment, value in state.items()
            if moment != "step" and value.shape != parameter.shape
        ]
        if "step" not in state or state["step"].numel() != 1 or wrong:
            raise damaged(
                file, f"the state of {name} does not fit: {', '.join(wrong) or 'step'}", fix=FIX
            )
        step = state.pop("step").reshape(())
        moments = {moment: value.to(parameter.device) for moment, value in state.items()}
        # A fused AdamW keeps its step count on the parameter's device, the plain one on the CPU.
        optimiser.state[parameter] = {"step": step.to(parameter.device), **moments}
    if states:
        raise damaged(file, f"the model has no parameter {next(iter(states))}", fix=FIX)
