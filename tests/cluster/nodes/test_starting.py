"""The start of a node, and what may happen to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cluster.nodes.starting import SERVER_ENDED, await_node
from gato.processes import descendants


def test_a_head_whose_server_is_killed_while_it_starts_is_given_up_at_once(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    server = tmp_path / "gcs_server"
    shutil.copy(sleep, server)
    # As `ray start`, it never collects what it started.
    head = subprocess.Popen(["/bin/sh", "-c", f"{server} 60 & exec {sleep} 60"])
    looks = 0

    def is_there() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            children = [pid for pid in descendants(head.pid) if pid != head.pid]
            os.kill(children[0], signal.SIGKILL)
        return False

    begun_s = time.monotonic()
    try:
        assert await_node(head, is_there) == SERVER_ENDED
        assert time.monotonic() - begun_s < 10.0
    finally:
        head.kill()
        head.wait()


def test_a_node_that_ends_says_why_in_its_log() -> None:
    assert await_node(subprocess.Popen(["true"]), lambda: False) == ""


def test_a_node_is_up_once_the_cluster_knows_it() -> None:
    node = subprocess.Popen(["sleep", "60"])
    try:
        assert await_node(node, lambda: True) is None
    finally:
        node.kill()
        node.wait()
