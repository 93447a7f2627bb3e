"""Whatever happens to Redis or to the supervisor, the stream ends up as what was appended: in
order, once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from cluster.journal import delivery
from cluster.journal.journal import Journal
from cluster.journal.records import Event
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer
from cluster.journal.segment_writer import SegmentWriter
from cluster.journal.writer import JournalWriter
from tests.cluster.wait import until


class Numbers:
    """Appends 1, 2, 3... from a thread until it is left."""

    def __init__(self, writer: JournalWriter) -> None:
        self.count = 0
        self.longest_s = 0.0
        self._writer = writer
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._append)

    def _append(self) -> None:
        while not self._ended.is_set():
            began_s = time.monotonic()
            self._writer.append(Event(kind="n", text=str(self.count + 1)))
            self._writer.take_control()
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            self.count += 1
            time.sleep(0.0005)

    def __enter__(self) -> Numbers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def events(client: redis.Redis, run_id: str = "demo") -> list[Event]:
    journal, last, found = Journal(client, run_id), "0-0", list[Event]()
    while entries := journal.read(last, count=10_000):
        last = entries[-1].id
        found += [entry.record for entry in entries if isinstance(entry.record, Event)]
    return found


def numbers(client: redis.Redis, run_id: str = "demo") -> list[int]:
    return [int(event.text) for event in events(client, run_id) if event.kind == "n"]


def killed(server: RedisServer) -> RedisServer:
    """The server after kill -9 and a second in which nobody answers."""
    os.kill(server.pid, signal.SIGKILL)
    server.kill()
    time.sleep(1.0)
    return RedisServer.start(server.folder)


def wiped(server: RedisServer) -> RedisServer:
    """A server in its place that has nothing."""
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    return RedisServer.start(server.folder)


def flushed(server: RedisServer) -> RedisServer:
    """The server, which loses all data and no connection."""
    with connect(server.url) as client:
        client.flushall()
    return server


def frozen(server: RedisServer) -> RedisServer:
    """The server after it hung for longer than its clients wait."""
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(4.0)
    os.kill(server.pid, signal.SIGCONT)
    return server


def behind(server: RedisServer) -> RedisServer:
    """A server in its place that lacks what came last, as a replica may after a failover."""
    kept = server.folder.parent / "kept"
    server.stop()
    shutil.copytree(server.folder, kept)
    server = RedisServer.start(server.folder)
    time.sleep(1.0)
    server.kill()
    shutil.rmtree(server.folder)
    kept.rename(server.folder)
    return RedisServer.start(server.folder)


@pytest.mark.parametrize("outage", [killed, wiped, flushed, frozen, behind])
def test_the_stream_is_what_was_appended_after_an_outage_in_the_middle(
    tmp_path: Path, outage: Callable[[RedisServer], RedisServer]
) -> None:
    server = RedisServer.start(tmp_path / "redis")
    with JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer:
        with Numbers(writer) as appended:
            until(lambda: appended.count > 200)
            server = outage(server)
            count = appended.count
            until(lambda: appended.count > count + 200)
        until(lambda: writer.status().waiting == 0 and writer.status().away_since_s is None)
        with server, connect(server.url) as client:
            assert numbers(client) == list(range(1, appended.count + 1))
            said = [event.kind for event in events(client) if event.kind != "n"]
            assert said == (["journal away", "journal caught up"] if outage is frozen else [])
    assert appended.longest_s < 1.0, "no append waited for Redis"


def test_a_supervisor_that_is_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; from itertools import count\n"
        "from cluster.journal.records import Event\n"
        "from cluster.journal.writer import JournalWriter\n"
        "journal = JournalWriter(Path(sys.argv[1]), 'demo', server=sys.argv[2])\n"
        "for n in count(journal.last_number + 1):\n"
        "    journal.append(Event(kind='n', text=str(n))); print(n, flush=True)"
    )
    with RedisServer.start(tmp_path / "redis") as server, connect(server.url) as client:
        for lines in (700, 1500):
            run = [sys.executable, "-c", code, str(tmp_path / "journal"), server.url]
            with subprocess.Popen(run, stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                said = [writer.stdout.readline() for _ in range(lines)][-1]
                os.kill(writer.pid, signal.SIGKILL)
                said = [said, *writer.stdout.read().split(b"\n")[:-1]][-1]
        with JournalWriter(tmp_path / "journal", "demo", server=server.url) as journal:
            until(lambda: journal.status().waiting == 0)
            found = numbers(client)
            assert found == list(range(1, journal.last_number + 1))
            assert len(found) >= int(said)


def test_a_run_goes_on_without_its_server_and_moves_to_another(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with JournalWriter(journal, "demo", server="redis://127.0.0.1:1/0") as writer:
        for number in range(1, 2001):
            writer.append(Event(kind="n", text=str(number)))
        status = until(lambda: (found := writer.status()).away_since_s and found)
        assert status.waiting == 2000
        assert "Connection refused" in status.text()
        assert writer.take_control() == []
    for folder in ("one", "two", "one"):
        with (
            RedisServer.start(tmp_path / folder) as server,
            JournalWriter(journal, "demo", server=server.url) as writer,
            connect(server.url) as client,
        ):
            number += 1
            writer.append(Event(kind="n", text=str(number)))
            until(lambda: writer.status().waiting == 0)
            assert numbers(client) == list(range(1, number + 1))


def test_a_wiped_server_gets_what_the_folder_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"max_entries": 800, "max_bytes": 1 << 20}
    monkeypatch.setattr(SegmentWriter.__init__, "__kwdefaults__", limits)
    with (
        RedisServer.start(tmp_path / "redis") as server,
        JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer,
        connect(server.url) as client,
    ):
        for number in range(1, 3001):
            writer.append(Event(kind="n", text=str(number)))
        until(lambda: writer.status().waiting == 0)
        client.flushall()
        until(lambda: numbers(client)[-1:] == [3000])
        found = numbers(client)
        assert found == list(range(found[0], 3001))
        assert 700 <= len(found) <= 800


def test_a_stream_of_another_file_is_set_aside(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path / "redis") as server, connect(server.url) as client:
        for folder, count in (("lost", 30), ("other", 10), ("longer", 40)):
            with JournalWriter(tmp_path / folder, "demo", server=server.url) as writer:
                for number in range(1, count + 1):
                    writer.append(Event(kind="n", text=str(number)))
                until(lambda: writer.status().waiting == 0)
                assert [event.time_s for event in events(client)] == [
                    entry.time_s for entry in writer.reader().read()
                ]
            aside = client.xlen("gato:demo:journal:aside") if folder != "lost" else 0
            assert aside == {"lost": 0, "other": 30, "longer": 10}[folder]


def test_words_are_obeyed_once_though_the_server_is_wiped_or_its_clock_goes_back(
    tmp_path: Path,
) -> None:
    server = RedisServer.start(tmp_path / "redis")
    with JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer:
        writer.next_epoch()
        with connect(server.url) as client:
            Journal(client, "demo").post_control("scale", 1)
            kept = client.xrange("gato:demo:control")
            assert until(writer.take_control) == [("scale", "1")]
        server = wiped(server)
        with server, connect(server.url) as client:
            until(lambda: client.get("gato:demo:supervisor"))
            for row_id, row in kept:  # a backup that brings obeyed words back
                client.xadd("gato:demo:control", row, id=row_id)
            until(lambda: not client.xlen("gato:demo:control"))
            client.delete("gato:demo:control")
            client.xadd("gato:demo:control", {"word": "stop", "value": ""}, id="1-0")
            assert until(writer.take_control) == [("stop", "")]
            Journal(client, "demo").post_control("scale", 2)
            assert until(writer.take_control) == [("scale", "2")]


def test_a_private_server_that_is_killed_is_started_again(tmp_path: Path) -> None:
    with (
        RedisServer.start(tmp_path / "redis") as server,
        JournalWriter(tmp_path / "journal", "demo", server=server) as writer,
        connect(server.url) as client,
    ):
        with Numbers(writer) as appended:
            for _ in range(2):
                pid, count, url = server.pid, appended.count, server.url
                os.kill(pid, signal.SIGKILL)
                until(lambda: server.pid != pid and server.is_alive())  # noqa: B023
                until(lambda: appended.count > count + 200)  # noqa: B023
                assert server.url == url
        until(lambda: writer.status().waiting == 0)
        assert numbers(client) == list(range(1, appended.count + 1))


def test_a_private_server_that_hangs_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "HUNG_AFTER_S", 3.0)
    with (
        RedisServer.start(tmp_path / "redis") as server,
        JournalWriter(tmp_path / "journal", "demo", server=server) as writer,
    ):
        writer.append(Event(kind="n", text="1"))
        until(lambda: writer.status().waiting == 0)
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        writer.append(Event(kind="n", text="2"))
        until(lambda: server.pid != pid)
        until(lambda: writer.status().waiting == 0 and writer.status().away_since_s is None)
        with connect(server.url) as client:
            assert [event.kind for event in events(client)] == [
                "n", "n", "journal away", "journal caught up",
            ]  # fmt: skip


def test_a_full_disk_is_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, is_full = os.write, True

    def write_some(descriptor: int, data: bytes) -> int:
        """A disk that takes half of a line and no more."""
        return write(descriptor, data[: len(data) // 2] if is_full else data)

    with (
        RedisServer.start(tmp_path / "redis") as server,
        JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer,
    ):
        writer.append(Event(kind="n", text="1"))
        monkeypatch.setattr(os, "write", write_some)
        for number in ("2", "3"):
            writer.append(Event(kind="n", text=number))
        assert writer.status().unwritten == 2
        assert "2 records found no space on the disk" in writer.status().text()
        is_full = False
        writer.append(Event(kind="n", text="4"))
        until(lambda: writer.status().waiting == 0)
        with connect(server.url) as client:
            assert numbers(client) == [1, 4]
            lost = [event.text for event in events(client) if event.kind == "journal lost"]
        assert len(lost) == 1
        assert lost[0].startswith("2 records since")
        assert writer.status().unwritten == 0


def test_lines_that_are_damaged_hold_nothing_up(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path / "journal"):
        pass
    with JournalWriter(tmp_path / "journal", "demo", server="redis://127.0.0.1:1/0") as writer:
        for number in range(1, 10):
            writer.append(Event(kind="n", text=str(number)))
    file = tmp_path / "journal" / "000000000001.log"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:4], b"x" * 20 + b"\n", *lines[5:]]))
    with (
        RedisServer.start(tmp_path / "redis") as server,
        JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer,
        connect(server.url) as client,
    ):
        until(lambda: writer.status().waiting == 0)
        assert numbers(client) == [1, 2, 3, 4, 6, 7, 8, 9]
