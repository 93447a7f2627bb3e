"""`gato check`: what an environment does not keep is said, and the exit status says whether that is
an error."""

import os
import sys
from pathlib import Path

import pytest

from actors.tasks.catalog import TASKS
from tests.actors.faulty import faulty
from tests.cluster.cli.test_main import gato


def test_a_task_that_keeps_it_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = gato(monkeypatch, capsys, "check", "inverted-pendulum")
    assert (status, err) == (0, "")
    assert out == "mujoco/inverted-pendulum: 11 checks, 0 errors, 0 warnings\n"


def test_what_is_found_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = faulty("pay nan")
    monkeypatch.setattr("actors.tasks.resolve.TASKS", {**TASKS, task.name: task})
    status, out, err = gato(monkeypatch, capsys, "check", "faulty/pay-nan")
    assert (status, err) == (1, "")
    assert (
        "error: a seed begins the same episode: faulty/pay-nan broke at step 2: the environment"
        " returned reward nan (and" in out
    )


ODD = """
import os, sys, time
import gymnasium, numpy as np
from gymnasium.spaces import Box, Discrete

class Odd(gymnasium.Env):
    action_space = Discrete(3)
    def __init__(self, how):
        self.how, self.count = how, 0
        self.observation_space = Box(-1e5, 1e5, (3,)) if how == "wide" else Box(-1, 1, (3,))
        if how == "exits as it is made":
            os._exit(4)
    def shown(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.shown(), {}
    def step(self, action):
        self.count += 1
        if self.how == "exits":
            sys.exit(3)
        if self.how == "prints":
            print("hello")
        paid = {"pays an array": np.array([1.5]), "pays nothing": None}.get(self.how, 1.0)
        return self.shown(), paid, self.count > 9, False, {}

for how in ("wide", "exits", "prints", "pays an array", "pays nothing", "exits as it is made"):
    name = how.replace(" ", "-") + "-v0"
    gymnasium.register(name, entry_point=Odd, max_episode_steps=50, kwargs={"how": how})
"""


@pytest.mark.report(
    "ray-project/ray#4039",
    "DeckardAgent/deckard#1",
    "neumovelab/myoassist#35",
    "RobertTLange/gymnax#43",
)
@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        (
            "wide",
            0,
            (
                "warning: its values have tokens of their own: state[0..2]: the agent can hardly"
                " tell the values apart: 64 or more"
            ),
        ),
        ("exits", 1, "odd_pkg:exits-v0 broke at step 0: SystemExit(3), which ends Python"),
        ("prints", 0, "warning: it prints nothing: it printed"),
        (
            "pays-an-array",
            1,
            (
                "broke at step 0: the reward is array([1.5]) of shape (1,), expected a single"
                " number (float); return float(reward[0]) from step (and 9 more checks end at the"
                " same)"
            ),
        ),
        ("pays-nothing", 1, "the reward is None, expected a single number (float)"),
        (
            "exits-as-it-is-made",
            2,
            "making or closing odd_pkg:exits-as-it-is-made-v0 ends Python (exit status 4)",
        ),
    ],
)
def test_a_users_environment_is_checked_in_a_process_and_each_problem_is_said_once(
    name: str,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "odd_pkg.py").write_text(ODD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    got, out, err = gato(monkeypatch, capsys, "check", f"odd_pkg:{name}-v0")
    assert got == status
    assert said in out + err
    assert "hello\n" not in out
    assert len((out + err).strip().splitlines()) == (1 if status == 2 else 2)


def test_an_unknown_task_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = gato(monkeypatch, capsys, "check", "atari/pung")
    assert status == 2
    assert "did you mean 'atari/pong'" in err
