"""`gato start --plan`: settings, time and memory by task, and nothing started."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from actors.tasks.catalog import TASKS
from cluster.cli.main import main
from cluster.control.build_run import make_config
from cluster.control.plan import made_up_batch, make_plan, print_plan
from cluster.runs.presets import RUNS
from gato.config import PRESETS
from gato.network.model import Gato, TensorBatch, next_token_loss
from gato.sequence import StepLayout
from learner.preparation.memory import MemoryPlan
from tests.cluster.command import gato as command


def test_the_plan_says_what_is_read_and_how_long_it_takes() -> None:
    plan = make_plan(RUNS["debug"])
    assert plan.read_tokens == 40 * 16 * 48
    assert plan.tokens_per_s > 0
    assert plan.computing in ("fp32, 1 thread", "bf16, 1 thread")  # whichever is faster here
    assert plan.learner_s == pytest.approx(plan.read_tokens / plan.tokens_per_s)
    assert plan.teacher_s == 2_000 / 4_000
    assert isinstance(plan.memory, MemoryPlan)
    assert plan.parameters == Gato(RUNS["debug"].model).num_parameters()
    (task,) = plan.tasks
    assert task.share == 1.0
    assert task.steps_per_update == 16 * (48 // 6)


def test_a_model_that_is_too_large_to_try_is_planned_all_the_same() -> None:
    config = replace(RUNS["debug"], model=PRESETS["79m"])
    mix = replace(config.replay.mix, rows=512, row_tokens=1024)
    plan = make_plan(replace(config, replay=replace(config.replay, mix=mix)))
    assert plan.parameters > 79_000_000
    assert plan.tokens_per_s > 0
    assert plan.computing in ("fp32, 1 thread", "bf16, 1 thread")  # whichever is faster here


def test_a_made_up_batch_is_as_the_learner_reads_them() -> None:
    model = PRESETS["tiny"]
    names = ("mujoco/hopper", "atari/freeway")
    steps = {name: StepLayout(TASKS[name], model.layout) for name in names}
    weights = {"mujoco/hopper": 3.0, "atari/freeway": 1.0}
    batch = made_up_batch(steps, weights, rows=8, row_tokens=48)
    assert np.bincount(batch.task_index).tolist() == [6, 2]
    assert len(batch.patches) == 2 * 2 * 20
    assert int(batch.is_target.sum()) == 6 * 3 * 3 + 2 * 2 * 1
    loss = next_token_loss(Gato(model), TensorBatch.of(batch, torch.device("cpu"))).mean
    assert torch.isfinite(loss)


def test_a_plan_names_every_task_with_its_settings() -> None:
    out = io.StringIO()
    print_plan(make_plan(RUNS["debug"]), Console(file=out, width=200))
    text = out.getvalue()
    assert "mujoco/inverted-pendulum" in text
    assert "40 updates of 16 rows of 48 tokens" in text
    assert "memory: the learner's 16 rows at once need" in text


def test_the_command_prints_the_plan_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("sys.argv", ["gato", "start", "debug", "--plan", "--updates", "7"])
    with suppress(SystemExit):
        main()
    said = capsys.readouterr().out
    assert "7 updates" in said
    assert "nothing was started" in said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_teachers_demonstrate_what_no_data_set_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books.txt").write_text("the quick brown fox " * 2_000)
    status, _, err = command(monkeypatch, capsys, "import", "books.txt")
    assert status == 0, err
    config = make_config(
        "debug",
        name=None,
        tasks=["text/books", "mujoco/inverted-pendulum"],
        data=["books"],
        settings=["model.context_tokens=260", "replay.mix.row_tokens=260"],
    )
    plan = make_plan(config)
    assert {of.needs.name: of.is_taught for of in plan.tasks} == {
        "text/books": False, "mujoco/inverted-pendulum": True
    }  # fmt: skip
    assert plan.teacher_s == 2_000 / 4_000
