"""Look at a run and steer it from another process: its journal, status, workers, roles and pace."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from cluster.journal.journal import ControlWord, Journal
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer, find_server
from cluster.monitor.fold import read_summary
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.monitor.watch import ENDED
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder, ShownState, find_run

STOP_TIMEOUT_S = 120.0
"""A learner saves before it stops."""


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


def summary_of(run: str | None, *, redis_url: str | None = None) -> Summary:
    """The status of a run, or its last status if it has ended."""
    folder = find_run(run)
    with journal_of(folder, redis_url) as journal:
        return read_summary(journal, folder.name, read_scales(folder.path))


def state_of(folder: RunFolder) -> ShownState:
    """How a run stands; for one whose home is elsewhere, as its journal says.

    Raises:
        ValueError: The journal of a run elsewhere does not answer.
    """
    info, home = folder.info(), folder.home
    if home is None or home.is_here or not info.is_active:
        return info.state
    try:
        with journal_of(folder) as journal:
            summary = read_summary(journal, folder.name, read_scales(folder.path))
    except ValueError as problem:
        raise ValueError(
            f"the journal of run {folder.name} at {home.node} ({home.host}) does not answer"
            f" ({problem}); if the run has ended, gato resume {folder.name} goes on with it"
        ) from problem
    if summary.state in ENDED:
        reason = next((e.text for e in reversed(summary.events) if e.kind == "failed"), "")
        folder.set_known_state(cast(ShownState, summary.state), reason=reason)
    return folder.info().state


def active_run(run: str | None) -> RunFolder:
    """The folder of a run that is starting or running. Raises ValueError if it is not."""
    folder = find_run(run)
    state = state_of(folder)
    if state not in ("starting", "running"):
        raise ValueError(
            f"run {folder.name} is {state}, not running; gato resume {folder.name} goes on with it"
        )
    return folder


def ask_to_stop(folder: RunFolder, *, redis_url: str | None = None) -> None:
    """Ask a run to save its learner and to end."""
    with journal_of(folder, redis_url) as journal:
        journal.post_control("stop")


def wait_until_stopped(folder: RunFolder, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Wait for the end of a run. Raises ValueError if it goes on after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while _goes_on(folder):
        if time.monotonic() >= deadline:
            raise ValueError(
                f"run {folder.name} has not stopped after {timeout_s:g} s; see {folder.path}"
            )
        time.sleep(0.2)


def _goes_on(folder: RunFolder) -> bool:
    try:
        return state_of(folder) in ("starting", "running")
    except ValueError:
        return False  # its journal ends soon after the run


def scale(folder: RunFolder, num_workers: int, *, redis_url: str | None = None) -> None:
    """Ask a run for another number of workers, which it also has when it is resumed."""

    def change(config: RunConfig) -> RunConfig:
        return replace(config, actors=replace(config.actors, num_workers=num_workers))

    _ask(folder, "scale", str(num_workers), change, redis_url)


def set_roles(
    folder: RunFolder, shares: Mapping[str, float], *, redis_url: str | None = None
) -> None:
    """Ask a run for other shares of its workers' time, such as {"relabel_share": 0.5}. It also has
    them when it is resumed. Raises ValueError if a share is not possible."""

    def change(config: RunConfig) -> RunConfig:
        return replace(config, actors=replace(config.actors, **shares))

    _ask(folder, "roles", json.dumps(dict(shares)), change, redis_url)


def set_limiter(
    folder: RunFolder, changes: Mapping[str, float | None], *, redis_url: str | None = None
) -> None:
    """Ask a run for other settings of its rate limiter, which it also has when it is resumed.
    Raises ValueError if they are not possible."""

    def change(config: RunConfig) -> RunConfig:
        limiter = replace(config.replay.limiter, **changes)
        return replace(config, replay=replace(config.replay, limiter=limiter))

    _ask(folder, "replay-limit", json.dumps(dict(changes)), change, redis_url)


def pause_limiter(folder: RunFolder, paused: bool, *, redis_url: str | None = None) -> None:
    """Ask a run to switch its rate limiter off, or on again."""
    with journal_of(folder, redis_url) as journal:
        journal.post_control("replay-pause" if paused else "replay-resume")


def _ask(
    folder: RunFolder,
    word: ControlWord,
    value: str,
    change: Callable[[RunConfig], RunConfig],
    redis_url: str | None,
) -> None:
    """Post the control word and keep its effect, if the config accepts it: neither without the
    other."""
    with journal_of(folder, redis_url) as journal:
        folder.change_config(change)
        journal.post_control(word, value)
