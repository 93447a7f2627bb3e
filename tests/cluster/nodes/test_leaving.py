"""Machines that leave: drained, stopped or preempted. What they were at is moved or saved."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT, Host, hosts, missing, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=missing() or "machines can be made"),
]


FOLLOW = ("logs", "supervisor", "-f")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Host]]:
    with hosts(3, tmp_path) as made:
        yield made


def status(host: Host) -> dict[str, object]:
    return json.loads(host.gato("watch --once --json").stdout)


def step(host: Host) -> int:
    learner = status(host)["learner"]
    return int(learner["step"]) if isinstance(learner, dict) else 0


def events(host: Host, kind: str) -> list[str]:
    found = status(host)["events"]
    assert isinstance(found, list)
    return [event["text"] for event in found if event["kind"] == kind]


def cluster_of(machines: list[Host], *, home_stays: bool = False) -> str:
    """The head offers nothing, the second machine is the home, the third has a worker's core."""
    head, home, third = machines
    head.gato(f"cluster start --host {head.address} --cpus 0 --gpus 0 --name head")
    token = (head.home / ".ray/auth_token").read_text()
    join = f"cluster join {head.address}:6379 --token-file -"
    third.gato(f"{join} --cpus 1 --gpus 0 --name third", input=token)
    if not home_stays:
        home.gato(f"{join} --cpus 2 --gpus 0 --name home", input=token)
    return token


def _differs(seen: list[int], now: int, before: int) -> bool:
    """Whether the learner has said something new; it is kept in `seen`."""
    if now != before:
        seen.append(now)
    return bool(seen)


def start(head: Host, workers: int) -> None:
    head.gato(
        f"start debug --address {head.address}:6379 --home home --updates 1000000"
        f" --workers {workers} --detach"
    )


def test_the_workers_of_a_drained_machine_are_moved_and_a_drained_home_saves(
    machines: list[Host], tmp_path: Path
) -> None:
    head, home, third = machines
    cluster_of(machines)
    start(head, 2)
    wait_for(lambda: len(status(head)["workers"]) == 2)  # type: ignore[arg-type]

    listed = third.gato("logs --run debug", check=False)  # it knows no run
    assert listed.returncode == 2
    listed = head.gato("logs")
    for part, node in (("learner", "home"), ("supervisor", "home"), ("weights", "home")):
        assert re.search(rf"{part} +{node} +\d+ +alive", listed.stdout)
    assert re.search(r"w[01] +third +\d+ +alive", listed.stdout)

    head.gato("cluster drain third --within 60")
    assert wait_for(lambda: events(head, "worker moved")) < 60.0
    wait_for(lambda: re.search(r"third +\S+ +dead", head.gato("cluster nodes").stdout), 60.0)
    assert events(head, "worker died") == []
    assert events(head, "task failed") == []

    log = tmp_path / "follow.log"
    follower = head.start(["python", "-P", "-m", "cluster.cli.main", *FOLLOW], log)
    wait_for(log.read_text)
    head.gato("cluster drain home --within 40")
    wait_for(lambda: "run debug stopped its home home is being drained" in log.read_text())
    wait_for(lambda: f"home ({home.address}) is being drained" in log.read_text())
    assert follower.poll() is None  # it waits for what the others may say
    wait_for(lambda: re.search(r"home +\S+ +dead", head.gato("cluster nodes").stdout), 70.0)
    said = json.loads((home.work / "runs/debug/run.json").read_text())
    assert said["state"] == "stopped"
    assert said["reason"] == "its home home is being drained; gato resume when it is back"
    assert "episodes are whole" in home.gato("replay verify debug").stdout


def test_a_home_that_is_preempted_saves_and_the_run_goes_on_where_it_was(
    machines: list[Host], tmp_path: Path
) -> None:
    head, home, _ = machines
    token = cluster_of(machines, home_stays=True)
    (home.home / "token").write_text(token)
    join = (
        f"python -P -m cluster.cli.main cluster join {head.address}:6379 --cpus 1 --gpus 0"
        f" --name home --token-file {home.home / 'token'} --block"
    )
    stays = home.start(["bash", "-c", f"exec {join}"], tmp_path / "join.log")
    wait_for(lambda: re.search(r"home +\S+ +alive", head.gato("cluster nodes").stdout))
    start(head, 1)
    wait_for(lambda: step(home) > 50)

    pid = next(iter(home.pids("cluster.cli.main cluster join")))
    begun_s = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    stays.wait(60.0)
    assert time.monotonic() - begun_s < 50.0
    assert home.pids() == []
    said = json.loads((home.work / "runs/debug/run.json").read_text())
    assert (said["state"], said["reason"]) == ("stopped", "its home home left the cluster")
    reached = step(home)

    home.gato(f"cluster join {head.address}:6379 --cpus 1 --gpus 0 --name home")
    head.gato("resume debug --detach")
    wait_for(lambda: status(home)["state"] == "running")
    first: list[int] = []
    wait_for(lambda: _differs(first, step(home), reached))
    assert reached <= first[0]  # nothing was done twice
    said_by_stop = home.gato("cluster stop").stdout
    assert "run debug stopped" in said_by_stop
    said = json.loads((home.work / "runs/debug/run.json").read_text())
    assert said["state"] == "stopped"


