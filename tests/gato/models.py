"""Two small tasks and a small model that tests of gato share."""

import numpy as np
import torch

from gato.model import Gato, ModelConfig
from gato.task import ArraySpec, Kind, References, Task

REFERENCES = References(random=0.0, expert=1.0, source="made for tests")
ROBOT = Task(
    name="test/robot",
    env_id="Robot-v0",
    family="test",
    observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(5,))},
    action=ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=-2.0, high=2.0),
    references=REFERENCES,
    max_steps=100,
)
GAME = Task(
    name="test/game",
    env_id="Game-v0",
    family="test",
    observations={
        "image": ArraySpec(kind=Kind.IMAGE, shape=(32, 48, 3)),
        "lives": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=5),
    },
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=18),
    references=REFERENCES,
    max_steps=100,
)


def small_model(context_tokens: int, *, positions: str = "transformer-xl") -> Gato:
    torch.manual_seed(0)
    config = ModelConfig(
        num_layers=3, num_heads=2, width=32, feedforward=64, context_tokens=context_tokens,
        num_text_ids=1024, max_observation_tokens=16, patch_channels=32, patch_stride=4,
        positions=positions,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    model = Gato(config).eval()
    with torch.no_grad():  # away from the symmetric start, where positions and biases would not matter
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_observations(task: Task, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for key, spec in task.observations.items():
        if spec.kind is Kind.IMAGE:
            out[key] = rng.integers(0, 256, (num, *spec.shape)).astype(np.uint8)
        elif spec.kind is Kind.DISCRETE:
            out[key] = rng.integers(0, spec.num_values or 0, (num, *spec.shape))
        else:
            out[key] = rng.normal(0, 2, (num, *spec.shape)).astype(np.float32)
    return out
