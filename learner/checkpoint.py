"""Checkpoints: safetensors and JSON in one folder for each step, complete or absent."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gato.config import ModelConfig
from gato.files import damaged, read_json
from gato.network.model import Gato
from gato.serialization import from_plain

FORMAT = 1
FIX = (
    "remove the checkpoint's folder (the run then goes on from the one before it), or copy it again"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run: all that a resume needs next to the weights and the optimiser's
    state."""

    step: int
    """Updates made."""
    number: int
    """Publications of weights made."""


def _optimiser_tensors(model: Gato, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state
    out: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in state.get(parameter, {}).items():
            out[f"{name}|{key}"] = (
                value.detach().cpu().reshape(-1) if value.ndim == 0 else value.detach().cpu()
            )
    return out


def save_checkpoint(
    folder: Path,
    model: Gato,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    *,
    keep: int = 2,
) -> Path:
    """Write `folder/step-N` and delete all but the newest `keep` checkpoints.

    The files are written under another name, synced and then renamed, so that a process that dies
    leaves no partial checkpoint.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: If it cannot be written (a full disk). Older checkpoints are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{progress.step:09d}"
    draft = folder / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir()
        try:
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()},
                draft / "model.safetensors",
            )
            save_file(_optimiser_tensors(model, optimiser), draft / "optimiser.safetensors")
        except SafetensorError as problem:
            raise OSError(
                f"cannot write the checkpoint of step {progress.step} into {folder}: {problem}"
            ) from problem
        about = {
            "format": FORMAT,
            "step": progress.step,
            "number": progress.number,
            "model": model.shape(),
        }
        (draft / "checkpoint.json").write_text(json.dumps(about, indent=1, sort_keys=True))
        for path in draft.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/checkpoint.json"))


def _about(path: Path) -> dict[str, Any]:
    file = path / "checkpoint.json"
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
    for name, kind in (("model", dict), ("step", int), ("number", int)):
        if not isinstance(about.get(name), kind):
            raise damaged(file, f"{name} is {about.get(name)!r}, expected {kind.__name__}", fix=FIX)
    return about


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file. Raises ValueError, which names it, if it is damaged or missing."""
    try:
        return load_file(file)
    except FileNotFoundError as problem:
        raise damaged(file, "it is missing", fix=FIX) from problem
    except SafetensorError as problem:
        raise damaged(file, problem, fix=FIX) from problem


def read_model_config(path: Path) -> ModelConfig:
    """The shape of the model that a checkpoint holds; a setting newer than the checkpoint has its
    default."""
    saved = _about(path)["model"]
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
        ValueError: If its model has another shape, or a file is damaged.
    """
    about = _about(path)
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
    _load_model(path / "model.safetensors", model)
    if optimiser is not None:
        _load_optimiser(path / "optimiser.safetensors", model, optimiser)
    return Progress(step=about["step"], number=about["number"])


def _load_model(file: Path, model: Gato) -> None:
    try:
        model.load_state_dict(_tensors(file))
    except RuntimeError as problem:
        # PyTorch names all tensors that are missing, unexpected or of another shape.
        raise damaged(file, " ".join(str(problem).split())[:200], fix=FIX) from problem


def _load_optimiser(file: Path, model: Gato, optimiser: torch.optim.Optimizer) -> None:
    """Put the moments of a file into the optimiser. A parameter that was never updated has none."""
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in _tensors(file).items():
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
