"""`gato start --or-resume`: start a run, or go on with the one of its name, and follow it to its
end, whatever is restarted meanwhile. It is what services, containers and jobs call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from cluster.control import lifecycle, run_control
from cluster.control.at_home import Found, look, summary_at_home
from cluster.control.await_home import HOME_AWAY_S, lost_from_now, nodes_for_run
from cluster.control.run_journal import journal_of, own_summary, redis_of_start
from cluster.journal.redis_client import RedisAway
from cluster.monitor.format import literal
from cluster.monitor.scores import read_scales
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.watch import ENDED, render, watch_live
from cluster.runs.config import RunConfig
from cluster.runs.disk_space import require_space
from cluster.runs.folder import RunFolder, ShownState, runs_root
from cluster.runs.folder_name import RunExists

LOOK_S = 5.0
"""Between two looks at whether what is followed still lives."""
NextStep = Literal["begin", "go on", "show", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A run as it was asked for."""

    config: RunConfig
    """Of a run that is not there yet; one that is keeps its own."""
    address: str | None
    """host:port of a cluster's head. None: on this machine."""
    home: str | None
    """Name or address of the node for the learner."""
    redis_url: str | None
    redis_port: int | None
    updates: int | None
    """The number of updates in all: a run that has finished with fewer goes on."""
    detach: bool
    attach: bool


def start_or_resume(wanted: Wanted, console: Console) -> None:
    """Start a run, or go on with the one of its name, and follow it until it has finished or was
    stopped.

    A run that is active is only followed; one that has failed, or that died with its machine, goes
    on from its last checkpoint, also if that happens while it is followed: its home is then waited
    for.

    Raises:
        ValueError: It failed, its home did not come back, or the cluster does not answer.
    """
    if wanted.address is None:
        if wanted.home is not None:
            raise ValueError("--home names a node of a cluster; give the cluster, too: --address")
        _here(wanted, console)
    else:
        require_space(runs_root())
        _on_cluster(wanted, wanted.address, console)


def next_step(
    state: ShownState | None,
    *,
    said: str | None,
    has_done: int,
    updates: int | None,
    reason: str = "",
) -> NextStep:
    """What to do with a run that is in `state` (None: there is none).

    Args:
        state: Of the run, as its home says.
        said: The last state in the journal, if the run was followed until now.
        has_done: The number of updates that it was to make.
        updates: The number that is asked for.
        reason: Why it ended; a stop of a user's has none, one because its home left has.
    """
    if state is None:
        return "begin"
    if state == "finished":
        return "go on" if (updates or 0) > has_done else "show"
    if state == "stopped" and said is not None and not reason:
        return "stopped"
    if state == "failed" and said == "failed":  # else it failed with its node, which is back
        return "failed"
    return "go on"


def _more(config: RunConfig, updates: int | None) -> list[str]:
    """The settings that a run that is there takes over: a higher number of updates."""
    if updates is None or updates <= config.learner.num_updates:
        return []
    return [f"learner.num_updates={updates}"]


def _here(wanted: Wanted, console: Console) -> None:
    """On a Ray of this machine's own."""
    folder = RunFolder(runs_root(), wanted.config.name)
    if not (folder.path / "run.json").is_file():
        try:
            lifecycle.start(
                wanted.config, address=None, redis_url=wanted.redis_url,
                redis_port=wanted.redis_port, detach=wanted.detach, console=console, is_exact=True,
            )  # fmt: skip
            return
        except RunExists:
            if not (folder.path / "run.json").is_file():
                raise  # a folder of something else
            # Another process has just started it.
    if folder.home is not None:
        raise ValueError(
            f"run {folder.name} lives on a cluster; name it: --address {folder.home.address}"
        )
    said = None
    if folder.info().is_active:
        if wanted.detach:
            return
        try:
            said = _watch(folder, console, lambda: not folder.info().is_active)
        except KeyboardInterrupt:
            return
    info, kept = folder.info(), folder.config()
    step = next_step(
        info.state, said=said, has_done=kept.learner.num_updates, updates=wanted.updates,
        reason=info.reason,
    )  # fmt: skip
    if step == "show":
        console.print(render(own_summary(folder), now_s=time.time()))
        return
    if step == "stopped":
        return
    if step == "failed":
        raise ValueError(f"run {folder.name} failed: {info.reason}")
    lifecycle.resume(
        folder.name, settings=_more(kept, wanted.updates), address=None,
        redis_url=wanted.redis_url, detach=wanted.detach, console=console,
    )  # fmt: skip


