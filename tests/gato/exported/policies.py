"""Policies of a small model, for the tasks of `tests.gato.models`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gato.acting.config import ActingConfig
from gato.exported.policy_file import PolicyFile, TaskPolicy
from gato.network.model import Gato
from gato.sequence import Window
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, acting_config, exact, snapshot
from tests.gato.models import GAME, ROBOT, random_observations, small_model

ACTING = ActingConfig(window_steps=3)


def model_for(*, returns: bool = False) -> Gato:
    """Small, with room for a few steps of each task."""
    model = small_model(64)
    if not returns:
        return model
    conditioned = Gato(replace(model.config, return_conditioned=True)).eval()
    conditioned.load_state_dict(
        {
            name: tensor if tensor.shape == mine.shape else mine
            for (name, tensor), mine in zip(
                model.state_dict().items(), conditioned.state_dict().values(), strict=True
            )
        }
    )
    return conditioned


def policy_file(
    *tasks: Task,
    model: Gato | None = None,
    acting: ActingConfig = ACTING,
    prompts: Mapping[str, Window] | None = None,
    is_exact: bool = False,
    text_model: bytes | None = None,
) -> PolicyFile:
    model = model or model_for()
    return PolicyFile(
        run="made",
        seed=7,
        model=acting_config(model.config),
        weights=Weights(
            version=Version(1, 5),
            learner_step=500,
            arrays=exact(model) if is_exact else snapshot(model),
        ),
        tasks={
            task.name: TaskPolicy(task=task, acting=acting, prompt=(prompts or {}).get(task.name))
            for task in tasks or (ROBOT, GAME)
        },
        text_model=text_model,
    )


def prompt_of(task: Task, num_steps: int, *, returns: bool = False) -> Window:
    rng = np.random.default_rng(3)
    shape = (num_steps, *task.action.shape)
    return Window(
        observations=random_observations(task, num_steps, rng),
        actions=(
            rng.integers(0, 2, shape)
            if task.action.num_values is not None
            else rng.uniform(-1, 1, shape).astype(np.float32)
        ),
        returns=np.linspace(1.0, 0.5, num_steps) if returns else None,
    )
