"""A whole run on a local Ray, with real parts: it plays, learns, survives kill -9, scales, stops,
resumes, is evaluated."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.control.run_control import summary_of
from cluster.journal.journal import Journal
from cluster.journal.journal_file import JournalFile
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer
from gato.metrics import WorkerReport
from replay.storage.store import EpisodeStore

pytestmark = pytest.mark.timeout(900)
GATO = Path(sys.executable).parent / "gato"


class Shell:
    """The command as a user has it, with runs in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"GATO_RUNS": str(folder / "runs"), "COLUMNS": "120"}

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [str(GATO), *words],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        assert done.returncode == status, f"gato {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def background(self, *words: str) -> subprocess.Popen[str]:
        """The command without waiting for its end."""
        return subprocess.Popen(
            [str(GATO), *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment | {"PYTHONUNBUFFERED": "1"},
        )

    def watch(self) -> dict[str, Any]:
        """What `gato watch --once --json` prints, without a process for each look."""
        return summary_of("debug").to_json()

    def processes(self, title: str) -> list[int]:
        """Processes of this run by their title."""
        mine = f"GATO_RUNS={self.folder}/runs".encode()
        out: list[int] = []
        for entry in Path("/proc").iterdir():
            try:
                titled = entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(
                    title.encode()
                )
                if titled and mine in (entry / "environ").read_bytes():
                    out.append(int(entry.name))
            except OSError:
                continue
        return out


def until(condition: Callable[[], Any], *, timeout_s: float = 180.0) -> Any:
    """What `condition` says once it says something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError(f"not within {timeout_s} s")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATO_RUNS", str(shell.folder / "runs"))
        yield shell
    for process in shell.processes("ray::") + shell.processes(sys.executable):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.report("ray-project/ray#57733")
def test_a_run_plays_survives_scales_stops_and_resumes(shell: Shell) -> None:
    shell(
        "start", "debug", "--detach", "--updates", "100000", "--set", "actors.generate_share=0.3",
        "--set", "replay.num_shards=2",
    )  # fmt: skip
    until(lambda: shell.watch()["tasks"]["mujoco/inverted-pendulum"]["history"])
    before = json.loads(shell("watch", "--once", "--json"))
    assert {"run", "tasks", "learner", "replay", "workers"} <= before.keys()
    assert {
        "version",
        "step",
        "return",
        "normalised",
        "episodes",
        "teacher_return",
        "history",
    } <= before["tasks"]["mujoco/inverted-pendulum"].keys()
    assert {"step", "loss", "tokens_per_s", "wait_fraction"} <= before["learner"].keys()

    worker = until(lambda: shell.processes("ray::WorkerActor"))
    replay = until(lambda: shell.processes("ray::ReplayActor"))
    os.kill(replay[0], signal.SIGKILL)
    os.kill(worker[0], signal.SIGKILL)
    step = before["learner"]["step"]
    steps = before["replay"]["steps"]
    until(
        lambda: (
            (now := shell.watch())["learner"]["step"] > step + 20
            and now["replay"]["steps"] > steps + 200
        )
    )

    os.kill(until(lambda: shell.processes("ray::LearnerActor"))[0], signal.SIGKILL)
    until(lambda: any(event["kind"] == "learner died" for event in shell.watch()["events"]))
    step = shell.watch()["learner"]["step"]
    until(lambda: shell.watch()["learner"]["step"] > step + 20)
    log = (shell.folder / "runs" / "debug" / "log.txt").read_text()
    # what Ray says of a constructor that got handles of other actors
    assert "actor restart will fail" not in log

    # holds nobody back: a second worker needs something to do
    shell("replay", "limit", "debug", "--slack", "900000")
    until(lambda: any(event["kind"] == "replay limited" for event in shell.watch()["events"]))
    shell("replay", "verify", "debug")  # beside the run

    shell("roles", "debug", "--relabel", "0.4", "--generate", "0.1")
    until(lambda: any(event["kind"] == "roles" for event in shell.watch()["events"]))
    until(lambda: shell("replay", "ls", "debug", "--source", "agent:relabelled", "--json").strip())

    shell("scale", "2")
    until(lambda: len([w for w in shell.watch()["workers"] if w["id"] in ("w0", "w1")]) == 2)
    out = shell("stop")
    assert "stopped" in out
    stopped = shell.watch()
    assert not shell.processes("ray::")

    _nothing_acknowledged_is_missing(shell.folder / "runs" / "debug")

    target = stopped["learner"]["step"] + 30
    shell("resume", "debug", "--updates", str(target))
    resumed = shell.watch()
    assert resumed["learner"]["step"] == target
    assert "finished" in shell("runs")
    old = stopped["tasks"]["mujoco/inverted-pendulum"]["history"]
    new = resumed["tasks"]["mujoco/inverted-pendulum"]["history"]
    assert new[: len(old)] == old
    assert new[-1][0] == target
    assert "ended" not in shell("evaluate", "debug", "--episodes", "2")
    played = json.loads(shell("evaluate", "debug", "--episodes", "2", "--json"))
    assert played["tasks"]["mujoco/inverted-pendulum"]["step"] == target


def _nothing_acknowledged_is_missing(run: Path) -> None:
    entries = JournalFile(run / "journal").read(count=100_000)
    with RedisServer.start(run / "redis") as server:
        run_id = json.loads((run / "run.json").read_text())["id"]
        assert Journal(connect(server.url), run_id).read(count=100_000) == entries
    reports = [
        e.record
        for e in entries
        if isinstance(e.record, WorkerReport) and e.record.role != "evaluate"
    ]
    acknowledged = sum(report.episodes - sum(report.refused.values()) for report in reports)
    keys: list[str] = []
    for shard in range(2):
        store = EpisodeStore(
            run / "replay" / f"shard-{shard}", capacity_bytes=1 << 28, read_only=True
        )
        keys += [header.key for header in store.episodes.values()]
        assert sum(1 for _ in store.all_episodes()) == len(store.episodes) > 0
        store.close()
    assert len(keys) == len(set(keys))
    assert len(keys) >= acknowledged > 0


def test_a_run_ends_by_itself_and_leaves_nothing_running(shell: Shell) -> None:
    """Also where the warm-up asks for more than there will ever be."""
    said = shell(
        "start", "debug", "--name", "short", "--updates", "4",
        "--set", "replay.limiter.warmup_tokens=9000000", "--set", "actors.generate_share=0",
    )  # fmt: skip
    note = "12,000 tokens, fewer than replay.limiter.warmup_tokens, 9,000,000"
    assert note in " ".join(said.split())
    assert "finished" in shell("watch", "short")
    assert "warmup_tokens: 6000" in (shell.folder / "runs/short/config.yaml").read_text()
    assert not shell.processes("ray::")
    assert not [path.name for path in shell.folder.iterdir() if path.name != "runs"]
