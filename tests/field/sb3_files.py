"""Zips of Stable-Baselines3 with one thing changed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.task import Task

SAVED = Path(__file__).parents[1] / "data" / "sb3"
DATA = Path(__file__).parent / "data"
PENDULUM = TASKS["mujoco/inverted-pendulum"]
HIGH = (4.8, float("inf"), 0.41887903, float("inf"))
CARTPOLE = replace(
    PENDULUM,
    name="gymnasium/cart-pole",
    env_id="CartPole-v1",
    family="gymnasium",
    observations={
        "state": ArraySpec(
            kind=Kind.CONTINUOUS, shape=(4,), low=tuple(-bound for bound in HIGH), high=HIGH
        )
    },
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=2),
)


def task_of(name: str) -> Task:
    return CARTPOLE if name in ("dqn", "ars_discrete") else PENDULUM


def changed(
    name: str,
    target: Path,
    *,
    data: Callable[[dict[str, Any]], None] | None = None,
    state: Callable[[dict[str, torch.Tensor]], None] | None = None,
) -> Path:
    """A copy of a saved zip whose `data` or tensors were edited in place."""
    with zipfile.ZipFile(SAVED / f"{name}.zip") as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            if member == "data" and data is not None:
                entries = json.loads(content)
                data(entries)
                content = json.dumps(entries).encode()
            if member == "policy.pth" and state is not None:
                tensors = dict(torch.load(io.BytesIO(content), weights_only=True))
                state(tensors)
                written = io.BytesIO()
                torch.save(tensors, written)
                content = written.getvalue()
            new.writestr(member, content)
    return target
