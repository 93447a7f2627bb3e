"""Processes that Ray keeps for actors that it has forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.nodes.connect import connect_ray
from cluster.supervision import stranded
from cluster.supervision.stranded import StrandedCores, end_stranded
from gato.processes import is_alive
from tests.chaos.lab import AGAIN, Redis
from tests.cluster.hosts import hosts, missing, wait_for

remote: Any = ray.remote(num_cpus=0)
"""Of functions and classes; the types of `ray.remote` know only one of the two."""


class Holder:
    """An actor."""

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    connect_ray(None, namespace="test-stranded")
    yield
    ray.shutdown()


@pytest.fixture
def idle(local_ray: None) -> int:
    """A process of Ray's that waits for the next task."""
    return ray.get(remote(_own_pid).remote())


def _own_pid() -> int:
    return os.getpid()


def test_a_process_without_work_is_ended_and_an_actor_is_not(idle: int) -> None:
    holder = remote(Holder).remote()
    pid = ray.get(holder.pid.remote())
    looks = remote(Looks).remote()
    ray.get(looks.end.remote())  # in an actor, so that `idle` stays one that waits
    wait_for(lambda: not is_alive(idle, None) or not _titled(idle), 20.0)
    assert ray.get(holder.pid.remote()) == pid


class Looks:
    """One who looks, in a process of Ray's."""

    def end(self) -> int:
        return end_stranded()


def _titled(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")


def test_nodes_are_looked_at_only_while_workers_wait(
    local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    class Look:
        def options(self, **_: object) -> Look:
            return self

        def remote(self) -> ray.ObjectRef[int]:
            looks.append("look")
            return ray.put(0)

    monkeypatch.setattr(stranded, "_end_stranded", Look())
    monkeypatch.setattr(stranded, "FIRST_LOOK_S", 0.05)
    monkeypatch.setattr(stranded, "LAST_LOOK_S", 0.2)
    cores = StrandedCores()
    cores.tick(workers_wait=False)
    cores.tick(workers_wait=True)
    assert not looks
    until_s = time.monotonic() + 2.0
    while time.monotonic() < until_s:
        cores.tick(workers_wait=True)
    assert 5 <= len(looks) <= 12  # after 0.05, 0.1 and each further 0.2 s
    cores.tick(workers_wait=False)
    before = len(looks)
    cores.tick(workers_wait=True)
    assert len(looks) == before


FORGET = """
import sys, time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.nodes.connect import connect_ray
from cluster.supervision.stranded import end_stranded
from tests.cluster.supervision.test_stranded import Holder

connect_ray(sys.argv[1], namespace="test")
node = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("CPU"))
here = NodeAffinitySchedulingStrategy(node, soft=False)
actor = ray.remote(num_cpus=1, scheduling_strategy=here, max_restarts=-1)(Holder)
first = actor.remote()
ray.get(first.pid.remote())
second = actor.remote()
time.sleep(2.0)
print("queued", flush=True)
sys.stdin.readline()
ray.kill(first)

def answers():
    try:
        return bool(ray.get(second.pid.remote(), timeout=15.0))
    except ray.exceptions.GetTimeoutError:
        return False

print("before:", answers(), flush=True)
end = ray.remote(num_cpus=0, scheduling_strategy=here)(end_stranded)
print("ended:", ray.get(end.remote()), flush=True)
print("after:", answers(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
def test_a_core_that_ray_gave_to_nobody_is_freed(tmp_path: Path) -> None:
    """Ray has this fault: once it says `before: True`, `stranded` can go."""
    with hosts(3, tmp_path) as (head, node, third):
        redis = Redis(third, 6398)
        redis.start()
        head.env["GATO_CLUSTER_REDIS"] = redis.url
        gato = f"{sys.executable} -P -m cluster.cli.main"
        start = f"{gato} cluster start --host {head.address} --cpus 0 --gpus 0 --block"
        head.start(["bash", "-c", AGAIN.format(start)], tmp_path / "head.log")
        token = head.home / ".ray/auth_token"
        wait_for(lambda: "alive" in head.gato("cluster nodes", check=False).stdout)
        node.gato(
            f"cluster join {head.address}:6379 --cpus 1 --gpus 0 --token-file -",
            input=token.read_text(),
        )
        driver = subprocess.Popen(
            node.command(sys.executable, "-P", "-c", FORGET, f"{head.address}:6379"),
            cwd=node.work,
            env=node.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert driver.stdin is not None
        assert driver.stdout is not None
        while "queued" not in driver.stdout.readline():
            assert driver.poll() is None
        assert head.kill("gcs_server") == 1
        wait_for(lambda: "alive" in head.gato("cluster nodes", check=False).stdout)
        driver.stdin.write("\n")
        driver.stdin.flush()
        said = driver.stdout.read()
        assert "before: False" in said
        assert "ended: 1" in said
        assert "after: True" in said
