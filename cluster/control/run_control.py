"""Look at a run and steer it from another process: its journal, status, workers, roles and pace."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from cluster.control.run_journal import control_of, journal_of
from cluster.journal.journal import ControlWord
from cluster.journal.redis_client import RedisAway
from cluster.monitor.fold import read_summary
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder, find_run

STOP_TIMEOUT_S = 120.0
"""A learner saves before it stops."""


def summary_of(run: str | None, *, redis_url: str | None = None) -> Summary:
    """The status of a run, or its last status if it has ended."""
    folder = find_run(run)
    with journal_of(folder, redis_url) as journal:
        return read_summary(journal, folder.name, read_scales(folder.path))


def active_run(run: str | None) -> RunFolder:
    """The folder of a run that is starting or running. Raises ValueError if it is not."""
    folder = find_run(run)
    info = folder.info()
    if not info.is_active:
        raise ValueError(
            f"run {folder.name} is {info.state}, not running; gato resume {folder.name} goes on"
            " with it"
        )
    return folder


def ask_to_stop(folder: RunFolder, *, redis_url: str | None = None) -> None:
    """Ask a run to save its learner and to end; by a signal if its Redis does not answer.

    Raises:
        ValueError: It cannot be asked.
    """
    try:
        with control_of(folder, redis_url) as journal:
            journal.post_control("stop")
    except RedisAway:
        info = folder.info()
        if info.state != "running" or info.supervisor_pid is None:
            raise
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(info.supervisor_pid, signal.SIGTERM)


def wait_until_stopped(folder: RunFolder, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Wait for the end of a run. Raises ValueError if it goes on after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while folder.info().is_active:
        if time.monotonic() >= deadline:
            raise ValueError(
                f"run {folder.name} has not stopped after {timeout_s:g} s; see {folder.path}"
            )
        time.sleep(0.2)


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
    with control_of(folder, redis_url) as journal:
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
    with control_of(folder, redis_url) as journal:
        folder.change_config(change)
        journal.post_control(word, value)