def _on_cluster(wanted: Wanted, address: str, console: Console) -> None:
    name, clashed = wanted.config.name, False
    home, said = wanted.home or _known_home(name), None
    while True:
        try:
            nodes = nodes_for_run(
                address, home, 0.0 if said in ENDED else HOME_AWAY_S, console,
                waits_for_head=said is not None,
            )  # fmt: skip
            found = look(name, address, nodes)
        except ValueError:
            if said not in ENDED:
                raise
            found = None  # the run has ended, and its home has left: its journal has the last word
        if found is None and said is not None:
            if said in ("finished", "stopped"):
                return
            raise ValueError(f"run {name} {said or 'is gone from its home'}")
        if found is None and wanted.home is None and _known_home(name) is not None:
            raise ValueError(
                f"run {name} is not at its home {home} any more; gato resume {name} --home NODE"
                " goes on from its storage, gato start --name OTHER begins another"
            )
        done = found.config.learner.num_updates if found else 0
        state = found.state if found else None
        reason = found.reason if found else ""
        step = next_step(state, said=said, has_done=done, updates=wanted.updates, reason=reason)
        if found is not None and step == "show":
            summary = summary_at_home(name, found.home)
            console.print(render(summary, now_s=time.time()))
            return
        if step == "stopped":
            return
        if found is not None and step == "failed":
            raise ValueError(f"run {name} failed: {found.reason}")
        try:
            folder = _begin(wanted, address, home, found)
        except RunExists:
            if clashed:
                raise
            clashed = True  # another process has just started it, or it is no run of a cluster
            continue
        at = folder.home
        assert at is not None
        home = at.node
        text = f"run [bold]{literal(name)}[/bold] goes on at {literal(at.node)} ({at.host})"
        console.print(text, highlight=False)
        if wanted.detach:
            return
        try:
            said = _watch(folder, console, lost_from_now(address, at.host))
        except KeyboardInterrupt:
            if wanted.attach:
                run_control.ask_to_stop(folder)
                run_control.wait_until_stopped(folder)
            return
        if said not in ENDED:
            console.print(f"no sight of run {literal(name)}; looking for it", highlight=False)


def _known_home(name: str) -> str | None:
    """The node where this machine knows the run to live: no other is asked while that is away."""
    folder = RunFolder(runs_root(), name)
    home = folder.home if (folder.path / "run.json").is_file() else None
    return home.node if home is not None else None


def _begin(wanted: Wanted, address: str, home: str | None, found: Found | None) -> RunFolder:
    from cluster.control.on_cluster import go_on, start_on_cluster

    if found is None:
        return start_on_cluster(
            wanted.config, address=address, home=home,
            redis_url=redis_of_start(wanted.redis_url), is_exact=True,
        )  # fmt: skip
    more = _more(found.config, wanted.updates)
    return go_on(found.home, settings=more, redis_url=wanted.redis_url, name=wanted.config.name)


def _has_left(summary: Summary) -> bool:
    """Whether the run was stopped because its home left the cluster, and not by a user."""
    last = next((e for e in reversed(summary.events) if e.kind == "stopped"), None)
    return summary.state == "stopped" and last is not None and last.text.startswith("its home ")


def _watch(folder: RunFolder, console: Console, is_lost: Callable[[], bool]) -> str:
    """Show a run until it has ended or `is_lost`, and return its last state in the journal."""
    looked_s = time.monotonic()

    def give_up() -> bool:
        nonlocal looked_s
        if time.monotonic() - looked_s < LOOK_S:
            return False
        looked_s = time.monotonic()
        return is_lost()

    try:
        with journal_of(folder) as journal:
            summary = watch_live(
                journal, run=folder.name, scales=read_scales(folder.path), console=console,
                give_up=give_up, raises_interrupt=True,
            )  # fmt: skip
            return "" if _has_left(summary) else summary.state
    except RedisAway:
        return ""
