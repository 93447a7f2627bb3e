"""What the training benchmark measures with: a yardstick of equal size, fair turns, and a share of
the peak."""

from dataclasses import replace

import pytest
import torch

from benchmarks.train import (
    BareGPT,
    hopper_batch,
    matmul_rate,
    passed_parameters,
    ratio,
    take_turns,
    utilisation,
)
from gato.config import ModelConfig
from gato.network.flops import Work, training_flops

CONFIG = ModelConfig(
    num_layers=2, num_heads=4, width=64, feedforward=256, context_tokens=1024, num_text_ids=1024
)
CPU = torch.device("cpu")


@pytest.mark.parametrize("positions", ["transformer-xl", "rotary"])
@pytest.mark.parametrize("width", [64, 512])
def test_the_yardstick_is_as_big_as_gato_without_patches(positions: str, width: int) -> None:
    config = replace(CONFIG, width=width, feedforward=4 * width, positions=positions)
    with torch.device("meta"):
        bare = BareGPT(config, passed_parameters(config))
    assert sum(p.numel() for p in bare.parameters()) == pytest.approx(
        passed_parameters(config), rel=0.01
    )


def test_the_yardstick_sees_no_later_token_and_has_its_loss_at_the_same_targets() -> None:
    bare, batch = BareGPT(CONFIG, passed_parameters(CONFIG)), hopper_batch(CONFIG, 1, CPU)
    assert len(batch.target_at) == 68 * 3
    hidden: list[torch.Tensor] = []
    bare.norm.register_forward_hook(
        lambda *args: (args[-1].retain_grad(), hidden.append(args[-1]))[1]
    )
    bare.loss(batch).backward()
    assert hidden[0].grad is not None
    assert (
        hidden[0].grad[0].abs().sum(-1).nonzero()[:, 0].tolist() == (batch.target_at - 1).tolist()
    )
    changed = batch.ids.clone()
    changed[0, 500:] = 7
    bare.loss(replace(batch, ids=changed))
    torch.testing.assert_close(hidden[0][0, :500], hidden[1][0, :500])


def test_turns_are_taken_in_order_and_the_first_does_not_count() -> None:
    took: list[str] = []
    ticks = iter(range(100))
    steps = {"a": lambda: took.append("a"), "b": lambda: took.append("b")}
    seconds = take_turns(steps, 3, lambda: float(next(ticks)))
    assert took == ["a", "b"] * 4
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert ratio([1.0, 2.0, 4.0], [2.0, 2.0, 4.0]) == 1.0


def test_utilisation_is_model_flops_by_time_and_peak() -> None:
    work = Work(rows=2, row_tokens=1024, targets=400)
    flops = training_flops(CONFIG, work)
    assert utilisation(CONFIG, work, seconds=2.0, peak=flops) == 0.5
    # Six for each parameter of a layer and token, in the second layer but for queries, keys and
    # values at the targets alone; 18 for each width and pair of tokens (scores, distances, values),
    # the head.
    asked = 64**2 + 64 * 256 + 128 * 64
    by_hand = (
        6 * (work.tokens * (2 * 3 * 64**2 + asked) + 400 * asked)
        + 18 * work.tokens * 2 * 1024 * 64
        + 6 * 400 * 64 * CONFIG.layout.vocab_size
    )
    assert flops == pytest.approx(by_hand, rel=0.01)
    assert matmul_rate(CPU, size=64, repeats=1) > 0
