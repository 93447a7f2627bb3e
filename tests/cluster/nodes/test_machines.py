"""Several machines: network namespaces with addresses, homes and files of their own."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import ROOT, Host, hosts, missing, wait_for

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing() or "it can"),
    pytest.mark.timeout(1200),
]


def listening(host: Host) -> set[str]:
    """The addresses at which processes of a machine listen."""
    done = host.run("ss -Hltn")
    return {line.split()[3].rpartition(":")[0].strip("[]") for line in done.stdout.splitlines()}


def status(host: Host) -> dict[str, object]:
    return json.loads(host.gato("watch --once --json").stdout.strip().splitlines()[-1])


def events(host: Host) -> list[str]:
    found = status(host)["events"]
    assert isinstance(found, list)
    return [f"{event['kind']}: {event['text']}" for event in found]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Host]]:
    with hosts(3, tmp_path) as made:
        yield made


def test_machines_join_with_the_token_of_the_head_and_with_no_other(machines: list[Host]) -> None:
    head, other, _ = machines
    refused = other.gato(f"cluster join {head.address}:6379", check=False)
    assert refused.returncode == 2
    assert "no Ray answers" in refused.stderr
    said = head.gato(f"cluster start --host {head.address} --cpus 1 --gpus 0 --name head").stdout
    join = f"cluster join {head.address}:6379"
    assert f"gato {join}" in said
    token_file = head.home / ".ray/auth_token"
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600

    for words, typed, expected in (
        ("", None, "this machine has no token"),
        ("--token-file -", "short", "is no token"),
        ("--token-file -", "f" * 64, "refuses the token"),
        ("--token-file nowhere", None, "cannot read the token"),
    ):
        refused = other.gato(f"{join} {words}", input=typed, check=False)
        assert refused.returncode == 2
        assert expected in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    taken = head.gato(f"cluster start --host {head.address}", check=False)
    assert "is a node of the cluster" in taken.stderr

    token = token_file.read_text()
    other.gato(f"{join} --cpus 2 --gpus 1 --name second --token-file -", input=token)
    again = other.gato(join, check=False)
    assert "is a node of the cluster" in again.stderr
    for host in (head, other):
        listed = host.gato("cluster nodes").stdout
        assert re.search(r"head \(head\) +\S+ +alive +0 of 1 +-", listed)
        assert re.search(r"second +\S+ +alive +0 of 2 +0 of 1", listed)

    assert "is the head" in head.gato("cluster drain head", check=False).stderr
    assert "no node 'third'" in head.gato("cluster drain third", check=False).stderr
    head.gato("cluster drain second --within 5")
    wait_for(lambda: re.search(r"second +\S+ +dead", head.gato("cluster nodes").stdout), 60.0)
    other.gato(f"{join} --cpus 1 --name second")  # it still has the token
    other.gato("cluster stop")
    head.gato("cluster stop")
    assert [host.pids() for host in (head, other)] == [[], []]


def test_a_run_on_one_machine_listens_on_loopback_only(tmp_path: Path) -> None:
    with hosts(1, tmp_path) as (host,):
        host.gato("start debug --updates 100000 --detach")
        try:
            assert listening(host) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
            assert len(listening(host)) >= 1
        finally:
            host.gato("stop")
        assert stat.S_IMODE((host.work / "runs/debug").stat().st_mode) == 0o700
        host.gato("cluster start --cpus 1 --gpus 0")
        assert listening(host) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.slow
def test_a_run_on_three_machines_survives_the_loss_of_each_part(machines: list[Host]) -> None:
    head, home, third = machines
    head.gato(f"cluster start --host {head.address} --cpus 1 --gpus 0 --name head")
    token = (head.home / ".ray/auth_token").read_text()
    join = f"cluster join {head.address}:6379 --token-file -"
    home.gato(f"{join} --cpus 2 --gpus 1 --name home", input=token)
    third.gato(f"{join} --cpus 1 --name third", input=token)
    begun = head.gato(f"start debug --address {head.address}:6379 --updates 200000 --detach")
    assert "goes on at home" in begun.stdout  # it has the GPU

    assert "3 of 6 play, 3 wait: the cluster has 4 cores" in head.gato("scale 6").stdout
    wait_for(lambda: len(status(head)["workers"]) == 3)  # type: ignore[arg-type]

    assert home.kill("ray::LearnerActor") == 1
    wait_for(lambda: str(status(head)["learner"]["version"]).startswith("2."))  # type: ignore[index]
    assert sum(line.startswith("learner died") for line in events(head)) == 1

    assert home.kill("ray::SupervisorActor") == 1
    wait_for(lambda: any(line.startswith("supervisor back") for line in events(head)))
    step = status(head)["learner"]["step"]  # type: ignore[index]
    wait_for(lambda: status(head)["learner"]["step"] > step)  # type: ignore[index]
    assert str(status(head)["learner"]["version"]).startswith("2.")  # type: ignore[index]

    third.kill()
    took_s = wait_for(lambda: any(line.startswith("worker died") for line in events(head)), 60.0)
    assert took_s < 30.0
    wait_for(lambda: "dead" in head.gato("cluster nodes").stdout)
    assert "goes on with 1 workers" in head.gato("scale 1").stdout

    head.gato("stop")
    assert status(head)["state"] == "stopped"  # from its home: its own Redis has ended
    head.gato("resume --updates 200010 --detach")
    wait_for(lambda: status(home)["state"] == "running")
    home.gato("stop")
    stored = home.gato("replay verify debug").stdout
    assert "episodes are whole" in stored
    kept = (home.work / "runs/debug/config.yaml").read_text()
    assert "num_workers: 1" in kept
    assert "num_updates: 200010" in kept


@pytest.mark.slow
def test_the_lines_of_the_readme_for_several_machines_work_as_they_stand(
    machines: list[Host],
) -> None:
    head, other, _ = machines
    text = (ROOT / "README.md").read_text()
    lines = [
        line.split("#")[0].strip().removeprefix("gato ")
        for line in text.splitlines()
        if line.startswith(("gato cluster", "gato start demo --address"))
    ]
    assert [line.split()[:2] for line in lines] == [
        ["cluster", "start"],
        ["cluster", "join"],
        ["start", "demo"],
    ]
    start, join, run = (line.replace("192.168.1.10", head.address) for line in lines)
    head.gato(start)
    (other.home / ".ray").mkdir()
    (other.home / ".ray/auth_token").write_text((head.home / ".ray/auth_token").read_text())
    other.gato(join)
    head.gato(run.replace("demo", "debug") + " --updates 200 --detach")
    wait_for(lambda: status(head)["state"] == "finished", 300.0)
