"""Playing a checkpoint without Ray: what it is prompted with, and what is said of a task that it
never saw."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from actors.tasks.catalog import TASKS
from cluster.cli import evaluate as evaluate_command
from cluster.control.evaluation.evaluate import StoredPrompts
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.episode import Episode
from gato.network.model import Gato
from learner.checkpoints.state import Progress, save_checkpoint
from replay.storage.store import EpisodeStore

PENDULUM = TASKS["mujoco/inverted-pendulum"]


def test_a_checkpoint_is_prompted_from_its_runs_own_replay(tmp_path: Path) -> None:
    prompts = StoredPrompts(tmp_path / "replay", RUNS["debug"])
    with pytest.raises(ValueError, match="set prompt_steps=0"):
        prompts.demonstration(PENDULUM.name, 3)
    states = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    store = EpisodeStore(tmp_path / "replay", capacity_bytes=1 << 26)
    store.add(
        Episode(
            key="a",
            task=PENDULUM.name,
            source="teacher:t",
            terminated=False,
            truncated=True,
            seed=0,
            observations={"state": states},
            actions=np.zeros((20, 1), np.float32),
            rewards=np.ones(20, np.float32),
        ),
        tokens=1,
    )
    store.close()
    shown = prompts.demonstration(PENDULUM.name, 3)
    assert shown is not None
    np.testing.assert_array_equal(shown.observations["state"], states[:3])
    with pytest.raises(ValueError, match="no demonstration of mujoco/hopper"):
        prompts.demonstration("mujoco/hopper", 3)


@pytest.mark.report("moojink/openvla-oft#107", "openvla/openvla#203")
def test_a_task_that_the_run_never_trained_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    config = replace(RUNS["debug"], name="tiny")
    run = RunFolder.create(config)
    torch.manual_seed(0)
    model = Gato(config.model)
    save_checkpoint(
        run.path / "checkpoints",
        model,
        torch.optim.AdamW(model.parameters()),
        Progress(step=1, number=1),
    )
    other = "mujoco/inverted-double-pendulum"

    def said(*tasks: str, as_json: bool) -> str:
        console = Console(file=io.StringIO(), width=200)
        monkeypatch.setattr(evaluate_command, "console", console)
        evaluate_command.evaluate("tiny", task=list(tasks), episodes=1, as_json=as_json)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert "warning" not in said(PENDULUM.name, as_json=False)
    expected = f"warning: tiny was never trained on {other}; it was trained on {PENDULUM.name}"
    assert expected in said(PENDULUM.name, other, as_json=False)
    capsys.readouterr()
    assert said(PENDULUM.name, other, as_json=True) == ""
    rows = json.loads(capsys.readouterr().out)["tasks"]
    assert {name: row["trained"] for name, row in rows.items()} == {
        PENDULUM.name: True,
        other: False,
    }
