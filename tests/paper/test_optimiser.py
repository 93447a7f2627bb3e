"""Appendix D: the optimiser and the learning rate."""

import math
from pathlib import Path

import pytest
import torch

from gato.config import ModelConfig
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.optimiser import parameter_groups
from learner.schedule import Schedule
from tests.learner.test_learner import ListSink, ListSource
from tests.paper.tasks import SMALL, model_of

PAPER = LearnerConfig(num_updates=1_000_000)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-7),
        (7_500, (1e-7 + 1e-4) / 2),
        (15_000, 1e-4),
        (500_000, 1e-5 + 9e-5 * 0.5 * (1 + math.cos(math.pi * 485_000 / 985_000))),
        (507_500, 5.5e-5),
        (1_000_000, 1e-5),
        (2_000_000, 1e-5),
    ],
)
def test_the_rate_warms_up_over_15000_steps_and_decays_to_a_tenth_at_a_million(
    step: int, rate: float
) -> None:
    """Appendix D: linear from 1e-7 over 15,000 steps, then a cosine that decays tenfold by step
    1,000,000."""
    assert PAPER.schedule.at(step) == pytest.approx(rate, rel=1e-9)
    assert Schedule(max_rate=1e-4, num_updates=1_000_000).at(step) == pytest.approx(rate, rel=1e-9)


def test_the_optimiser_is_adamw_with_the_papers_constants(tmp_path: Path) -> None:
    """Appendix D: AdamW, beta 0.9 and 0.95, epsilon 1e-8, weight decay 0.1; as the learner makes
    it."""
    model = ModelConfig(
        num_layers=1, num_heads=2, width=32, feedforward=64, context_tokens=32,
        num_text_ids=1024, max_observation_tokens=16, patch_channels=32, patch_stride=8,
    )  # fmt: skip
    learner = Learner(
        PAPER,
        model,
        ListSource(),
        ListSink(),
        tmp_path,
        epoch=1,
        task_names=["t"],
        seed=0,
        device=torch.device("cpu"),
    )
    assert isinstance(learner.optimiser, torch.optim.AdamW)
    for group in learner.optimiser.param_groups:
        assert (group["betas"], group["eps"]) == ((0.9, 0.95), 1e-8)
    assert [group["weight_decay"] for group in learner.optimiser.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize("value_waves", [0, 8])
def test_norms_biases_and_embeddings_do_not_decay(value_waves: int) -> None:
    """The paper does not say which weights decay; ours are the matrices and kernels alone (GPT-3's
    custom).

    Without decay: every norm, every bias (those of the attention's scores too), and the tables of
    ids, of local positions and of patch rows and columns.
    """
    model = model_of(value_waves=value_waves)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, rest = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.1)
    )  # type: ignore[attr-defined]
    block = {
        f"transformer.blocks.{layer}.{part}.weight"
        for layer in range(SMALL.num_layers)
        for part in (
            "attention.qkv",
            "attention.distance",
            "attention.out",
            "gate_and_value",
            "feedforward_out",
        )
    }
    patch = {f"embedding.patch.{part}.weight" for part in ("stem", "conv1", "conv2", "project")}
    waves = {"embedding.wave_mix"} if value_waves else set[str]()
    assert decayed == block | patch | waves
    assert decayed | rest == set(names.values())
    assert {"embedding.table.weight", "embedding.place.weight"} <= rest
    assert {"embedding.patch.row.weight", "embedding.patch.column.weight"} <= rest


def test_the_schedule_of_a_shorter_run_has_the_same_form() -> None:
    """Appendix D's 15,000 of 1,000,000 steps are 1.5 %: a run of 2,000 updates warms up over 30."""
    short, full = (
        Schedule(max_rate=1e-4, num_updates=2_000),
        Schedule(max_rate=1e-4, num_updates=1_000_000),
    )
    for step in range(0, 2_001, 10):
        assert short.at(step) == pytest.approx(full.at(step * 500), rel=1e-9)
