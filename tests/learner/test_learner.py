"""The learner: learns, stops and resumes bit for bit, publishes in order, ends before a bad
update."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gato.config import ModelConfig
from gato.network.model import Gato
from gato.packing import RowWriter
from gato.sequence import Batch, StepLayout, Window
from gato.statistics import Statistics
from gato.version import Version
from gato.weights import Weights
from learner.checkpoints.files import list_checkpoints
from learner.checkpoints.state import (
    Progress,
    load_checkpoint,
    read_model_config,
    save_checkpoint,
)
from learner.config import LearnerConfig
from learner.loop import Learner
from learner.publishing import Fenced
from learner.schedule import Schedule
from learner.staging import Staged, Stager
from learner.steps import Steps
from learner.update import Done, LossNotFinite
from tests.gato.models import ROBOT, random_observations

MODEL = ModelConfig(
    num_layers=1,
    num_heads=2,
    width=32,
    feedforward=64,
    context_tokens=32,
    num_text_ids=1024,
    max_observation_tokens=16,
    patch_channels=32,
    patch_stride=8,
    value_waves=8,
)
CONFIG = LearnerConfig(
    num_updates=12,
    max_rate=1e-2,
    publish_every=4,
    checkpoint_every=4,
    report_every=3,
    bf16=False,
    num_threads=1,
)


class ListSource:
    """Batch `index` always the same: the action is a function of the state, so there is something
    to learn."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        self.asked.append(index)
        rng = np.random.default_rng(index)
        steps = StepLayout(ROBOT, MODEL.layout)
        writer = RowWriter(num_rows=4, row_tokens=27)
        for row in range(4):
            observations = random_observations(ROBOT, 3, rng)
            actions = np.sign(observations["state"][:, :3]).astype(np.float32)
            windows = [
                Window(
                    observations={"state": observations["state"][i : i + 1]},
                    actions=actions[i : i + 1],
                )
                for i in range(3)
            ]
            writer.write_row(row, task_index=0, steps=steps, windows=windows)
        return writer.batch()


class ListSink:
    def __init__(self, *, refuse_after: int | None = None) -> None:
        self.published: list[Weights] = []
        self._refuse_after = refuse_after

    def publish(self, weights: Weights) -> bool:
        if self._refuse_after is not None and len(self.published) >= self._refuse_after:
            return False
        self.published.append(weights)
        return True


def make(
    folder: Path,
    *,
    config: LearnerConfig = CONFIG,
    sink: ListSink | None = None,
    source: ListSource | None = None,
    epoch: int = 1,
) -> Learner:
    return Learner(
        config,
        MODEL,
        source or ListSource(),
        sink or ListSink(),
        folder,
        epoch=epoch,
        task_names=[ROBOT.name],
        seed=5,
        device=torch.device("cpu"),
    )


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def test_the_loss_falls(tmp_path: Path) -> None:
    config = LearnerConfig(
        num_updates=60, max_rate=1e-2, report_every=10, bf16=False, num_threads=1
    )
    reports = [report for report in make(tmp_path, config=config).run() if report.loss.count]
    assert reports[-1].loss.value < 0.6 * reports[0].loss.value
    assert reports[-1].step == 60
    assert reports[0].tokens == 10 * 4 * 27
    assert reports[0].loss_by_task.keys() == {ROBOT.name}


def test_a_resumed_run_equals_the_unbroken_one_bit_for_bit_over_50_losses(tmp_path: Path) -> None:
    config = replace(CONFIG, num_updates=56, report_every=1)
    whole = make(tmp_path / "whole", config=config)
    losses = {report.step: report.loss for report in whole.run() if report.loss.count}
    broken = make(tmp_path / "broken", config=config)
    for report in broken.run():
        if report.step >= 7:
            break  # as if killed: the last checkpoint is of step 4
    resumed = make(tmp_path / "broken", config=config, epoch=2)
    assert resumed.progress.step == 4
    again = {report.step: report.loss for report in resumed.run() if report.loss.count}
    assert list(again) == list(range(5, 57))
    assert again == {step: losses[step] for step in again}
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[name]), name


def test_versions_rise_and_a_new_epoch_is_newer(tmp_path: Path) -> None:
    sink = ListSink()
    list(make(tmp_path, sink=sink).run())
    list(make(tmp_path, sink=sink, epoch=2).run())
    versions = [weights.version for weights in sink.published]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)
    assert versions[0] == Version(1, 1)
    assert versions[-1].epoch == 2
    assert [weights.learner_step for weights in sink.published[:4]] == [0, 4, 8, 12]


def test_a_learner_whose_epoch_is_over_ends(tmp_path: Path) -> None:
    with pytest.raises(Fenced, match="epoch 1"):
        list(make(tmp_path, sink=ListSink(refuse_after=2)).run())


@pytest.mark.parametrize(
    "poison", [lambda m: m.weight.data.fill_(float("nan")), lambda m: m.weight.data.fill_(1e30)]
)
def test_a_loss_that_is_not_finite_ends_the_run_before_the_update(
    tmp_path: Path, poison: Callable[[torch.nn.Linear], object]
) -> None:
    learner = make(tmp_path)
    batch = learner_batch()
    linear = learner.model.transformer.blocks[0].feedforward_out
    assert isinstance(linear, torch.nn.Linear)
    poison(linear)
    with torch.no_grad():
        learner.model.transformer.norm.weight.mul_(
            float("inf") if linear.weight.data.isfinite().all() else 1.0
        )
    before = weights_of(learner)
    with pytest.raises(LossNotFinite, match="no update was made"):
        learner._update(batch, 0)
    for name, value in weights_of(learner).items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())
    assert list(tmp_path.glob("failed-step-000000000/batch.safetensors"))


