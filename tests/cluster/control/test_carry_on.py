"""What `gato start --or-resume` does with a run in each of its states."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.control.carry_on import Wanted, next_step, start_or_resume
from cluster.journal.journal import START
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder, ShownState
from cluster.runs.folder_name import RunExists
from cluster.runs.home import Home, write_home
from cluster.runs.presets import RUNS
from tests.docs.shell import BUSY, STARTS

DEBUG: RunConfig = RUNS["debug"]


def wanted(*, address: str | None = None, home: str | None = None) -> Wanted:
    return Wanted(
        config=DEBUG,
        address=address,
        home=home,
        redis_url=None,
        redis_port=None,
        updates=None,
        detach=False,
        attach=False,
    )


@pytest.mark.parametrize(
    ("state", "said", "expected"),
    [
        (None, None, "begin"),
        ("starting", None, "go on"),
        ("running", None, "go on"),
        ("dead", None, "go on"),
        ("dead", "running", "go on"),
        ("running", "", "go on"),
        ("stopped", None, "go on"),
        ("failed", None, "go on"),
        ("failed", "running", "go on"),
        ("stopped", "stopped", "stopped"),
        ("stopped", "", "stopped"),
        ("failed", "failed", "failed"),
        ("finished", None, "show"),
        ("finished", "finished", "show"),
    ],
)
def test_a_run_that_is_there_goes_on_unless_it_has_finished_or_ended_before_our_eyes(
    state: ShownState | None, said: str | None, expected: str
) -> None:
    assert next_step(state, said=said, has_done=100, updates=None) == expected
    assert next_step(state, said=said, has_done=100, updates=100) == expected


def test_a_run_that_has_finished_goes_on_to_a_higher_number_of_updates() -> None:
    assert next_step("finished", said=None, has_done=100, updates=101) == "go on"


def test_a_stop_because_the_home_left_is_no_users_stop() -> None:
    def step(reason: str) -> str:
        return next_step("stopped", said="stopped", has_done=9, updates=None, reason=reason)

    assert (step(""), step("its home m1 left the cluster")) == ("stopped", "go on")


def test_a_home_without_a_cluster_and_a_run_of_a_cluster_without_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match="give the cluster, too: --address"):
        start_or_resume(wanted(home="there"), console)
    folder = RunFolder.create(DEBUG)
    home = Home(
        address="10.0.0.1:6379", run_id="1", node="there", host="10.0.0.2",
        path=str(folder.path), is_here=True,
    )  # fmt: skip
    write_home(folder.path, home)
    with pytest.raises(ValueError, match=r"--address 10\.0\.0\.1:6379"):
        start_or_resume(wanted(), console)


def test_a_name_that_must_be_exact_is_never_given_to_a_second_run(tmp_path: Path) -> None:
    RunFolder.create(DEBUG, root=tmp_path)
    with pytest.raises(RunExists, match=r"there is a run debug in .*choose another --name"):
        RunFolder.create(DEBUG, root=tmp_path, is_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["debug"]
    assert RunFolder.create(DEBUG, root=tmp_path).name == "debug-2"


def test_of_two_starts_at_once_the_second_follows_the_run_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    asked: list[bool] = []

    def start(config: RunConfig, *, is_exact: bool = False, **_: object) -> None:
        asked.append(is_exact)
        RunFolder.create(config)  # of the other process, between our look and our start
        RunFolder.create(config, is_exact=is_exact)

    monkeypatch.setattr("cluster.control.lifecycle.start", start)
    start_or_resume(replace(wanted(), detach=True), Console(file=io.StringIO()))
    assert asked == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["debug"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_line_starts_a_run_shows_it_and_goes_on_to_more_updates(
    tmp_path: Path,
) -> None:
    words = [sys.executable, "-P", "-m", "cluster.cli.main", "start", "debug", "--or-resume"]

    def start(updates: int) -> str:
        """What is shown last."""
        for _ in range(STARTS):
            done = subprocess.run(
                [*words, "--updates", str(updates)],
                env=os.environ | {"GATO_RUNS": str(tmp_path), "COLUMNS": "120"},
                capture_output=True,
                text=True,
                check=False,
            )
            if BUSY not in done.stderr:  # else the same line again: it is made for that
                break
        assert done.returncode == 0, done.stderr
        return done.stdout.rpartition("╭")[2]

    def resumed() -> int:
        entries = JournalFile(tmp_path / "debug" / "journal").read(START)
        events = [entry.record for entry in entries if isinstance(entry.record, Event)]
        return sum(event.kind == "resumed" for event in events)

    assert "run debug finished" in start(20)
    before = resumed()
    assert "finished" in start(20)
    assert resumed() == before
    assert "finished" in start(30)
    assert resumed() > before
    assert [path.name for path in tmp_path.iterdir()] == ["debug"]
