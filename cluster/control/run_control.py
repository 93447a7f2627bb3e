"""Look at a run and steer it from another process: its journal, status, workers, roles and pace."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard, cast

from cluster.control.run_journal import control_of, journal_of, own_summary
from cluster.journal.journal import START, ControlWord, Journal
from cluster.journal.records import Event, Record
from cluster.journal.redis_client import RedisAway
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.watch import ENDED
from cluster.runs.folder import RunFolder, ShownState, find_run
from cluster.runs.home import SUPERVISOR, Home

if TYPE_CHECKING:
    from cluster.runs.config import RunConfig

ANSWER_S = 5.0
"""How long to wait for what a run says to a control word."""
BACK_S = 90.0
"""How long Ray may take to start a supervisor again, whose run's Redis is away meanwhile."""
STOP_TIMEOUT_S = 200.0
"""A learner saves before it stops, and a storage gets the last copy."""


def summary_of(run: str | None, *, redis_url: str | None = None) -> Summary:
    """The status of a run, or its last status if it has ended."""
    folder = find_run(run)
    home = folder.home
    try:
        return own_summary(folder, redis_url)
    except ValueError:
        if home is None or home.is_here:
            raise
    # Its own Redis ends with the run.
    from cluster.control.at_home import summary_at_home

    return summary_at_home(folder.name, home)


def state_of(folder: RunFolder) -> ShownState:
    """How a run stands; for one whose home is elsewhere, as its journal says.

    Raises:
        ValueError: The journal of a run elsewhere does not answer.
    """
    info, home = folder.info(), folder.home
    if info.state == "dead" and home is not None and home.is_here and _comes_back(home):
        return "dead" if _is_lost(home) else "starting"
    if home is None or home.is_here or not info.is_active:
        return info.state
    summary = summary_of(folder.name)
    if summary.state in ENDED:
        reason = next((e.text for e in reversed(summary.events) if e.kind == "failed"), "")
        folder.set_known_state(cast(ShownState, summary.state), reason=reason)
    elif _is_lost(home):
        return "dead"
    return folder.info().state


def _is_lost(home: Home) -> bool:
    """Whether the node of a run's home has left the cluster, and its supervisor is not up; the
    machine may be there again. False also where the head does not answer."""
    from cluster.nodes.members import has_actor, members
    from cluster.nodes.tokens import use_token

    use_token(home.address)
    try:
        nodes = members(home.address)
    except ValueError:
        return False
    if not home.node_id or any(n.is_alive and n.id == home.node_id for n in nodes):
        return False
    return not has_actor(home.address, home.namespace, SUPERVISOR, is_alive=True)


def _comes_back(home: Home) -> bool:
    """Whether Ray is starting the supervisor of a run again."""
    from cluster.nodes.members import has_actor
    from cluster.nodes.tokens import use_token

    use_token(home.address)
    return has_actor(home.address, home.namespace, SUPERVISOR)


def _control(folder: RunFolder, redis_url: str | None) -> AbstractContextManager[Journal]:
    """Where the run takes words; that of a run on a cluster, also once its supervisor is back."""
    patience_s = BACK_S if folder.home is not None and redis_url is None else 0.0
    return control_of(folder, redis_url, patience_s=patience_s)


def active_run(run: str | None) -> RunFolder:
    """The folder of a run that is starting or running. Raises ValueError if it is not."""
    folder = find_run(run)
    state = state_of(folder)
    if state not in ("starting", "running"):
        raise ValueError(
            f"run {folder.name} is {state}, not running; gato resume {folder.name} goes on with it"
        )
    return folder


def is_stopping(folder: RunFolder, *, redis_url: str | None = None) -> bool:
    """Whether a run has been asked to stop, as far as its journal says."""
    try:
        return summary_of(folder.name, redis_url=redis_url).state == "stopping"
    except ValueError:
        return False


def ask_to_stop(folder: RunFolder, *, redis_url: str | None = None) -> None:
    """Ask a run to save its learner and to end; by a signal if its Redis does not answer.

    Raises:
        ValueError: It cannot be asked.
    """
    try:
        with _control(folder, redis_url) as journal:
            journal.post_control("stop")
    except RedisAway:
        info = folder.info()
        if info.state != "running" or info.supervisor_pid is None or folder.home is not None:
            raise
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(info.supervisor_pid, signal.SIGTERM)


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
    return state_of(folder) in ("starting", "running")


def scale(folder: RunFolder, num_workers: int, *, redis_url: str | None = None) -> str:
    """Ask a run for another number of workers, which it also has when it is resumed.

    Returns:
        What the run answers, such as "4 of 6 play, 2 wait: ..."; empty if it does not in time.

    Raises:
        ValueError: Its supervisor has not taken the word, although Ray had time to start it again.
    """

    def change(config: RunConfig) -> RunConfig:
        return replace(config, actors=replace(config.actors, num_workers=num_workers))

    with _control(folder, redis_url) as control, journal_of(folder, redis_url) as journal:
        last = START
        while entries := journal.read(last, count=10_000):
            last = entries[-1].id
        folder.change_config(change)
        word = control.post_control("scale", str(num_workers))
        begun_s = time.monotonic()
        while (waited_s := time.monotonic() - begun_s) < BACK_S:
            if waited_s > ANSWER_S and not control.waits(word):
                return ""
            for entry in journal.read(last, block_s=1.0):
                last = entry.id
                if _is_answer(entry.record, num_workers):
                    return entry.record.text
    raise ValueError(
        f"the supervisor of run {folder.name} has not answered within {BACK_S:.0f} s; it will"
        " carry out the command once it is back, see gato watch"
    )


def _is_answer(record: Record, num_workers: int) -> TypeGuard[Event]:
    """A supervisor that takes over says first how many workers there were."""
    return (
        isinstance(record, Event)
        and record.kind == "scaled"
        and (record.text == f"{num_workers} workers" or f" of {num_workers} play" in record.text)
    )


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
    with _control(folder, redis_url) as journal:
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
    with _control(folder, redis_url) as journal:
        folder.change_config(change)
        journal.post_control(word, value)
