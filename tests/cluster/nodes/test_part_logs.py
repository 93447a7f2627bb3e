"""Logs of a run's parts: found by the line that opens them, also after the part has died."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.nodes.part_logs import SESSIONS, LogReader, keep_session, session_folder
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from gato.part_log import name_log, part_of
from tests.cluster.command import gato
from tests.cluster.wait import until


class Part:
    """Says two lines, one of them with an escape sequence, and dies when it is told to."""

    def __init__(self) -> None:
        name_log(ray.get_runtime_context())

    def say(self, line: str) -> int:
        print(line, file=sys.stderr, flush=True)
        return os.getpid()

    def die(self) -> None:
        print("the reason", file=sys.stderr, flush=True)
        os._exit(1)


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        namespace="gato-here",
    )
    yield
    ray.shutdown()


def log(folder: Path, mark: str, text: str, *, pid: int, changed_s: float = 1e9) -> Path:
    file = folder / "session_1" / "logs" / f"worker-{'a' * 8}{pid}-01000000-{pid}.err"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f":job_id:01000000\n:actor_name:Part\n{mark}\n{text}")
    os.utime(file, (changed_s, changed_s))
    return file


@pytest.mark.parametrize(
    ("actor", "part"),
    [
        ("learner", "learner"),
        (f"learner-{'0a' * 16}", "learner"),
        ("learner-1-epoch12", "learner-1"),
        (f"learner-{'0a' * 16}-1-epoch2", "learner-1"),
        (f"replay-{'0a' * 16}-3", "replay-3"),
        ("worker-w12", "w12"),
        (f"worker-w12-{'0a' * 16}", "w12"),
        (f"inference-run-{'0b' * 28}", "inference-0b0b0b0b"),
        (f"inference--{'0a' * 16}-{'0b' * 28}", "inference-0b0b0b0b"),
        ("supervisor", "supervisor"),
    ],
)
def test_a_part_has_the_name_that_users_see(actor: str, part: str) -> None:
    assert part_of(actor) == part


def test_the_command_needs_no_torch() -> None:
    code = "import sys, cluster.cli.logs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_the_logs_of_the_run_are_read_and_then_only_what_is_new(tmp_path: Path) -> None:
    log(tmp_path, ":gato:gato-x:w0", "old\n", pid=11, changed_s=1e9)
    file = log(tmp_path, ":gato:gato-x:w0", "one\ntwo\nthree\n", pid=12, changed_s=2e9)
    log(tmp_path, ":gato:gato-y:w0", "another run\n", pid=13)
    log(tmp_path, "nothing", "no part\n", pid=14)
    reader = LogReader([tmp_path / "session_1"], "gato-x")
    assert [entry.pid for entry in reader.logs()] == [11, 12]
    assert [piece.text for piece in reader.read("w0", 2)] == [b"old\n", b"two\nthree\n"]
    assert reader.read("w0", 2) == []
    with file.open("a") as more:
        more.write("four\nhalf a li")
    assert [piece.text for piece in reader.read("w0", 2)] == [b"four\n"]
    with file.open("a") as more:
        more.write("ne\n")
    assert [piece.text for piece in reader.read("w0", 2)] == [b"half a line\n"]


@pytest.mark.usefixtures("_ray")
def test_the_last_lines_of_a_part_that_died_are_shown_without_their_escape_sequences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    folder = RunFolder.create(RUNS["debug"])
    (folder.path / "log.txt").write_text("run debug begins\n")
    keep_session(folder.path)
    assert (folder.path / SESSIONS).read_text().strip() == str(session_folder())

    remote: Any = ray.remote(Part)
    part = remote.options(name="worker-w0", num_cpus=0, max_restarts=1).remote()
    first = ray.get(part.say.remote("hello \x1b[2J\x1b]0;title\x07"))
    with pytest.raises(ray.exceptions.RayError):
        ray.get(part.die.remote())
    reader = LogReader([session_folder()], None)
    until(lambda: len(reader.logs()) == 2)  # Ray has started it again

    status, out, _ = gato(monkeypatch, capsys, "logs", "worker-w0", "--run", folder.name)
    assert status == 0
    assert f"w0, pid {first}, ended\nhello \\x1b[2J\\x1b]0;title\\x07\nthe reason\n" in out
    status, out, _ = gato(monkeypatch, capsys, "logs", "w0", "--lines", "1")
    assert "hello" not in out
    assert "the reason" in out
    status, out, _ = gato(monkeypatch, capsys, "logs")
    assert "w0" in out
    assert "run debug begins" in out
    status, _, err = gato(monkeypatch, capsys, "logs", "w7")
    assert status == 2
    assert err == "error: run debug has no log of 'w7'; there are: w0\n"
