"""Tasks, windows and models that the paper's tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from gato.array_spec import ArraySpec, Kind
from gato.config import ModelConfig
from gato.network.model import Gato, TensorBatch
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import References, Task
from tests.gato.models import random_observations

REFERENCES = References(random=0.0, expert=1.0, source="made for tests")
BUTTON = ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=18)
TORQUES = ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=-1.0, high=1.0)
SMALL = ModelConfig(
    num_layers=2, num_heads=2, width=32, feedforward=64, context_tokens=128,
    max_observation_tokens=32, patch_channels=32, patch_stride=4,
)  # fmt: skip
"""A small model with the paper's ids."""


def task_of(observations: Mapping[str, ArraySpec], action: ArraySpec = BUTTON) -> Task:
    return Task(
        name="test/task", env_id="Task-v0", family="test", observations=observations, action=action,
        references=REFERENCES, max_steps=100,
    )  # fmt: skip


def image(height: int, width: int) -> ArraySpec:
    return ArraySpec(kind=Kind.IMAGE, shape=(height, width, 3))


def values(*shape: int) -> ArraySpec:
    return ArraySpec(kind=Kind.CONTINUOUS, shape=shape)


STATE = task_of({"state": values(4)}, TORQUES)
SCREEN = task_of({"screen": image(32, 32)})


def model_of(config: ModelConfig = SMALL, **changes: object) -> Gato:
    torch.manual_seed(0)
    model = Gato(replace(config, **changes)).eval()  # type: ignore[arg-type]
    # away from the symmetric start, where positions and biases would not matter
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def window_of(task: Task, num_steps: int, *, seed: int = 0, prompt_steps: int = 0) -> Window:
    """Random observations and actions."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, *task.action.shape)
    if task.action.kind is Kind.DISCRETE:
        actions = rng.integers(0, task.action.num_values or 0, shape)
    else:
        actions = rng.uniform(task.action.low or 0.0, task.action.high or 0.0, shape).astype(
            np.float32
        )
    return Window(
        observations=random_observations(task, num_steps, rng),
        actions=actions,
        prompt_steps=prompt_steps,
    )


def batch_of(task: Task, model: Gato, windows: list[Window]) -> TensorBatch:
    """A row for each window, no longer than it needs to be."""
    steps = StepLayout(task, model.config.layout)
    length = max(len(window.actions) for window in windows) * steps.tokens_per_step
    writer = RowWriter(num_rows=len(windows), row_tokens=length)
    for row, window in enumerate(windows):
        writer.write_row(row, task_index=0, steps=steps, windows=[window])
    return TensorBatch.of(writer.batch())
