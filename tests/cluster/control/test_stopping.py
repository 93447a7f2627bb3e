"""`gato stop` of a run on this machine, twice and without Redis; and a run that was killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.journal.redis_server import RedisServer
from tests.cluster.control.test_run import Shell, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    yield shell
    for process in shell.processes("ray::") + shell.processes("/"):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def state(shell: Shell) -> dict[str, object]:
    return json.loads((shell.folder / "runs/debug/run.json").read_text())


def test_a_second_stop_waits_for_the_first_and_a_killed_run_is_called_dead(shell: Shell) -> None:
    with RedisServer.start(shell.folder / "redis") as server:
        shell("start", "debug", "--updates", "1000000", "--redis", server.url, "--detach")
        until(lambda: shell.watch()["learner"]["step"] > 10)
        server.kill()
        learner = until(lambda: shell.processes("ray::LearnerActor"))[0]
        os.kill(learner, signal.SIGSTOP)  # the stop takes as long as this
        first = shell.background("stop")
        until(lambda: shell.watch()["state"] == "stopping")
        second = shell.background("stop")
        assert second.stdout is not None
        assert "is being stopped already" in second.stdout.readline()
        supervisor = state(shell)["supervisor_pid"]
        assert isinstance(supervisor, int)
        os.kill(supervisor, signal.SIGTERM)  # of an impatient user
        os.kill(supervisor, signal.SIGTERM)
        os.kill(learner, signal.SIGCONT)
        assert (first.wait(120.0), second.wait(120.0)) == (0, 0)
    assert state(shell)["state"] == "stopped"

    shell("resume", "debug", "--redis", "own", "--detach")
    supervisor = state(shell)["supervisor_pid"]
    assert isinstance(supervisor, int)
    os.kill(supervisor, signal.SIGKILL)
    status = until(lambda: (said := shell("status")) and "dead" in said and said)
    assert "gato resume debug goes on from its last checkpoint" in status
    assert "silent" not in status
    assert "debug is dead: gato resume debug" in shell("runs")
    assert shell.watch()["state"] == "dead"
