"""A step whose loss or gradient was not finite: saved with all that it needs, and repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gato.files import damaged
from gato.metrics import Mean
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.serialization import from_plain, to_plain
from learner.checkpoints.files import FIX, RECORD, read_tensors, write_checkpoint
from learner.checkpoints.state import (
    Progress,
    load_checkpoint,
    read_model_config,
    read_record,
    record_of,
    state_tensors,
)
from learner.config import LearnerConfig
from learner.optimiser import freeze, make_optimiser
from learner.randomness import seed_update


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFindings:
    """What the repeated step shows of one task's rows."""

    loss: Mean
    bad_losses: int
    """Targets whose loss is not finite."""
    bad_gradients: tuple[str, ...]
    """Parameters whose gradient of this task's loss is not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFindings:
    """What the repeated step shows."""

    step: int
    what: str
    """What was not finite in the run."""
    bad_weights: tuple[str, ...]
    """Parameters that were not finite before the step."""
    gradient_norm: float
    """Of the whole batch, before clipping."""
    tasks: Mapping[str, TaskFindings]
    episode_keys: tuple[str, ...]
    """Of the batch."""


def save_failed_step(
    folder: Path,
    model: Gato,
    optimiser: torch.optim.Optimizer,
    batch: TensorBatch,
    config: LearnerConfig,
    *,
    seed: int,
    step: int,
    part: int = 0,
    bf16: bool,
    what: str,
    task_names: Sequence[str] = (),
) -> Path:
    """Write `folder/failed-step-N`: a checkpoint of the state before the step, with its batch, or
    with the part of it whose loss failed.

    A batch that is computed in parts, of which only the sum of gradients failed, is saved whole and
    repeated in one: patch positions and dropout are then drawn otherwise.

    Returns:
        Its folder.

    Raises:
        OSError: It cannot be written (a full disk).
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"failed-step-{step:09d}"
    values = {field.name: getattr(batch, field.name) for field in fields(TensorBatch)}
    of_batch = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    tensors = {**state_tensors(model, optimiser), "batch": of_batch}
    failed = {
        "what": what,
        "learner": to_plain(config),
        "seed": seed,
        "part": part,
        "bf16": bf16,
        "tasks": list(task_names),
        "batch": {name: to_plain(v) for name, v in values.items() if name not in of_batch},
    }
    write_checkpoint(
        path,
        {
            file: {name: value.detach().cpu().contiguous() for name, value in of_file.items()}
            for file, of_file in tensors.items()
        },
        record_of(model, Progress(step=step, number=0), {"failed": failed}),
    )
    return path


def repeat_step(path: Path, device: torch.device | None = None) -> StepFindings:
    """Repeat a failed step up to its gradient, with the same weights, batch and random numbers.

    Args:
        path: A folder that `save_failed_step` wrote.
        device: None: a GPU if there is one. Another device may round otherwise.

    Raises:
        ValueError: The folder holds no failed step, or a file of it is damaged.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    record = read_record(path)
    failed: dict[str, Any] | None = record.get("failed")
    if failed is None:
        raise ValueError(
            f"{path} is a checkpoint, not a failed step; give a folder such as"
            " checkpoints/failed-step-000000812"
        )
    try:
        config = from_plain(LearnerConfig, failed["learner"])
        batch = _batch(path, record, failed["batch"], device)
        part = int(failed.get("part", 0))
        seed, bf16, names = int(failed["seed"]), bool(failed["bf16"]), list(failed["tasks"])
        what = str(failed["what"])
    except (KeyError, TypeError) as problem:
        raise damaged(path / RECORD, problem, fix=FIX) from problem
    model = Gato(read_model_config(path)).to(device)
    freeze(model, config.frozen)
    load_checkpoint(path, model, make_optimiser(model, config))
    model.transformer.activation_checkpointing = config.activation_checkpointing
    bad_weights = _not_finite(model, lambda parameter: parameter)
    seed_update(seed, record["step"], part=part)
    model.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = next_token_loss(model, batch, spread_bins=config.spread_bins)
    # [n]: the task of each target.
    tasks = batch.task_index[loss.rows]
    found: dict[str, TaskFindings] = {}
    for index in tasks.unique().tolist():
        mine = loss.losses[tasks == index]
        mine.mean().backward(retain_graph=True)
        found[names[index] if index < len(names) else f"task {index}"] = TaskFindings(
            loss=Mean(float(mine.detach().sum()), len(mine)),
            bad_losses=int((~torch.isfinite(mine)).sum()),
            bad_gradients=_not_finite(model, lambda parameter: parameter.grad),
        )
        model.zero_grad(set_to_none=True)
    loss.mean.backward()
    norm = torch.nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    return StepFindings(
        step=record["step"],
        what=what,
        bad_weights=bad_weights,
        gradient_norm=float(norm),
        tasks=found,
        episode_keys=batch.episode_keys,
    )


def _batch(
    path: Path, record: Mapping[str, Any], values: Mapping[str, Any], device: torch.device
) -> TensorBatch:
    tensors = read_tensors(path / "batch.safetensors", record)
    parts: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
    parts |= {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return TensorBatch(**parts)


def _not_finite(
    model: Gato, tensor_of: Callable[[torch.nn.Parameter], Tensor | None]
) -> tuple[str, ...]:
    """The names of the parameters of which a tensor is not finite everywhere."""
    return tuple(
        name
        for name, parameter in model.named_parameters()
        if (tensor := tensor_of(parameter)) is not None and not torch.isfinite(tensor).all()
    )
