"""Acting with linear layers in 8 bits."""

import numpy as np
import pytest
import torch
from torch import nn

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.network.quantise import FEW_ROWS, KINDS, Int8Kind, Int8Linear, quantised, to_int8
from gato.task import Task
from gato.weights import load, snapshot
from tests.gato.models import GAME, ROBOT, random_observations, small_model


def test_each_row_is_rounded_on_a_scale_of_its_own() -> None:
    x = torch.tensor([[1.0, -0.5, 0.004], [-254.0, 2.0, 0.9], [0.0, 0.0, 0.0]])
    whole, scale = to_int8(x)
    assert whole.tolist() == [[127, -64, 1], [-127, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(scale[:2, 0], torch.tensor([1 / 127, 2.0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, 40])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [64, 36, 200])  # not all of them multiples of 16
@torch.inference_mode()
def test_a_layer_in_8_bits_is_near_the_one_it_was(
    kind: Int8Kind, rows: int, bias: bool, inputs: int
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(inputs, 48, bias=bias)
    with torch.no_grad():
        # outputs of different sizes: one scale would not do
        linear.weight *= torch.logspace(-2, 2, 48)[:, None]
    x = torch.randn(rows, 3, inputs)
    exact, near = linear(x), Int8Linear(linear, kind)(x)
    assert near.shape == exact.shape
    # of outputs that have this deviation
    error = (near - exact).abs().amax((0, 1)) / linear.weight.norm(dim=1)
    assert 1e-4 < error.max() < 0.06


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [ROBOT, GAME], ids=["robot", "game"])
def test_greedy_actions_in_8_bits_are_mostly_the_same(kind: Int8Kind, task: Task) -> None:
    model = small_model(64)
    exact = Policy(model, task, ActingConfig(window_steps=1))
    near = Policy(model, task, ActingConfig(window_steps=1, int8=kind))
    observations = random_observations(task, 200, np.random.default_rng(0))
    wanted, got = exact.act(exact.start(200), observations), near.act(near.start(200), observations)
    if task is GAME:
        assert np.mean(wanted == got) > 0.9
    else:
        assert 0.0 < np.abs(wanted - got).mean() < 4 / 1024  # a bin


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_shares_all_but_its_linear_layers(kind: Int8Kind) -> None:
    model = small_model(64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = quantised(model, kind)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert copy.embedding.table.weight is model.embedding.table.weight
    linear = [name for name, module in copy.named_modules() if isinstance(module, nn.Linear)]
    assert all(name.endswith("attention.distance") for name in linear)
    # layers, and patches
    assert sum(isinstance(module, Int8Linear) for module in copy.modules()) == 3 * 4 + 1
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 0


def test_weights_loaded_later_are_quantised_by_the_next_policy() -> None:
    model, other = small_model(64), small_model(64)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    load(model, snapshot(other))
    old = Policy(small_model(64), ROBOT, ActingConfig(int8="dynamic"))
    new = Policy(model, ROBOT, ActingConfig(int8="dynamic"))
    observations = random_observations(ROBOT, 4, np.random.default_rng(0))
    assert not np.array_equal(
        new.act(new.start(4), observations), old.act(old.start(4), observations)
    )


def test_int8_is_for_the_cpu() -> None:
    with pytest.raises(
        ValueError, match="int8 is for acting on a CPU, the model is on meta; leave int8 out"
    ):
        quantised(small_model(64).to("meta"), "weights")