def learner_batch() -> Staged:
    return Stager(torch.device("cpu")).stage(ListSource().next_batch(0, timeout_s=0.0))


def test_weights_that_are_not_finite_are_never_published(tmp_path: Path) -> None:
    learner = make(tmp_path)
    with torch.no_grad():
        learner.model.transformer.norm.weight[0] = float("nan")
    learner.publish()
    with pytest.raises(ValueError, match="not finite"):
        learner.wait()


def test_a_checkpoint_of_another_shape_is_refused_in_one_line(tmp_path: Path) -> None:
    learner = make(tmp_path)
    learner.save()
    learner.wait()
    with pytest.raises(ValueError, match=r"another shape: width 32 \(wanted 64\)"):
        Learner(
            CONFIG,
            replace(MODEL, width=64),
            ListSource(),
            ListSink(),
            tmp_path,
            epoch=1,
            task_names=[ROBOT.name],
            seed=0,
            device=torch.device("cpu"),
        )


def test_a_checkpoint_keeps_the_statistics_that_observations_are_normalised_by(
    tmp_path: Path,
) -> None:
    statistics = {ROBOT.name: {"state": Statistics(mean=(1.0, 2.5), std=(1.0, 3.0))}}
    config = replace(MODEL, normalise=statistics)
    save_checkpoint(
        tmp_path,
        Gato(config),
        torch.optim.AdamW(Gato(config).parameters()),
        Progress(step=3, number=1),
    )
    (path,) = list_checkpoints(tmp_path)
    assert read_model_config(path) == config
    assert load_checkpoint(path, Gato(config)).step == 3
    with pytest.raises(
        ValueError,
        match="of another shape: other statistics for normalising observations; start",
    ):
        load_checkpoint(path, Gato(MODEL))


def test_a_checkpoint_from_before_there_were_statistics_still_loads(tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path,
        Gato(MODEL),
        torch.optim.AdamW(Gato(MODEL).parameters()),
        Progress(step=3, number=1),
    )
    (path,) = list_checkpoints(tmp_path)
    about = json.loads((path / "checkpoint.json").read_text())
    del about["model"]["normalise"]
    (path / "checkpoint.json").write_text(json.dumps(about))
    assert load_checkpoint(path, Gato(MODEL)).step == 3


def test_a_checkpoint_without_space_is_a_problem_and_not_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(tmp_path)
    learner.save()
    learner.wait()
    good = sorted(tmp_path.glob("step-*"))

    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("learner.checkpoints.files.save_file", no_space)
    reports = list(learner.run())
    assert reports[-1].step == 12
    assert "No space left" in learner.problems[0]
    assert sorted(tmp_path.glob("step-*")) == good
    assert not list(tmp_path.glob(".draft*"))


def test_checkpointing_activations_changes_no_update(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain")
    thrifty = make(tmp_path / "thrifty", config=replace(CONFIG, activation_checkpointing=True))
    assert thrifty.model.transformer.activation_checkpointing
    for learner in (plain, thrifty):
        learner._update(learner_batch(), 0)
    for name, value in weights_of(plain).items():
        torch.testing.assert_close(value, weights_of(thrifty)[name])


def test_the_schedule_is_scaled_to_the_run() -> None:
    schedule = Schedule(max_rate=1e-3, num_updates=1000)
    assert schedule.warmup == 15
    assert schedule.at(15) == pytest.approx(1e-3)
    rates = [schedule.at(step) for step in range(15, 1001)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-4)


def test_a_batch_with_ids_beyond_the_models_table_is_refused_before_it_is_on_the_device(
    tmp_path: Path,
) -> None:
    class OtherLayout(ListSource):
        def next_batch(self, index: int, timeout_s: float) -> Batch | None:
            batch = super().next_batch(index, timeout_s)
            assert batch is not None
            return replace(batch, ids=batch.ids + 2000)

    learner = make(tmp_path, source=OtherLayout())
    with pytest.raises(ValueError, match="the model's table has 2049; make replay and model"):
        list(learner.run())


@pytest.mark.parametrize(
    ("update_s", "steps"),
    [(0.1, [20, 25]), (6.0, [2, 4, 6, 8, 8]), (20.0, [1, 2, 3, 3])],
)
def test_a_slow_learner_reports_by_time(
    update_s: float, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock goes on while it makes an update, and at no other time."""
    now_s, make_update = 0.0, Steps.__call__

    def slow(self: Steps, *args: Any, **options: Any) -> Done:
        nonlocal now_s
        now_s += update_s
        return make_update(self, *args, **options)

    monkeypatch.setattr(Steps, "__call__", slow)
    for module in ("learner.loop", "learner.meter"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now_s))
    config = replace(CONFIG, num_updates=max(steps), report_every=20)
    assert [report.step for report in make(tmp_path, config=config).run()] == steps