def test_a_word_that_is_said_while_the_supervisor_is_away_is_obeyed_when_it_is_back(
    machines: list[Host],
) -> None:
    head, home, _ = machines
    cluster_of(machines)
    start(head, 1)
    wait_for(lambda: len(status(head)["workers"]) == 1)  # type: ignore[arg-type]

    for host, workers in ((head, 2), (home, 1)):
        before = len(events(host, "supervisor back"))
        assert home.kill("ray::SupervisorActor") == 1
        assert f"goes on with {workers} workers" in host.gato(f"scale {workers}").stdout
        assert f"{workers} workers" in events(host, "scaled")
        assert len(events(host, "supervisor back")) == before + 1
    assert home.kill("ray::SupervisorActor") == 1
    home.gato("stop")
    said = json.loads((home.work / "runs/debug/run.json").read_text())
    assert said["state"] == "stopped"
    assert "num_workers: 1" in (home.work / "runs/debug/config.yaml").read_text()


LATE = """
import pathlib, sys
left = pathlib.Path(__file__).with_name("left")
if "cluster.nodes.ray_process" in sys.orig_argv and int(left.read_text()):
    left.write_text(str(int(left.read_text()) - 1))
    import ray._private.services
    ray._private.services.RAYLET_EXECUTABLE = str(left.with_name("raylet"))
"""
"""Of so many first starts of Ray as `left` says the raylet is not up within 30 s."""


def test_a_start_that_misses_rays_time_is_tried_once_more_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    with hosts(1, tmp_path) as (host,):
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(LATE)
        (site / "raylet").write_text("#!/bin/sh\nexec sleep 600\n")
        (site / "raylet").chmod(0o755)
        (site / "left").write_text("2")
        host.env["PYTHONPATH"] = f"{site}:{ROOT}"
        failed = host.gato("cluster start --cpus 1 --gpus 0", check=False)
        assert failed.returncode == 2
        assert "timed out during startup" in failed.stderr
        assert (site / "left").read_text() == "0"  # it was tried twice
        assert host.pids() == []

        (site / "left").write_text("1")
        host.gato("cluster start --cpus 1 --gpus 0 --name late")
        assert "alive" in host.gato("cluster nodes").stdout
        assert len(host.pids("gcs_server")) == 1
        host.gato("cluster stop")
        assert host.pids() == []


SLOW = """
import os, sys, time
if any(word.endswith("dashboard/agent.py") for word in sys.orig_argv):
    time.sleep(25)
    open(os.path.join(os.path.dirname(__file__), "late"), "w").close()
"""
"""An agent that is up later than Ray waits for the ports that it chooses."""


def test_a_node_starts_whose_agents_are_slow(tmp_path: Path) -> None:
    with hosts(1, tmp_path) as (host,):
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SLOW)
        host.env["PYTHONPATH"] = f"{site}:{ROOT}"
        host.gato("cluster start --cpus 1 --gpus 0 --name busy")
        assert not (site / "late").exists()
        wait_for((site / "late").exists, 60.0)
        time.sleep(2.0)
        assert "alive" in host.gato("cluster nodes").stdout
        host.gato("cluster stop")
        assert host.pids() == []


def test_what_needs_the_files_of_a_run_says_where_they_are(machines: list[Host]) -> None:
    head, home, _ = machines
    cluster_of(machines)
    start(head, 1)
    wait_for(lambda: status(head)["tasks"]["mujoco/inverted-pendulum"]["history"])  # type: ignore[index]
    for words in ("ls debug", "stats debug", "peek 1 debug", "verify debug"):
        refused = head.gato(f"replay {words}", check=False)
        assert refused.returncode == 2
        assert f"are on home ({home.address}), in {home.work}/runs/debug" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    head.gato("stop")
    played = json.loads(head.gato("evaluate debug --episodes 2 --json").stdout)
    assert played["checkpoint"].startswith(f"{home.work}/runs/debug/checkpoints/")
    assert len(played["tasks"]["mujoco/inverted-pendulum"]["returns"]) == 2
    assert (
        played["tasks"]
        == json.loads(home.gato("evaluate debug --episodes 2 --json").stdout)["tasks"]
    )
    (log,) = (home.work / "runs/debug/evaluations").glob("step-*[0-9].jsonl")
    kept = log.read_text()
    assert len(kept.splitlines()) == 2
    more = json.loads(head.gato("evaluate debug --episodes 3 --resume --json").stdout)
    returns = more["tasks"]["mujoco/inverted-pendulum"]["returns"]
    assert returns[:2] == played["tasks"]["mujoco/inverted-pendulum"]["returns"]
    assert log.read_text().startswith(kept)
    assert len(log.read_text().splitlines()) == 3
