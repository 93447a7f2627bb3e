"""The journal of a run on this machine, whether it goes on or has ended."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from cluster.journal.journal import Journal
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer, find_server
from cluster.monitor.fold import read_summary
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.runs.folder import RunFolder


@contextmanager
def journal_of(folder: RunFolder, redis_url: str | None = None) -> Generator[Journal]:
    """The journal of a run: from its live server, or from a private one on its folder while it is
    read.

    Raises:
        ValueError: The run has no journal yet.
    """
    named = folder.path / "redis-url.txt"
    url = redis_url or (named.read_text().strip() if named.is_file() else None)
    if url is None and folder.info().is_active:
        url = find_server(folder.path / "redis")
    if url is not None:
        yield Journal(connect(url), folder.name)
        return
    if not (folder.path / "redis").is_dir():
        raise ValueError(f"run {folder.name} never got as far as a journal; start it again")
    with RedisServer.start(folder.path / "redis") as server:
        yield Journal(connect(server.url), folder.name)


def own_summary(folder: RunFolder, redis_url: str | None = None) -> Summary:
    """The status of a run, from its journal. Raises ValueError if it does not answer."""
    with journal_of(folder, redis_url) as journal:
        return read_summary(journal, folder.name, read_scales(folder.path))
