"""The private server keeps what it acknowledged, guards its folder and its door, and does not
outlive its parent."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.journal import redis_server
from cluster.journal.redis_client import connect, require_redis, without_password
from cluster.journal.redis_endpoint import read_endpoint
from cluster.journal.redis_server import RedisServer, find_server


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_acknowledged_write_survives_kill_nine(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path)
    with connect(server.url) as client:
        for number in range(200):
            client.xadd("entries", {"number": str(number)})
        os.kill(server.pid, signal.SIGKILL)
        server.kill()
        with RedisServer.start(tmp_path) as again:
            assert [row[1]["number"] for row in client.xrange("entries")] == [
                str(n) for n in range(200)
            ]
            assert again.url == server.url, "clients find it again by themselves"


def test_a_stopped_server_starts_again_with_its_data(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path) as server, connect(server.url) as client:
        client.set("key", "value")
    assert not server.is_alive()
    server.stop()
    with RedisServer.start(tmp_path) as server, connect(server.url) as client:
        assert client.get("key") == "value"


def test_the_endpoint_is_for_the_owner_only(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path) as server:
        assert stat.S_IMODE((tmp_path / "redis.json").stat().st_mode) == 0o600
        assert find_server(tmp_path) == server.url
        password = server.endpoint.password
        assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert not [file for file in tmp_path.glob("*.log") if password in file.read_text()]


def test_only_loopback_is_listened_on(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path) as server, connect(server.url) as client:
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} on 127.0.0.1 is taken; give another"):
            RedisServer.start(tmp_path, port=port)
    with RedisServer.start(tmp_path, port=port) as server:
        assert server.endpoint.port == port


def test_a_number_that_is_no_port_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="70000 is not a port"):
        RedisServer.start(tmp_path, port=70000)


def test_two_servers_never_run_on_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.journal.file_lock.LOCK_WAIT_S", 0.05)
    with RedisServer.start(tmp_path) as server:
        with pytest.raises(
            ValueError, match=rf"pid {server.pid}, .* already runs on .*; stop that run"
        ):
            RedisServer.start(tmp_path)
        assert connect(server.url).ping()


def test_a_wrong_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path) as server:
        with pytest.raises(ValueError, match="refuses the password") as refusal:
            connect(f"redis://:wr0ng@127.0.0.1:{server.endpoint.port}/0")
        assert "wr0ng" not in str(refusal.value)
        with pytest.raises(ValueError, match="refuses the password"):
            connect(f"redis://127.0.0.1:{server.endpoint.port}/0")


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    server = RedisServer.start(tmp_path)
    server.kill()
    with pytest.raises(ValueError, match=r"redis://\*\*\*@127.0.0.1:\d+/0 does not answer"):
        connect(server.url)
    with pytest.raises(ValueError, match="does not answer"):
        find_server(tmp_path)


@pytest.mark.parametrize("url", ["http://there", "nonsense", "redis://h:9x"])
def test_what_is_no_redis_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a Redis URL; write redis://"):
        connect(url)


@pytest.mark.report("aio-libs-abandoned/aioredis-py#399")
@pytest.mark.parametrize("second", "@#/?:%[ ")
@pytest.mark.parametrize("first", "@#/?:%[ ")
@pytest.mark.parametrize(
    "form",
    [
        "redis://:{}@127.0.0.1:1/0",
        "redis://user:{}@127.0.0.1:1",
        "rediss://:{}@127.0.0.1:1",
        "{}@127.0.0.1:1",
        "redis:{}@127.0.0.1:1",
        "unix://:{}@/tmp/no-such-socket",
        "redis://127.0.0.1:1?password={}",
    ],
)
def test_no_part_of_a_password_is_shown_whatever_it_holds(
    form: str, first: str, second: str
) -> None:
    with pytest.raises(ValueError) as caught:
        connect(form.format(f"Xqx{first}Zkz{second}Wvw"))
    said = str(caught.value)
    assert not [part for part in ("Xqx", "Zkz", "Wvw") if part in said], said
    assert "%40 %23 %2F" in said or "does not answer" in said


def test_a_url_is_shown_with_its_host_where_there_is_no_doubt_about_it() -> None:
    assert without_password("redis://:se%40cret@10.0.0.1:6379/0") == "redis://***@10.0.0.1:6379/0"
    assert (
        without_password("redis://:se@cret@host-1.there:6379/0")
        == "redis://***@host-1.there:6379/0"
    )
    assert (
        without_password("rediss://user:pw@[::1]:6379/0?ssl_cert_reqs=none")
        == "rediss://***@[::1]:6379/0"
    )
    assert without_password("redis://localhost") == "redis://localhost"
    assert without_password("redis://:se/cret@host:6379/0") is None


@pytest.mark.report("redis/redis-py#1171", "cameronmaske/celery-once#135")
def test_a_password_of_such_characters_is_taken_where_they_are_encoded(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path) as server:
        admin = connect(server.url)
        admin.config_set("requirepass", "a@b#c/d?e%f")
        url = f"redis://:a%40b%23c%2Fd%3Fe%25f@127.0.0.1:{server.endpoint.port}/0"
        assert connect(url).ping()
        with pytest.raises(
            ValueError, match=r"redis://\*\*\*@127.* refuses the password; .*%40 %23 %2F"
        ):
            connect(f"redis://:a@b@127.0.0.1:{server.endpoint.port}/0")


def test_a_damaged_endpoint_file_shows_no_part_of_a_password(tmp_path: Path) -> None:
    (tmp_path / "redis.json").write_text('{"url": "redis://:Xqx/Zkz@127.0.0.1:1/0", "pid": null}')
    with pytest.raises(ValueError, match="must hold url and pid") as caught:
        read_endpoint(tmp_path)
    assert not [part for part in ("Xqx", "Zkz") if part in str(caught.value)]


def test_no_server_to_be_found_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Redis server is running"):
        find_server(tmp_path)
    with RedisServer.start(tmp_path):
        pass
    with pytest.raises(ValueError, match="no Redis server is running"):
        find_server(tmp_path)


def test_a_damaged_endpoint_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "redis.json").write_text("{")
    with pytest.raises(ValueError, match=r"redis\.json is damaged"):
        read_endpoint(tmp_path)


def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, threading; from cluster.journal.redis_server import"
        " RedisServer\nthread = threading.Thread(target=lambda:"
        " print(RedisServer.start(sys.argv[1]).pid, flush=True))\nthread.start(); thread.join();"
        " sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) > 0
        assert connect(find_server(tmp_path)).ping(), "it outlives the thread that started it"
        parent.kill()
    # The folder is free as soon as the first server has ended, and a start waits for that.
    with RedisServer.start(tmp_path) as server:
        assert connect(server.url).ping()


def test_a_password_is_read_from_the_file_that_the_url_names(tmp_path: Path) -> None:
    file = tmp_path / "password"
    with RedisServer.start(tmp_path / "redis") as server:
        admin = connect(server.url)
        admin.config_set("requirepass", "a@b#c/d")
        where = f"127.0.0.1:{server.endpoint.port}/0"
        url = f"redis://{where}?password_file={file}"
        with pytest.raises(ValueError, match="cannot read the password in"):
            connect(url)
        file.write_text("")
        with pytest.raises(ValueError, match="is empty; write the password"):
            connect(url)
        file.write_text("a@b#c/d\n")
        assert connect(url).ping()
        assert connect(f"{url}&health_check_interval=5").ping()
        require_redis(url)
        with pytest.raises(ValueError, match="stands for the password"):
            connect(f"redis://:Xqx@{where}?password_file={file}")
        file.write_text("Zkz")
        with pytest.raises(ValueError, match="refuses the password") as caught:
            connect(url)
        assert "Zkz" not in str(caught.value)


def test_a_server_that_is_killed_while_it_starts_is_started_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    wait = redis_server._await_ready
    times = 1

    def kill_first(server: RedisServer, process: subprocess.Popen[bytes]) -> None:
        started.append(process.pid)
        if len(started) <= times:
            process.kill()
            process.wait()
        wait(server, process)

    monkeypatch.setattr(redis_server, "_await_ready", kill_first)
    with RedisServer.start(tmp_path / "once") as server:
        assert server.pid == started[1]
    times = 4
    with pytest.raises(ValueError, match="ended with status -9"):
        RedisServer.start(tmp_path / "twice")
    assert len(started) == 4
