"""Two small tasks and a small model that tests of gato share."""

from collections.abc import Sequence

import numpy as np
import torch

from gato.array_spec import ArraySpec, Kind
from gato.config import ModelConfig
from gato.network.model import Gato
from gato.task import References, Task
from gato.text import text_to_bytes

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

TALK = Task(
    name="test/talk",
    env_id="Talk-v0",
    family="test",
    observations={
        "order": ArraySpec(kind=Kind.TEXT, shape=(20,), max_tokens=2),
        "answer": ArraySpec(kind=Kind.TEXT, shape=(20,), max_tokens=3),
        "image": ArraySpec(kind=Kind.IMAGE, shape=(16, 20, 3)),
        "arms": ArraySpec(
            kind=Kind.CONTINUOUS, shape=(2,), low=(-1.0, -np.inf), high=(1.0, np.inf)
        ),
    },
    action=ArraySpec(kind=Kind.DISCRETE, shape=(3,), num_values=(2, 5, 3)),
    references=REFERENCES,
    max_steps=100,
)
"""One of everything: text, an image, per-element bounds, and a MultiDiscrete action."""


class WordEncoder:
    """Each word is the id 1 + its length; 0 is the padding."""

    vocab_size = 100
    pad_id = 0

    def encode(self, text: str) -> list[int]:
        return [1 + len(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join("x" * (id_ - 1) for id_ in ids)


def small_model(
    context_tokens: int, *, max_observation_tokens: int = 16, positions: str = "transformer-xl"
) -> Gato:
    torch.manual_seed(0)
    config = ModelConfig(
        num_layers=3,
        num_heads=2,
        width=32,
        feedforward=64,
        context_tokens=context_tokens,
        num_text_ids=1024,
        max_observation_tokens=max_observation_tokens,
        patch_channels=32,
        patch_stride=4,
        positions=positions,  # pyright: ignore[reportArgumentType]
    )
    model = Gato(config).eval()
    # away from the symmetric start, where positions and biases would not matter
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def random_observations(task: Task, num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for key, spec in task.observations.items():
        if spec.kind is Kind.IMAGE:
            out[key] = rng.integers(0, 256, (num, *spec.shape)).astype(np.uint8)
        elif spec.kind is Kind.TEXT:
            words = ["", "go", "go left", "turn right now", "stop"]
            out[key] = text_to_bytes([str(rng.choice(words)) for _ in range(num)], spec.shape[0])
        elif spec.kind is Kind.DISCRETE:
            out[key] = rng.integers(0, spec.counts.reshape(spec.shape), (num, *spec.shape))
        else:
            out[key] = rng.normal(0, 2, (num, *spec.shape)).astype(np.float32)
    return out
