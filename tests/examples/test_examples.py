"""The scripts in examples/ do what they say."""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
import torch

from cluster.control import lifecycle
from cluster.control.run_control import summary_of
from cluster.runs.config import RunConfig
from cluster.runs.data.datasets import find
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.network.model import Gato
from learner.checkpoints.state import Progress, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs, data sets and Minari's own folder are the test's; the examples can be imported."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    gymnasium.registry.pop("Reach-v0", None)
    for name in ("reach", "train_own_environment"):
        sys.modules.pop(name, None)


def test_a_trained_policy_is_loaded_and_plays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RUNS["debug"]
    run = RunFolder.create(config)
    torch.manual_seed(0)
    model = Gato(config.model)
    optimiser = torch.optim.AdamW(model.parameters())
    save_checkpoint(run.path / "checkpoints", model, optimiser, Progress(step=1, number=1))
    monkeypatch.setattr("sys.argv", ["play_policy.py", "debug", "inverted-pendulum"])
    runpy.run_path(str(EXAMPLES / "play_policy.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("mujoco/inverted-pendulum, seed ") for line in lines)


def test_own_demonstrations_of_an_own_environment_become_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = importlib.import_module("train_own_environment")
    monkeypatch.setattr(script.record, "__defaults__", (12,))
    started: list[RunConfig] = []

    def keep(config: RunConfig, **_: object) -> None:
        started.append(config)
        raise ValueError("not here")

    monkeypatch.setattr(lifecycle, "start", keep)
    with pytest.raises(ValueError, match="not here"):  # the slow test goes on from here
        script.main(updates=7)
    assert list(find("reach-demonstrations").tasks) == ["reach:TASK"]
    (config,) = started
    assert (config.tasks, config.data) == (("reach:TASK",), ("reach-demonstrations",))
    assert config.learner.num_updates == 7


def test_replay_alone_needs_neither_ray_nor_torch() -> None:
    code = f"""
import runpy, sys
runpy.run_path({str(EXAMPLES / "replay_alone.py")!r}, run_name="__main__")
assert not {{"ray", "torch", "gymnasium"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "50 episodes are on the disk" in done.stdout
    assert "windows: states [4, 16, 3]" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_own_environment_is_learned() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "train_own_environment.py")],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{EXAMPLES}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    summary = summary_of("reach")
    (state,) = summary.tasks.values()
    assert summary.state == "finished"
    newest = state.newest
    assert newest is not None
    assert newest[1].returns.mean > 14.0  # a random policy returns 6.8, the teacher 18.8
