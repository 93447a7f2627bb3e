"""A run that is killed while somebody watches it is shown as dead, at once."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.cli.watch import show
from cluster.journal.records import Event
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from tests.cluster.journals import learner_report, written
from tests.cluster.wait import until

SUPERVISOR = """
import sys, time
from pathlib import Path
from cluster.runs.folder import RunFolder
RunFolder(Path(sys.argv[1]), "demo").set_state("running")
print("running", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_run_that_is_killed_is_shown_dead_by_a_watch_that_goes_on(
    is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    run = RunFolder.create(replace(RUNS["debug"], name="demo"))
    written(run, [Event(kind="started", text="1 task"), learner_report(10)])
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"running\n"
        file = io.StringIO()
        console = Console(file=file, width=80, force_terminal=is_terminal, color_system=None)
        watching = threading.Thread(
            target=lambda: show("demo", once=False, redis_url=None, console=console)
        )
        watching.start()
        until(lambda: "10/1,000" in file.getvalue())
        assert watching.is_alive()
        supervisor.kill()
        supervisor.wait()
        watching.join(10.0)
    assert not watching.is_alive()
    last = file.getvalue()[file.getvalue().rindex("╭") :]
    assert "dead" in last
    assert "gato resume demo" in " ".join(last.split())
