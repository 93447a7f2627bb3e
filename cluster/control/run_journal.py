"""Where a run's journal is: which Redis it goes to when the run starts and resumes, and who reads
it."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cluster.journal.journal import Journal
from cluster.journal.journal_file import JournalFile
from cluster.journal.redis_client import RedisAway, connect, require_redis
from cluster.journal.segments import has_lines
from cluster.monitor.fold import killed, read_summary
from cluster.monitor.format import literal
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.runs.folder import RunFolder

if TYPE_CHECKING:  # what reads a run's folder does not wait for `redis` to be imported
    import redis

    from cluster.journal.writer import JournalWriter

OWN = "own"
"""Said instead of a URL: the private server of the run."""


def redis_of_start(redis_url: str | None) -> str | None:
    """The URL that a new run is to use, after it was tried; None for its own server.

    Raises:
        ValueError: The server does not answer or refuses; the text says how to fix that.
    """
    if redis_url is None or redis_url == OWN:
        return None
    require_redis(redis_url)
    return redis_url


def redis_of_resume(folder: RunFolder, redis_url: str | None, console: Console) -> str | None:
    """The URL with which a run goes on: the one that is named, else the one that it had; None for
    its own server.

    One that it had may be away: the journal goes on in the run's folder. Call it before the run is
    resumed, because it also fetches what only Redis has of the run's journal.

    Raises:
        ValueError: The named server does not answer, or one of them refuses.
    """
    chosen = redis_of_start(redis_url)
    had = kept_url(folder)
    if redis_url is None and had is not None:
        chosen = had
        try:
            require_redis(had)
        except RedisAway as problem:
            console.print(
                f"[yellow]note:[/yellow] {literal(problem)} The run goes on; its journal waits in"
                " its folder until the server answers.",
                highlight=False,
            )
    if not has_lines(_journal_folder(folder)):
        _adopt(folder)
    if chosen is None:
        _url_file(folder).unlink(missing_ok=True)
    return chosen


@contextmanager
def open_journal(
    folder: RunFolder,
    redis_url: str | None,
    redis_port: int | None = None,
    *,
    also_at: str | None = None,
    token: str | None = None,
) -> Generator[JournalWriter]:
    """The journal of a run for its supervisor, with a Redis of its own while it lasts, or with the
    one that is named. `also_at`: an address of this machine at which its own Redis listens, too;
    `token`: see `JournalWriter`.

    Raises:
        ValueError: Another process writes the journal, or the private server does not start.
    """
    from cluster.journal.redis_server import RedisServer
    from cluster.journal.writer import JournalWriter

    run_id = folder.claim_id()
    if redis_url is not None:
        keep_url(folder, redis_url)
        with JournalWriter(
            _journal_folder(folder), run_id, server=redis_url, token=token
        ) as journal:
            yield journal
        return
    _url_file(folder).unlink(missing_ok=True)
    with (
        RedisServer.start(folder.path / "redis", port=redis_port, also_at=also_at) as server,
        JournalWriter(_journal_folder(folder), run_id, server=server, token=token) as journal,
    ):
        yield journal


@contextmanager
def journal_of(folder: RunFolder, redis_url: str | None = None) -> Generator[Journal | JournalFile]:
    """The journal of a run to be read: from the run's folder, whether its Redis answers or not, or
    from `redis_url`.

    Raises:
        ValueError: The run has no journal yet, or the Redis that has it does not answer.
    """
    files = _journal_folder(folder)
    if redis_url is None and (has_lines(files) or (files.is_dir() and folder.info().is_active)):
        reader = JournalFile(files)
        yield reader
        reader.close()
        return
    with _client_of(folder, redis_url) as client:
        yield Journal(client, _key(folder))


@contextmanager
def control_of(
    folder: RunFolder, redis_url: str | None = None, *, patience_s: float = 0.0
) -> Generator[Journal]:
    """Where an active run takes control words. `patience_s`: how long it may be away: the Redis of
    a run on a cluster ends with its supervisor, and is back with it.

    Raises:
        RedisAway: Its Redis does not answer.
    """
    from redis.exceptions import RedisError

    from cluster.journal.redis_server import find_server

    until_s = time.monotonic() + patience_s
    while True:
        try:
            url = redis_url or kept_url(folder) or find_server(folder.path / "redis")
            client = connect(url)
            break
        except RedisAway:
            if time.monotonic() >= until_s:
                raise
            time.sleep(0.5)
    with client:
        try:
            yield Journal(client, _key(folder))
        except RedisError as problem:
            raise RedisAway(
                f"the Redis of run {folder.name} does not answer ({problem}); try it again"
            ) from problem


def keep_url(folder: RunFolder, url: str) -> None:
    """Keep the URL of a run's Redis, with its password, for those who may read the owner's
    files."""
    file = _url_file(folder)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(url)
    os.replace(draft, file)


def kept_url(folder: RunFolder) -> str | None:
    """The URL of the Redis that a run was last carried out with; None if it was its own."""
    file = _url_file(folder)
    return file.read_text().strip() if file.is_file() else None


@contextmanager
def _client_of(folder: RunFolder, redis_url: str | None = None) -> Generator[redis.Redis]:
    """A client of the server that has a run's stream; of a private one that is started for it if
    the run has ended."""
    from cluster.journal.redis_server import RedisServer, find_server

    url = redis_url or kept_url(folder)
    if url is None and folder.info().is_active:
        url = find_server(folder.path / "redis")
    if url is not None:
        with connect(url) as client:
            yield client
        return
    if not (folder.path / "redis").is_dir():
        raise ValueError(f"run {folder.name} never got as far as a journal; start it again")
    with RedisServer.start(folder.path / "redis") as server, connect(server.url) as client:
        yield client


def _adopt(folder: RunFolder) -> None:
    """Fetch the journal of a run that was made before journals lay in the run's folder, or that has
    lost it there."""
    from cluster.journal.adopt import adopt

    if kept_url(folder) is None and not (folder.path / "redis").is_dir():
        return
    try:
        with _client_of(folder) as client:
            adopt(client, _key(folder), _journal_folder(folder))
    except RedisAway as problem:
        raise ValueError(
            f"the journal of run {folder.name} is only in its Redis so far; start that first:"
            f" {problem}"
        ) from problem


def _key(folder: RunFolder) -> str:
    """What names the run's keys in Redis: its name, in runs made before there were ids."""
    return folder.info().id or folder.name


def _journal_folder(folder: RunFolder) -> Path:
    return folder.path / "journal"


def _url_file(folder: RunFolder) -> Path:
    return folder.path / "redis-url.txt"


def own_summary(folder: RunFolder, redis_url: str | None = None) -> Summary:
    """The status of a run, from its journal; `dead` if its process, on this machine, is gone.

    Raises:
        ValueError: It has no journal, or its Redis does not answer.
    """
    with journal_of(folder, redis_url) as journal:
        summary = read_summary(journal, folder.name, read_scales(folder.path))
    if folder.home is not None or folder.info().state != "dead":
        return summary
    return killed(summary)
