"""The server as a process: its token, its clients of several tasks, its limits and its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
import pytest

from cluster.serving.client import PolicyClient
from cluster.serving.serve import ServeConfig
from gato.exported.policy import LoadedPolicy
from gato.exported.policy_file import write_policy
from gato.task import Task
from tests.cluster.wait import until
from tests.gato.exported.policies import policy_file
from tests.gato.models import GAME, ROBOT, TALK, random_observations

ROOT = Path(__file__).resolve().parents[3]
TASKS = (ROBOT, GAME, TALK)
POLICY = policy_file(*TASKS)


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    url: str
    token_file: Path

    @property
    def token(self) -> str:
        return self.token_file.read_text()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self) -> PolicyClient:
        return PolicyClient(self.url, self.token)

    def ask(
        self, method: str, path: str, body: bytes = b"", token: str | None = None
    ) -> tuple[int, str]:
        """Status and text of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = self.token if token is None else token
        connection.request(method, path, body, {"Authorization": f"Bearer {given}"})
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, text

    def num_clients(self) -> int:
        return json.loads(self.ask("GET", "/health", token="")[1])["clients"]


def start(folder: Path, *options: str) -> Served:
    file = folder / "policy.safetensors"
    write_policy(file, POLICY, replace=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli.main", "serve", str(file), "--port", "0", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GATO_HOME": str(folder), "COLUMNS": "200"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"at (http://\S+); the token is in (\S+)", line)
    assert found, line + process.stdout.read()
    return Served(process, found[1], Path(found[2]))


def end(served: Served, number: int = signal.SIGTERM) -> str:
    """Stop it; returns what it still said."""
    served.process.send_signal(number)
    said, _ = served.process.communicate(timeout=60)
    assert served.process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    started = start(tmp_path_factory.mktemp("serve"))
    yield started
    end(started)


def episode_of(task: Task, seed: int, num_steps: int = 6) -> list[dict[str, np.ndarray]]:
    seen = random_observations(task, num_steps, np.random.default_rng(seed))
    return [{name: values[t] for name, values in seen.items()} for t in range(num_steps)]


def test_thirty_clients_of_different_tasks_get_the_actions_that_each_would_get_alone(
    served: Served,
) -> None:
    def play(index: int) -> list[np.ndarray]:
        task, client = TASKS[index % len(TASKS)], served.client()
        actions: list[np.ndarray] = []
        for episode in range(2):
            client.reset(task.name)
            for seen in episode_of(task, 100 * episode + index):
                actions.append(client.act(seen))
                client.observe(0.5)
        client.close()
        return actions

    with ThreadPoolExecutor(30) as pool:
        got = list(pool.map(play, range(30)))
    alone = LoadedPolicy(POLICY)
    for index, actions in enumerate(got):
        task = TASKS[index % len(TASKS)]
        expected: list[np.ndarray] = []
        for episode in range(2):
            alone.reset(task.name)
            expected += [alone.act(seen) for seen in episode_of(task, 100 * episode + index)]
        for one, other in zip(actions, expected, strict=True):
            assert one.dtype == other.dtype
            # In a batch the last bits may differ, and so may the bin that a mean falls in.
            np.testing.assert_allclose(one, other, atol=0.02)
    until(lambda: served.num_clients() == 0)


def test_a_client_that_vanishes_frees_its_rows(served: Served) -> None:
    code = (
        "import sys, numpy as np; from cluster.serving.client import PolicyClient\n"
        "client = PolicyClient(sys.argv[1], sys.argv[2]); client.reset('test/robot')\n"
        "client.act(np.zeros(5, np.float32)); print('acted', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, served.url, served.token],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "acted\n"
    assert served.num_clients() == 1
    process.kill()
    process.communicate()
    other = served.client()
    other.reset("test/robot")
    assert other.act(np.zeros(5, np.float32)).shape == (3,)
    until(lambda: served.num_clients() == 1)
    other.close()
    until(lambda: served.num_clients() == 0)


OBJECTS = msgpack.ExtType(1, msgpack.packb(("O", [1], b"12345678")))
"""An array of Python objects, which no message may hold."""
BEGIN = msgpack.packb({"task": "test/robot"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/", b"", 404, "there is no GET /; there are GET /health"),
        ("GET", "/act", b"", 405, "there is no GET /act"),
        ("POST", "/begin", b"", 400, "the body is not msgpack"),
        ("POST", "/begin", b"\xc1", 400, "the body is not msgpack"),
        ("POST", "/begin", msgpack.packb([1]), 400, "the body is list"),
        ("POST", "/begin", msgpack.packb({}), 400, "lacks 'task'"),
        ("POST", "/begin", msgpack.packb({"task": 1}), 400, "task is int, expected text"),
        ("POST", "/begin", msgpack.packb({"task": "x", "a": 1}), 400, "has 'a'"),
        ("POST", "/begin", msgpack.packb({"task": "test/robo"}), 400, "did you mean 'test/robot'"),
        ("POST", "/act", msgpack.packb({"session": "x", "observation": 1}), 410, "no such episode"),
        (
            "POST",
            "/act",
            msgpack.packb({"session": "x", "observation": 1, "reward": "much"}),
            400,
            "reward is str",
        ),
        (
            "POST",
            "/act",
            msgpack.packb({"session": "x", "observation": OBJECTS}),
            400,
            "the body is not msgpack",
        ),
        ("POST", "/begin", b"\x00" * 10_000_000, 413, "the body is too large"),
    ],
)  # fmt: skip
def test_a_bad_request_gets_one_clear_sentence(
    served: Served, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    got, text = served.ask(method, path, body)
    assert got == status
    assert message in text
    assert len(text.splitlines()) == 1


def test_a_request_without_the_token_is_refused_but_for_health(served: Served) -> None:
    assert served.token_file.stat().st_mode & 0o777 == 0o600
    for token in ("", "x" * 64, "ü"):
        status, text = served.ask("POST", "/begin", BEGIN, token=token)
        assert status == 401
        assert "Authorization: Bearer TOKEN" in text
    assert served.ask("GET", "/health", token="") == (200, '{"status": "ok", "clients": 0}')
    status, _ = served.ask("GET", "/tasks")
    assert status == 200


def test_the_client_raises_the_servers_sentence(served: Served) -> None:
    client = served.client()
    with pytest.raises(ValueError, match="no such episode"):
        client.act(np.zeros(5, np.float32))
    client.reset("test/robot")
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        client.act(np.zeros(4, np.float32))
    assert client.act(np.zeros(5, np.float32)).dtype == np.float32
    client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_with_a_client_connected(tmp_path: Path, number: int) -> None:
    served = start(tmp_path)
    client = served.client()
    client.reset("test/game")
    client.act(episode_of(GAME, 0)[0])
    assert end(served, number) == "stopped\n"
    assert not served.token_file.exists()
    client.close()  # the server is gone: harmless


def test_a_host_that_others_reach_needs_a_token_file() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(ValueError, match="give --token-file"):
            ServeConfig(host=host)
        assert ServeConfig(host=host, token_file="token").host == host
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert ServeConfig(host=host).token_file is None


def test_a_port_that_is_taken_is_one_line(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "policy.safetensors"
    write_policy(file, POLICY)
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", "serve", str(file), "--port", str(served.port)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "GATO_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"error: cannot listen at 127.0.0.1:\d+ .*\n", done.stderr)
    assert not (tmp_path / "serve").exists()
