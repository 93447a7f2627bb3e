"""`gato check`: what an environment does not keep is said, and the exit status says whether that is an error."""

import pytest

from actors.tasks import TASKS
from tests.actors.faulty import faulty
from tests.cluster.test_cli import gato


def test_a_task_that_keeps_it_ends_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gato(monkeypatch, capsys, "check", "inverted-pendulum")
    assert (status, err) == (0, "")
    assert out == "mujoco/inverted-pendulum: 10 checks, 0 errors, 0 warnings\n"


def test_what_is_found_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    task = faulty("pay nan")
    monkeypatch.setattr("actors.user_tasks.TASKS", {**TASKS, task.name: task})
    status, out, err = gato(monkeypatch, capsys, "check", "faulty/pay-nan")
    assert (status, err) == (1, "")
    assert "error: a seed begins the same episode: faulty/pay-nan broke at step 2: ValueError('it paid nan')" in out


def test_an_unknown_task_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = gato(monkeypatch, capsys, "check", "atari/pung")
    assert status == 2
    assert "did you mean 'atari/pong'" in err
