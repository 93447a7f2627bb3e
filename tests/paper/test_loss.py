"""Section 2.3, equations 1 and 2: what is predicted, from where, and what is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gato.array_spec import ArraySpec, Kind
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.sequence import StepLayout
from gato.task import Task
from tests.paper.tasks import STATE, TORQUES, batch_of, image, model_of, task_of, values, window_of

BOTH = task_of({"screen": image(16, 32), "state": values(3)}, TORQUES)
GAME = task_of(
    {"screen": image(16, 32), "lives": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=5)}
)


def with_gradients(model: Gato, batch: TensorBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the gradient [B, L] (its size) that reaches each position's hidden state, so
    also its logits: none reaches those that are not asked for."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(transformer: object, args: object, kwargs: dict[str, Any], out: torch.Tensor) -> None:
        out.retain_grad()
        kept.append((out, kwargs["asked_n"]))

    hook = model.transformer.register_forward_hook(keep, with_kwargs=True)
    loss = next_token_loss(model, batch).mean
    loss.backward()
    hook.remove()
    [(out, asked_n)] = kept
    assert out.grad is not None
    gradient = torch.zeros(batch.ids.numel()).index_copy(0, asked_n, out.grad.abs().sum(-1))
    return loss, gradient.view(batch.ids.shape)


@pytest.mark.parametrize("task", [STATE, BOTH, GAME], ids=["robot", "both", "game"])
def test_only_logged_actions_are_targets_and_observations_get_no_gradient(task: Task) -> None:
    """Equation 2: the mask is 1 for text and logged actions alone; logits that would predict
    anything else get none."""
    model = model_of()
    steps = StepLayout(task, model.config.layout)
    batch = batch_of(task, model, [window_of(task, 3), window_of(task, 3, seed=1)])
    is_action = np.zeros(steps.tokens_per_step, bool)
    is_action[-steps.num_action_tokens :] = True
    assert torch.equal(batch.is_target, torch.from_numpy(np.tile(is_action, (2, 3))))
    _, gradient = with_gradients(model, batch)
    before_action = torch.zeros_like(batch.is_target)
    before_action[:, :-1] = batch.is_target[:, 1:]
    assert torch.equal(gradient > 0, before_action)


def test_the_separator_is_not_a_target() -> None:
    """Section 2.3 does not say; ours is no target: it is always the same, and the position before
    it gets no gradient."""
    model = model_of()
    batch = batch_of(STATE, model, [window_of(STATE, 3)])
    separators = (batch.ids == model.config.layout.separator).nonzero()
    assert len(separators) == 3
    _, gradient = with_gradients(model, batch)
    for row, column in separators.tolist():
        assert not batch.is_target[row, column]
        assert gradient[row, column - 1] == 0


@pytest.mark.parametrize("task", [STATE, GAME], ids=["robot", "game"])
def test_a_token_is_predicted_from_the_position_before_it(task: Task) -> None:
    """Equation 1: p(s_l | s_1 ... s_l-1), a mean over targets of cross-entropy against all ids."""
    model = model_of()
    batch = batch_of(task, model, [window_of(task, 2)])
    with torch.no_grad():
        logits = model.logits(model(batch))
        rows, columns = batch.is_target.nonzero(as_tuple=True)
        expected = F.cross_entropy(logits[rows, columns - 1], batch.ids[rows, columns])
        assert logits.shape[-1] == 33_025
        torch.testing.assert_close(
            next_token_loss(model, batch).mean, expected, atol=1e-5, rtol=1e-5
        )


def test_the_loss_of_an_action_does_not_depend_on_the_action_itself_as_an_input() -> None:
    """Equation 1: an action's own token is not among what it is predicted from, nor is anything
    after it."""
    model = model_of()
    window = window_of(STATE, 2)
    batch = batch_of(STATE, model, [window])
    columns = batch.is_target[0].nonzero()[:, 0]
    with torch.no_grad():
        before = model.logits(model(batch))[0, columns - 1]
        for index, column in enumerate(columns.tolist()):
            changed = batch.ids.clone()
            changed[0, column:] = 5
            after = model.logits(model(replace(batch, ids=changed)))[0, columns - 1]
            torch.testing.assert_close(
                after[: index + 1], before[: index + 1], atol=1e-5, rtol=1e-5
            )
            assert (
                index + 1 == len(columns)
                or (after[index + 1] - before[index + 1]).abs().max() > 1e-3
            )


def test_images_are_inputs_only() -> None:
    """Section 2.3: patches are never predicted, so the id that fills their positions means
    nothing."""
    model = model_of()
    batch = batch_of(GAME, model, [window_of(GAME, 2)])
    changed = batch.ids.clone().flatten()
    changed[batch.patch_at] = 17
    with torch.no_grad():
        first = next_token_loss(model, batch).losses
        second = next_token_loss(model, replace(batch, ids=changed.view_as(batch.ids))).losses
    torch.testing.assert_close(first, second)


def test_each_row_of_the_loss_knows_its_task() -> None:
    """Section 2.3: one loss over sequences of all tasks; each target knows the row, and so the
    task, that it is of."""
    model = model_of()
    loss = next_token_loss(
        model, batch_of(STATE, model, [window_of(STATE, 2), window_of(STATE, 1)])
    )
    assert loss.rows.bincount().tolist() == [6, 3]
