"""Joining a Ray that runs, as a process of its own does: Ray keeps what it was told at import for
the process's life."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from cluster.nodes.connect import address_of
from cluster.nodes.probe import require_ray

START = """
import ray
context = ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print("at", context.address_info["gcs_address"], flush=True)
input()
"""
JOIN = """
import sys
import ray  # imported before ours, as by a program that calls us
from cluster.nodes.connect import connect_ray
connect_ray(sys.argv[1], namespace="test-connect")
print("joined", ray.cluster_resources()["CPU"])
"""


@pytest.mark.slow
def test_a_ray_that_asks_for_the_token_in_the_home_folder_is_joined(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "HOME": str(tmp_path)
    }
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        assert running.stdout is not None
        try:
            line = next(line for line in running.stdout if line.startswith("at "))
            assert (tmp_path / ".ray/auth_token").is_file()
            joined = subprocess.run(
                [sys.executable, "-c", JOIN, line.split()[1]],
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
            (tmp_path / "other/.ray").mkdir(parents=True)
            (tmp_path / "other/.ray/auth_token").write_text("0" * 64)
            refused = subprocess.run(
                [sys.executable, "-c", JOIN, line.split()[1]],
                capture_output=True,
                text=True,
                env=environment | {"HOME": str(tmp_path / "other")},
                check=False,
            )
        finally:
            running.communicate("\n")
    assert "joined 1.0" in joined.stdout, joined.stderr
    assert "both sides need the same token" in refused.stderr


class Listener:
    """A server on a port of its own that answers every connection with the same bytes; with none it
    stays silent."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
                self._kept.append(connection)
                if self._answer:
                    connection.sendall(self._answer)
                    connection.close()
            except OSError:
                return

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for connection in self._kept:
            connection.close()


@pytest.mark.report("ray-project/ray#22413", "ray-project/ray#41158")
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "it does not answer within 6 s"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "UNAVAILABLE"),
        (b"-ERR unknown command\r\n", "UNAVAILABLE"),
    ],
)
def test_a_port_where_another_server_listens_is_refused_in_seconds(
    answer: bytes, says: str
) -> None:
    listener = Listener(answer)
    begun_s = time.monotonic()
    try:
        with pytest.raises(ValueError) as caught:
            require_ray(listener.address)
    finally:
        listener.close()
    assert time.monotonic() - begun_s < 30.0  # where the machine is busy; six or none of its own
    assert f"what listens at '{listener.address}' is not the head of a Ray ({says}" in str(
        caught.value
    )
    assert "gato cluster start" in str(caught.value)


def test_a_grpc_server_that_is_no_ray_is_refused() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(ValueError, match=r"is not the head of a Ray \(UNIMPLEMENTED\)"):
            require_ray(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    "address", ["nowhere", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:1", "127.0.0.1:99999999"]
)
def test_an_address_where_nothing_listens_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"no Ray answers at .*gato cluster start"):
        require_ray(address)


def test_auto_is_the_ray_that_was_started_last_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert address_of("10.0.0.1:6379") == "10.0.0.1:6379"
    with pytest.raises(ValueError, match="no Ray was started on this machine"):
        address_of("auto")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("10.0.0.2:6379\n")
    assert address_of("auto") == "10.0.0.2:6379"
