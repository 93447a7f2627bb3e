"""The user's mistakes: one clear line, exit status 2, no traceback, nothing lost."""

import json
import shutil
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster.control.build_run import make_config
from cluster.runs import disk_space
from cluster.runs.folder import RunFolder, list_runs
from cluster.runs.presets import RUNS
from tests.cluster.command import gato


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def idle(observations: Mapping[str, np.ndarray], extras: object) -> np.ndarray:
    """A teacher that does nothing."""
    return np.zeros(len(observations["state"]), np.int64)


def d4rl_file(path: Path, *, steps: int = 30, without: str = "", nan_at: int | None = None) -> Path:
    """A small Hopper file of three episodes of ten steps."""
    rng = np.random.default_rng(0)
    columns = {
        "observations": rng.normal(size=(steps, 11)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (steps, 3)).astype(np.float32),
        "rewards": np.ones(steps, np.float32),
        "terminals": np.arange(1, steps + 1) % 10 == 0,
        "timeouts": np.zeros(steps, bool),
    }
    if nan_at is not None:
        columns["observations"][nan_at, 2] = np.nan
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if name != without:
                file[name] = values
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("start", "dmeo"), "did you mean 'demo'"),
        (("start", "debug", "--tasks", "mujoco/hoper"), "did you mean 'mujoco/hopper'"),
        (
            ("start", "debug", "--tasks", "nowhere:MyEnv-v0"),
            "needs nowhere, which cannot be imported",
        ),
        (("start", "debug", "--tasks", "gymnasium:MyEnv-v0"), "cannot make gymnasium:MyEnv-v0"),
        (("start", "debug", "--text", "missing.model"), "no SentencePiece model in"),
        (("start", "debug", "--set", "learner.rate=1"), "unknown setting"),
        (("start", "debug", "--tasks", "ant"), "--set replay.mix.row_tokens=228"),
        (("start", "debug", "--data", "nothing"), "no data set 'nothing'"),
        (("start", "debug", "--address", "127.0.0.1:1"), "no Ray answers at '127.0.0.1:1'"),
        (("start", "debug", "--redis", "redis://127.0.0.1:1"), "127.0.0.1:1"),
        (("watch", "nobody"), "no runs"),
        (("stop",), "run"),
        (("evaluate", "nobody"), "no runs"),
        (("export", "x" * 300, "p.safetensors"), "there is no run, file or folder 'xxx"),
        (("start", "finetune", "--from", "x" * 300), "a name of 300 letters is too long"),
        (("replay", "verify", "x" * 300), "a name of 300 letters is too long"),
        (("start", "debug", "--tasks", ""), "--tasks names no task"),
        (("start", "debug", "--tasks", "hopper, hoper"), "unknown task 'hoper'"),
        (("start", "debug", "--name", ""), "'' cannot name a run"),
        (("start", "debug", "--seed", "-1"), "seed -1 must not be negative"),
        (("record", "atari/breakot"), "did you mean 'atari/breakout'"),
        (("teach", "atari/pong"), "pong"),
        (("import", "missing.hdf5"), "missing.hdf5"),
        (("watch", "--json"), "--once"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = gato(monkeypatch, capsys, *words)
    assert status == 2
    assert message in err
    assert err.startswith("error:")
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = gato(monkeypatch, capsys, "start", "debug", "--redis-port", str(port))
    assert status == 2
    assert f"port {port}" in err
    assert list_runs()[0].state == "failed"


def test_too_little_space_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(disk_space, "MIN_FREE_BYTES", 1 << 60)
    status, _, err = gato(monkeypatch, capsys, "start", "debug")
    assert status == 2
    assert "free" in err
    assert not list_runs()


def test_a_d4rl_file_is_imported_once_and_can_be_trained_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = d4rl_file(here / "hopper_expert-v5.hdf5")
    for _ in range(2):
        status, out, _ = gato(monkeypatch, capsys, "import", str(file))
        assert status == 0
        assert "3 episodes of mujoco/hopper" in out
    assert "3 were there already" in out
    about = json.loads((here / "runs" / "data" / "hopper_expert-v5" / "about.json").read_text())
    assert about["tasks"]["mujoco/hopper"] == {
        "episodes": 3,
        "steps": 30,
        "return_mean": 10.0,
        "returns": [10.0, 10.0, 10.0],
    }
    config = make_config("demo", name=None, tasks=None, data=["hopper_expert-v5"], settings=[])
    assert config.tasks == ("mujoco/hopper",)


def test_a_file_with_nan_loses_that_episode_and_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = gato(
        monkeypatch, capsys, "import", str(d4rl_file(here / "hopper-medium-v2.hdf5", nan_at=12))
    )
    assert status == 0
    assert "2 episodes" in out
    assert "refused" in out
    assert "not finite" in out


def test_a_file_with_missing_keys_is_refused_whole(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = d4rl_file(here / "hopper_expert-v5.hdf5", without="rewards")
    status, _, err = gato(monkeypatch, capsys, "import", str(file))
    assert status == 2
    assert "rewards" in err
    assert not (here / "runs" / "data" / "hopper_expert-v5").exists()


def test_a_minari_set_of_another_environment_version_is_refused(
    here: Path,
    shared_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = here / "hopper-old"
    shutil.copytree(shared_data / "minari" / "mujoco" / "hopper" / "random-v0", folder)
    metadata = folder / "data" / "metadata.json"
    metadata.chmod(0o644)
    metadata.write_text(metadata.read_text().replace("Hopper-v5", "Hopper-v4"))
    status, _, err = gato(monkeypatch, capsys, "import", str(folder), "--task", "mujoco/hopper")
    assert status == 2
    assert "Hopper-v4" in err
    assert "Hopper-v5" in err


def test_a_run_that_is_not_running_cannot_be_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder.create(replace(RUNS["demo"], name="old")).set_state("stopped")
    for words in (("stop", "old"), ("scale", "2", "--run", "old")):
        status, _, err = gato(monkeypatch, capsys, *words)
        assert status == 2
        assert "gato resume old" in err
    status, out, _ = gato(monkeypatch, capsys, "runs")
    assert status == 0
    assert "old" in out


def test_demonstrations_can_be_recorded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = gato(
        monkeypatch, capsys, "record", "inverted-pendulum", "--episodes", "2", "--name", "poles"
    )
    assert status == 0
    assert "2 episodes of mujoco/inverted-pendulum, 2,000 steps" in out
    assert not (here / "MUJOCO_LOG.TXT").exists()


def test_an_environment_that_breaks_ends_a_recording_with_a_line(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "frail_pkg.py").write_text(
        "from tests.actors.faulty import faulty\n"
        "def dies(): return faulty('exit')\n"
        "def raises(): return faulty('raise')\n"
    )  # fmt: skip
    monkeypatch.syspath_prepend(here)
    teacher = "python:tests.cluster.cli.test_main:idle"
    for name, word in (("raises", "the wheels came off"), ("dies", "died")):
        status, _, err = gato(
            monkeypatch,
            capsys,
            "record",
            f"frail_pkg:{name}",
            "--teacher",
            teacher,
            "--episodes",
            "4",
        )
        assert status == 2
        assert word in err
        assert f"gato check frail_pkg:{name}" in err
        assert len(err.strip().splitlines()) == 1


def test_a_task_that_nobody_shows_is_refused_before_a_run_takes_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = gato(monkeypatch, capsys, "start", "debug", "--tasks", "CartPole-v1")
    assert status == 2
    assert "CartPole-v1 has no demonstrations" in err
    assert list_runs() == []
