"""Whole sweeps with Ray Tune, as a user types them; killed ones go on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.runs.config_file import read_config
from cluster.sweep.folder import SweepFolder
from cluster.sweep.journal import Ended, Exploited, Planned, Report, Stopped
from cluster.sweep.state import trials_in
from tests.cluster.command import gato
from tests.cluster.sweep.sweeps import record

pytestmark = pytest.mark.timeout(600)
STARTS = 3
BUSY = "a local Ray did not start"
"""Ray gives up after half a minute on a busy machine; the next start may do."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)
    record()
    return tmp_path


def test_a_sweep_of_three_trials_from_its_start_to_its_files(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = gato(
        monkeypatch, capsys, "sweep", "start", "debug", "--data", "poles", "--scheduler", "none",
        "--over", "learner.max_rate=log:1e-4:3e-3", "--over", "replay.mix.rows=choice:8,16",
        "--trials", "3", "--updates", "4", "--evaluate-every", "2", "--episodes", "1",
        "--parallel", "1",
    )  # fmt: skip
    for _ in range(STARTS):
        if BUSY not in err:
            break
        status, out, err = gato(monkeypatch, capsys, "sweep", "resume", "--parallel", "1")
    assert status == 0, err
    folder = SweepFolder(place / "runs" / "sweeps" / "debug")
    trials = trials_in(folder.journal.read())
    assert [t.word for t in trials.values()] == ["finished"] * 3
    assert [[r.step for r in t.reports] for t in trials.values()] == [[2, 4]] * 3
    assert "3 of 3 trials to go" in out
    assert "max_rate" in out
    assert not (folder.path / "tune").exists()
    shown = json.loads(gato(monkeypatch, capsys, "sweep", "show", "--json")[1])
    best = trials[shown["best"]]
    config = read_config(folder.path / "best.yaml")
    assert config.learner.max_rate == best.settings["learner.max_rate"]
    assert config.replay.mix.rows == best.settings["replay.mix.rows"]
    assert (folder.path / "picture.svg").read_text().startswith("<svg")
    status, out, err = gato(monkeypatch, capsys, "sweep", "show", "debug")
    assert status == 0, err
    assert "is over: 3 of 3 trials" in out
    assert "gato start debug --data poles --set learner.num_updates=4" in out
    status, _, err = gato(monkeypatch, capsys, "sweep", "resume", "debug")
    assert status == 2
    assert "each trial has ended" in err
    # a trial's folder is a run's: its checkpoint is played as any other
    checkpoint = folder.trial_path(best.number, 0) / "checkpoints" / "step-000000004"
    status, out, err = gato(monkeypatch, capsys, "evaluate", str(checkpoint), "--episodes", "1")
    assert status == 0, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep", "show"), "there are no sweeps"),
        (("sweep", "resume", "mine"), "there are no sweeps"),
        (("sweep", "start", "debug"), "give --data NAME"),
        (("sweep", "start", "debug", "--data", "poles"), "nothing is varied"),
        (
            ("sweep", "start", "debug", "--data", "poles", "--over", "learner.max_rate=log:1:0"),
            "LOW must be below HIGH",
        ),
        (
            ("sweep", "start", "debug", "--data", "poles", "--over", "replay.mix.rows=choice:8,16"),
            "lower --trials to 2",
        ),
        (
            ("sweep", "start", "debug", "--data", "poles", "--over", "learner.max_rate=log:1e-4:1",
             "--address", "127.0.0.1:1"),
            "no Ray answers at '127.0.0.1:1'",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_status_2(
    words: tuple[str, ...],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = gato(monkeypatch, capsys, *words)
    assert status == 2
    assert message in err
    assert err.startswith("error:")
    assert len(err.strip().splitlines()) == 1


# Killed


def processes_below(pid: int) -> Iterator[int]:
    """A process and all that it started, by their ids."""
    yield pid
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            yield child
            waiting.append(child)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    for pid in list(processes_below(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def popen(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "cluster.cli.main", *words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=out, stderr=out,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scheduler", ["asha", "pbt"])
def test_a_sweep_that_is_killed_goes_on(place: Path, scheduler: str) -> None:
    """Killed three times, by SIGKILL to all its processes, at different moments."""
    start = [
        "sweep", "start", "debug", "--data", "poles", "--scheduler", scheduler, "--trials", "6",
        "--over", "learner.max_rate=log:1e-5:1e-2", "--over", "replay.mix.rows=int:8:24",
        "--updates", "240", "--evaluate-every", "20", "--episodes", "1", "--parallel", "2",
    ]  # fmt: skip
    resume = ["sweep", "resume", "debug", "--parallel", "2"]
    folder = SweepFolder(place / "runs" / "sweeps" / "debug")
    words, kills, reached = start, 0, dict[int, int]()
    log = place / "log.txt"
    for _ in range(12):
        before = len(folder.journal.read())
        process = popen(words, log)
        try:
            while process.poll() is None:
                reports = sum(isinstance(r, Report) for r in folder.journal.read()[before:])
                if kills < 3 and reports >= 4:
                    kills += 1
                    break
                time.sleep(0.02)
        finally:
            kill_all(process)
        if process.returncode == 0:
            break
        words = resume if folder.path.exists() else start
        now = trials_in(folder.journal.read())
        reached |= {n: t.step for n, t in now.items() if t.is_over}
    assert process.returncode == 0, log.read_text()
    assert kills == 3
    records = folder.journal.read()
    trials = trials_in(records)
    assert len(trials) == 6
    assert all(t.word in ("finished", "stopped") for t in trials.values())
    # no trial that was over was trained again
    assert all(trials[n].step == step for n, step in reached.items())
    ends = Counter(r.trial for r in records if isinstance(r, (Ended, Stopped)))
    assert set(ends.values()) == {1}
    # each generation goes on: no step is trained twice, but the one that was not reported
    for number, trial in trials.items():
        for generation in range(trial.generation + 1):
            mine = [r for r in records if isinstance(r, Report) and r.trial == number]
            steps = [r.step for r in mine if r.generation == generation]
            assert steps == sorted(set(steps)), (number, generation, steps)
    assert sum(isinstance(r, Planned) for r in records) == 6
    if scheduler == "asha":
        assert any(isinstance(r, Stopped) for r in records)
    else:
        assert any(isinstance(r, Exploited) for r in records)
