"""The model: what is a target, what is seen, how big it is, and that a snapshot plays the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gato.config import PRESETS
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import PLACE_ACTION, StepLayout, Window
from gato.weights import acting_config, load, snapshot
from tests.gato.models import GAME, ROBOT, random_observations, small_model


def batch_of(task, model: Gato, *, num_steps: int = 2) -> TensorBatch:
    rng = np.random.default_rng(0)
    steps = StepLayout(task, model.config.layout)
    writer = RowWriter(num_rows=2, row_tokens=40)
    for row in range(2):
        actions = np.zeros((num_steps, *task.action.shape), task.action.dtype)
        writer.write_row(
            row, task_index=row, steps=steps,
            windows=[Window(observations=random_observations(task, num_steps, rng),
            actions=actions)],
        )  # fmt: skip
    return TensorBatch.of(writer.batch())


@pytest.mark.parametrize(("name", "millions"), [("79m", 79), ("364m", 364), ("1.18b", 1180)])
def test_the_papers_sizes_are_met_within_two_per_cent(name: str, millions: int) -> None:
    with torch.device("meta"):
        assert Gato(PRESETS[name]).num_parameters() / 1e6 == pytest.approx(millions, rel=0.02)


def test_a_token_never_sees_what_comes_after_it() -> None:
    model = small_model(64)
    batch = batch_of(ROBOT, model)
    changed = batch.ids.clone()
    changed[:, 10] = model.config.layout.separator
    with torch.inference_mode():
        first = model(batch)
        ids = batch.ids
        ids.copy_(changed)
        second = model(batch)
    torch.testing.assert_close(first[:, :10], second[:, :10], atol=1e-6, rtol=0)
    assert (first[:, 10:18] - second[:, 10:18]).abs().max() > 1e-3


def test_the_gradient_reaches_every_parameter_of_the_game() -> None:
    model = small_model(64).train()
    next_token_loss(model, batch_of(GAME, model)).mean.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("own_rows", [True, False])
def test_a_snapshot_plays_the_same_in_a_plain_model(own_rows: bool) -> None:
    config = replace(small_model(64).config, value_waves=8, own_value_rows=own_rows)
    torch.manual_seed(1)
    trained = Gato(config).eval()
    played = Gato(acting_config(config)).eval()
    load(played, snapshot(trained))
    with torch.inference_mode():
        batch = batch_of(ROBOT, trained)
        difference = (trained(batch) - played(batch)).abs().max()
    assert difference < 0.1  # bfloat16
    with pytest.raises(ValueError, match="another model"):
        load(trained, snapshot(trained))


def test_actions_of_some_sequences_are_hidden_in_training_alone() -> None:
    torch.manual_seed(0)
    model = Gato(replace(small_model(64).config, action_dropout=0.5))
    batch = batch_of(ROBOT, model, num_steps=3)
    is_action = batch.place == PLACE_ACTION
    other = replace(batch, ids=torch.where(is_action, batch.ids + 5, batch.ids))

    def sees_actions(seed: int) -> list[bool]:
        """Whether each row's last state depends on its actions."""
        hidden = []
        for each in (batch, other):
            torch.manual_seed(seed)
            hidden.append(model(each)[:, batch.num_tokens // 2 - 1])
        return ((hidden[0] - hidden[1]).abs().amax(-1) > 1e-6).tolist()

    model.train()
    drawn = [seen for seed in range(20) for seen in sees_actions(seed)]
    assert 10 <= sum(drawn) <= 30
    model.eval()
    assert sees_actions(0) == [True, True]
    assert acting_config(model.config).action_dropout == 0.0


def test_the_actions_of_a_single_step_are_not_hidden() -> None:
    config = replace(small_model(64).config, action_dropout=0.99)
    torch.manual_seed(0)
    model = Gato(config).train()
    for num_steps, is_seen in ((1, True), (2, False)):
        batch = batch_of(ROBOT, model, num_steps=num_steps)
        last = batch.num_tokens // 2 - 1
        is_action = batch.place == PLACE_ACTION
        states = []
        for ids in (batch.ids, torch.where(is_action, batch.ids + 5, batch.ids)):
            torch.manual_seed(0)
            states.append(model(replace(batch, ids=ids))[:, last])
        assert ((states[0] - states[1]).abs().amax(-1) > 1e-6).tolist() == [is_seen, is_seen]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_of_hidden_actions_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="action_dropout"):
        replace(small_model(64).config, action_dropout=share)


def test_spreading_a_target_keeps_its_mean_and_costs_more() -> None:
    model = small_model(64)
    batch = batch_of(ROBOT, model)
    with torch.inference_mode():
        plain, spread = (
            next_token_loss(model, batch, spread_bins=bins).losses for bins in (0.0, 0.01)
        )
    torch.testing.assert_close(plain, spread, atol=1e-4, rtol=1e-4)


def test_a_step_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="raise context_tokens"):
        small_model(5).check(StepLayout(ROBOT, small_model(5).config.layout))


def test_rows_without_numbers_of_their_own_change_with_their_neighbours_alone() -> None:
    model = Gato(replace(small_model(64).config, value_waves=8, own_value_rows=False))
    layout = model.config.layout
    own = model.embedding.table.weight
    next_token_loss(model, batch_of(ROBOT, model)).mean.backward()
    assert own.grad is not None
    assert not own.grad[layout.first_bin : layout.separator].any()
    assert own.grad[layout.separator].any()
    rows = model.embedding.weight[layout.first_bin : layout.separator].detach()
    assert (rows[1:] - rows[:-1]).norm(dim=1).max() < 0.1 * rows.norm(dim=1).mean()
    with pytest.raises(ValueError, match="set value_waves"):
        Gato(replace(small_model(64).config, own_value_rows=False))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"patch_stride": 3}, "patch_stride 3"),
        ({"num_heads": 5}, "multiple of num_heads"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_before_a_model_is_built(
    setting: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(small_model(64).config, **setting)  # type: ignore[arg-type]
