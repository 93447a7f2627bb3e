"""A run has one journal, wherever its Redis is and whether that answers or not."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster.control import lifecycle
from cluster.control.run_control import ask_to_stop, summary_of
from cluster.control.run_journal import (
    control_of,
    journal_of,
    kept_url,
    open_journal,
    redis_of_resume,
)
from cluster.journal.codec import encode
from cluster.journal.journal import Journal
from cluster.journal.records import Event
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer
from cluster.journal.writer import JournalWriter
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from tests.cluster.wait import until

AWAY = "redis://:s3cret@127.0.0.1:1/0"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer.start(tmp_path / "shared") as server:
        yield server


def new_run(name: str = "demo", root: Path | None = None) -> RunFolder:
    folder = RunFolder.create(replace(RUNS["debug"], name=name), root=root)
    (folder.path / "scales.json").write_text("{}")
    return folder


@contextmanager
def carried_out(folder: RunFolder, redis_url: str | None) -> Iterator[JournalWriter]:
    """The run as its supervisor has it, from here to its end."""
    with open_journal(folder, redis_url) as journal:
        folder.set_state("running")
        journal.append(Event(kind="resumed" if journal.last_number else "started", text=""))
        journal.next_epoch()
        yield journal
        journal.append(Event(kind="stopped", text=""))
    folder.set_state("stopped")


@contextmanager
def resumed(folder: RunFolder, redis_url: str | None) -> Iterator[JournalWriter]:
    """The run after `gato resume --redis REDIS_URL`."""
    url = redis_of_resume(folder, redis_url, Console(file=io.StringIO()))
    with carried_out(folder, url) as journal:
        yield journal


def kinds(folder: RunFolder, redis_url: str | None = None) -> list[str]:
    with journal_of(folder, redis_url) as journal:
        return [e.record.kind for e in journal.read() if isinstance(e.record, Event)]


def is_steered(folder: RunFolder, journal: JournalWriter) -> None:
    """What `gato stop` says arrives, and `gato status` shows this supervisor's journal."""
    ask_to_stop(folder)
    assert until(journal.take_control) == [("stop", "")]
    with journal_of(folder) as read:
        assert len(read.read()) == journal.last_number


def test_a_run_goes_on_with_the_redis_it_had_or_moves_to_another(
    root: Path, shared: RedisServer
) -> None:
    folder = new_run()
    with carried_out(folder, shared.url) as journal:
        is_steered(folder, journal)
    for redis_url, at_last in (
        (None, "shared"), ("own", "own"), (None, "own"), (shared.url, "shared"), (None, "shared"),
    ):  # fmt: skip
        with resumed(folder, redis_url) as journal:
            assert (kept_url(folder) == shared.url) == (at_last == "shared")
            is_steered(folder, journal)
            until(lambda: journal.status().waiting == 0)
            with control_of(folder) as where:
                assert len(where.read()) == journal.last_number
    assert kinds(folder) == kinds(folder, shared.url) == ["started", "stopped"] + [
        "resumed", "stopped",
    ] * 5  # fmt: skip
    with resumed(folder, None) as journal:
        assert journal.next_epoch() == 8, "one a start before, and the one of this start"


def test_a_run_whose_redis_is_gone_is_shown_and_goes_on(root: Path) -> None:
    folder = new_run()
    with RedisServer.start(root / "elsewhere") as server, carried_out(folder, server.url):
        pass
    shutil.rmtree(root / "elsewhere")
    assert summary_of("demo").state == "stopped"
    said = io.StringIO()
    url = redis_of_resume(folder, None, Console(file=said, width=400))
    assert "does not answer" in said.getvalue()
    assert "The run goes on" in said.getvalue()
    with carried_out(folder, url) as journal:
        assert until(lambda: journal.status().away_since_s)
        assert summary_of("demo").state == "running"
        assert journal.next_epoch() == 3
    assert summary_of("demo").state == "stopped"
    assert not (folder.path / "redis").exists(), "no server was started to read it"
    with pytest.raises(ValueError, match="does not answer"):
        redis_of_resume(folder, AWAY, Console(file=said))


def test_two_runs_of_one_name_on_one_redis_share_nothing(root: Path, shared: RedisServer) -> None:
    ann, eve = new_run(root=root / "ann"), new_run(root=root / "eve")
    with carried_out(ann, shared.url) as of_ann, carried_out(eve, shared.url) as of_eve:
        with control_of(ann) as words:
            words.post_control("stop")
        assert until(of_ann.take_control) == [("stop", "")]
        assert of_ann.next_epoch() == of_eve.next_epoch() == 2
        assert of_eve.take_control() == []
    assert kinds(eve, shared.url) == ["started", "stopped"]


