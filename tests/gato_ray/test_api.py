"""The Python API: a run from its start to its evaluation, and a policy that plays step by step."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gato_ray
from actors.players.player import Player
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.network.model import Gato
from learner.checkpoints.state import Progress, save_checkpoint

TASK = "mujoco/inverted-pendulum"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a run with a checkpoint, of random weights."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(replace(RUNS["debug"], name="tiny"))
    torch.manual_seed(0)
    model = Gato(run.config().model)
    save_checkpoint(
        run.path / "checkpoints",
        model,
        torch.optim.AdamW(model.parameters()),
        Progress(step=1, number=1),
    )
    run.set_state("stopped")
    return "tiny"


def test_a_policy_plays_what_its_evaluation_plays(trained: str) -> None:
    policy = gato_ray.load_policy(trained)
    assert isinstance(policy, Player)
    report = gato_ray.evaluate(trained, episodes=2)
    returns: list[float] = []
    for seed in (10_000, 10_001):  # the seeds of all evaluations
        with gato_ray.make_env("InvertedPendulum-v5") as env:
            step = env.reset(seed=seed)
            while not env.is_over:
                step = env.step(policy.act(step))
            returns.append(env.episode_return)
            assert env.is_terminated
            assert env.num_steps == env.episode_return + 1  # 1 for each step but the last
    assert tuple(returns) == report.tasks[TASK].returns
    assert gato_ray.find_run(trained).evaluate(episodes=2).tasks == report.tasks


def test_an_episode_is_begun_before_it_is_stepped(trained: str) -> None:
    env = gato_ray.make_env(TASK)
    with pytest.raises(ValueError, match=r"call reset\(seed=...\)"):
        env.step(np.zeros((1, 1), np.float32))
    first, again = env.reset(seed=3), env.reset(seed=3)
    np.testing.assert_array_equal(first.observations["state"], again.observations["state"])
    env.close()


def test_a_run_of_several_tasks_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(RUNS["demo"])
    model = Gato(run.config().model)
    save_checkpoint(
        run.path / "checkpoints",
        model,
        torch.optim.AdamW(model.parameters()),
        Progress(step=1, number=1),
    )
    with pytest.raises(ValueError, match="name one of them"):
        gato_ray.load_policy("demo")
    assert isinstance(gato_ray.load_policy("demo", "Hopper-v5"), Player)


def test_a_run_is_started_watched_scaled_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = gato_ray.start("debug", settings={"learner.num_updates": 20})
    run.scale(2)
    last = list(run.watch(every_s=0.5))[-1]
    assert (last.state, run.step, run.is_active) == ("finished", 20, False)
    assert run.config.actors.num_workers == 2
    assert run.evaluate(episodes=1).tasks[TASK].learner_step == 20


def test_importing_it_imports_nothing_heavy_and_its_names_are_all_there() -> None:
    code = """
import sys
import gato_ray
heavy = {"torch", "ray", "mujoco", "gymnasium", "rich", "cluster"} & sys.modules.keys()
assert not heavy, heavy
for name in gato_ray.__all__:
    assert getattr(gato_ray, name).__module__ == gato_ray.MODULES[name], name
assert sorted(gato_ray.MODULES) == sorted(gato_ray.__all__)
try:
    gato_ray.no_such
except AttributeError:
    print("well")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "well\n", done.stderr
