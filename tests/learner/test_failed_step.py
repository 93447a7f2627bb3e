"""A step that is not finite is saved with all it needs, and repeated by one command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cluster.cli.debug_step import app
from learner.checkpoints.failed_step import repeat_step
from learner.update import LossNotFinite
from tests.gato.models import ROBOT
from tests.learner.test_learner import CONFIG, learner_batch, make

BAD = "transformer.norm.weight"


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """The folder of a failed step: two updates, then a weight that is not a number."""
    learner = make(tmp_path)
    batch = learner_batch()
    for step in range(2):
        learner._update(batch, step)
    with torch.no_grad():
        learner.model.get_parameter(BAD)[0] = math.nan
    with pytest.raises(LossNotFinite, match=r"loss nan at step 2; .* gato debug-step "):
        learner._update(batch, 2)
    return tmp_path / "failed-step-000000002"


def test_the_repeated_step_says_which_weights_losses_and_gradients_were_not_finite(
    failed: Path,
) -> None:
    found = repeat_step(failed, torch.device("cpu"))
    assert found.step == 2
    assert found.what == "loss nan"
    assert found.bad_weights == (BAD,)
    task = found.tasks[ROBOT.name]
    assert task.bad_losses == task.loss.count > 0
    assert BAD in task.bad_gradients
    assert math.isnan(found.gradient_norm)


def test_a_step_whose_gradient_alone_overflows_names_its_parameters(tmp_path: Path) -> None:
    learner = make(tmp_path)
    weight = learner.model.transformer.blocks[0].feedforward_out.weight
    with torch.no_grad():
        learner.model.transformer.norm.weight.mul_(1e-30)
        weight.mul_(1e38)
    with pytest.raises(LossNotFinite, match="at step 0"):
        learner._update(learner_batch(), 0)
    found = repeat_step(tmp_path / "failed-step-000000000", torch.device("cpu"))
    assert found.bad_weights == ()
    assert found.tasks[ROBOT.name].bad_gradients


def test_frozen_parts_have_no_gradient_in_the_repeated_step_either(tmp_path: Path) -> None:
    from learner.checkpoints.failed_step import save_failed_step

    learner = make(tmp_path, config=replace(CONFIG, frozen=("embedding",)))
    batch = learner_batch()
    path = save_failed_step(
        tmp_path, learner.model, learner.optimiser, batch.parts[0], learner.config,
        seed=5, step=0, bf16=False, what="none", task_names=[ROBOT.name],
    )  # fmt: skip
    done = learner._update(batch, 0)
    found = repeat_step(path, torch.device("cpu"))
    assert found.gradient_norm == pytest.approx(done.gradient_norm, rel=1e-4)


def test_a_step_is_repeated_with_the_same_numbers(tmp_path: Path) -> None:
    """With finite weights the repeated step has the loss that the learner had."""
    from learner.checkpoints.failed_step import save_failed_step

    learner, batch = make(tmp_path), learner_batch()
    learner._update(batch, 0)
    path = save_failed_step(
        tmp_path, learner.model, learner.optimiser, batch.parts[0], learner.config,
        seed=5, step=1, bf16=False, what="none", task_names=[ROBOT.name],
    )  # fmt: skip
    done = learner._update(batch, 1)
    found = repeat_step(path, torch.device("cpu"))
    loss = found.tasks[ROBOT.name].loss
    assert loss.count == done.loss_by_task[0].count
    assert loss.total == pytest.approx(done.loss_by_task[0].total, rel=1e-6)
    assert found.gradient_norm == pytest.approx(done.gradient_norm, rel=1e-6)


def test_of_a_batch_in_parts_the_part_that_failed_is_saved(tmp_path: Path) -> None:
    learner, batch = make(tmp_path), learner_batch().batch
    learner._stager.micro_batch_rows = 2
    ours = set(batch.ids[2:].flat) - set(batch.ids[:2].flat)
    with torch.no_grad():
        learner.model.embedding.table.weight[list(ours)] = math.nan
    with pytest.raises(LossNotFinite, match="loss nan at step 0"):
        learner._update(learner._stager.stage(batch), 0)
    found = repeat_step(tmp_path / "failed-step-000000000", torch.device("cpu"))
    targets = int(batch.is_target[2:].sum())
    assert found.tasks[ROBOT.name].loss.count == targets
    assert found.tasks[ROBOT.name].bad_losses > 0


def test_the_command_prints_what_was_not_finite(failed: Path) -> None:
    printed = CliRunner().invoke(app, [str(failed)])
    assert printed.exit_code == 0, printed.output
    assert "step 2: loss nan in the run" in printed.output
    assert f"weights not finite before the step: {BAD}" in printed.output
    plain = json.loads(CliRunner().invoke(app, [str(failed), "--json"]).output)
    assert plain["bad_weights"] == [BAD]


def test_a_checkpoint_is_no_failed_step(tmp_path: Path) -> None:
    learner = make(tmp_path)
    learner.save()
    learner.wait()
    with pytest.raises(ValueError, match="is a checkpoint, not a failed step"):
        repeat_step(tmp_path / "step-000000000")


def test_a_full_disk_does_not_hide_why_the_step_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    learner = make(tmp_path)
    with torch.no_grad():
        learner.model.get_parameter(BAD)[0] = math.nan
    monkeypatch.setattr("learner.checkpoints.files.save_file", no_space)
    with pytest.raises(LossNotFinite, match=r"loss nan at step 0; .* could not be saved: .*space"):
        learner._update(learner_batch(), 0)