def test_a_copy_of_a_run_has_a_journal_of_its_own(root: Path, shared: RedisServer) -> None:
    folder = new_run()
    with carried_out(folder, shared.url):
        pass
    shutil.copytree(folder.path, folder.root / "copy")
    copy = RunFolder(folder.root, "copy")
    with resumed(copy, None):
        pass
    assert kinds(folder, shared.url) == ["started", "stopped"]
    assert kinds(copy, shared.url) == kinds(copy) == ["started", "stopped", "resumed", "stopped"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (AWAY, "does not answer"),
        ("redis://:wr0ng@127.0.0.1:{port}/0", "refuses the password"),
        ("nonsense", "not a Redis URL"),
    ],
)
def test_a_start_with_a_wrong_url_leaves_no_folder(
    root: Path, shared: RedisServer, url: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        lifecycle.start(
            RUNS["debug"],
            address=None,
            redis_url=url.format(port=shared.endpoint.port),
            redis_port=None,
            detach=True,
            console=Console(quiet=True),
        )
    assert list((root / "runs").iterdir()) == []


def old_run(server_url: str) -> RunFolder:
    """A run as it was before runs had ids and journals of their own."""
    folder = new_run("old")
    file = folder.path / "run.json"
    entry = json.loads(file.read_text())
    del entry["id"]
    file.write_text(json.dumps(entry))
    with connect(server_url) as client:
        for kind in ("started", "stopped"):
            text = encode(Event(kind=kind, text=""), time_s=1.0)
            client.xadd("gato:old:journal", {"entry": text})
        client.set("gato:old:epoch", 4)
    folder.set_state("stopped")
    return folder


@pytest.mark.parametrize("choice", [None, "own", "other"])
def test_an_old_run_is_read_and_goes_on_with_all_its_records(
    root: Path, shared: RedisServer, choice: str | None
) -> None:
    folder = RunFolder(root / "runs", "old")
    if choice == "own":  # it had a private server
        with RedisServer.start(folder.root / "old-redis") as server:
            old_run(server.url)
        (folder.root / "old-redis").rename(folder.path / "redis")
        (folder.path / "redis" / "redis.json").unlink()
    else:
        old_run(shared.url)
        (folder.path / "redis-url.txt").write_text(shared.url)
    assert kinds(folder) == ["started", "stopped"]
    with RedisServer.start(root / "other") as other:
        with resumed(folder, other.url if choice == "other" else choice) as journal:
            assert journal.next_epoch() == 6
            is_steered(folder, journal)
        assert kinds(folder) == ["started", "stopped", "resumed", "stopped"]
    assert folder.info().id


def test_an_old_run_whose_redis_is_away_is_not_resumed_without_its_records(root: Path) -> None:
    with RedisServer.start(root / "elsewhere") as server:
        folder = old_run(server.url)
        (folder.path / "redis-url.txt").write_text(server.url)
    with pytest.raises(ValueError, match="only in its Redis so far; start that first"):
        redis_of_resume(folder, None, Console(quiet=True))
    with connect_again(root / "elsewhere"), resumed(folder, None) as journal:
        assert journal.last_number == 3


def connect_again(folder: Path) -> RedisServer:
    return RedisServer.start(folder)


def test_a_journal_that_the_folder_has_lost_comes_back_from_redis(
    root: Path, shared: RedisServer
) -> None:
    folder = new_run()
    with carried_out(folder, shared.url):
        pass
    shutil.rmtree(folder.path / "journal")
    with resumed(folder, None) as journal:
        assert journal.next_epoch() == 3
    assert (
        kinds(folder) == kinds(folder, shared.url) == ["started", "stopped", "resumed", "stopped"]
    )


def test_a_run_is_stopped_though_its_redis_does_not_answer(root: Path) -> None:
    folder = new_run()
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from cluster.control.run_journal import open_journal\n"
        "from cluster.runs.folder import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1]), 'demo')\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "with open_journal(folder, sys.argv[2]):\n"
        "    folder.set_state('running'); print('up', flush=True); signal.pause()"
    )
    run = [sys.executable, "-c", code, str(folder.root), AWAY]
    with subprocess.Popen(run, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        ask_to_stop(folder)
        assert supervisor.wait(30) == 7


def test_a_run_that_never_had_a_journal_says_so(root: Path) -> None:
    folder = new_run()
    folder.set_state("failed", reason="no Ray")
    with pytest.raises(ValueError, match="never got as far as a journal"), journal_of(folder):
        pass


def test_a_journal_is_read_at_its_redis_where_that_is_asked_for(
    root: Path, shared: RedisServer
) -> None:
    folder = new_run()
    with carried_out(folder, shared.url) as journal:
        until(lambda: journal.status().waiting == 0)
        with journal_of(folder, shared.url) as read:
            assert isinstance(read, Journal)
            assert len(read.read()) == 1
