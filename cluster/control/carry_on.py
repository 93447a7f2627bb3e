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
from cluster.control.run_journal import journal_of, own_summary, redis_of_start
from cluster.journal.redis_client import RedisAway
from cluster.monitor.format import literal
from cluster.monitor.scores import read_scales
from cluster.monitor.watch import ENDED, render, watch_live
from cluster.nodes.members import Member, find_member, members
from cluster.nodes.probe import require_accepted, require_ray
from cluster.nodes.tokens import use_token
from cluster.runs.config import RunConfig
from cluster.runs.disk_space import require_space
from cluster.runs.folder import RunExists, RunFolder, ShownState, runs_root

HOME_AWAY_S = 600.0
"""How long to wait for a run's home to join the cluster, at the start and after it was lost."""
LOOK_S = 5.0
"""Between two looks at whether what is followed still lives."""
TWICE_S = 60.0
"""How long there may be two nodes of one name: the one that was lost, and the one in its place."""
Wish = Literal["begin", "go on", "show", "stopped", "failed"]


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
    state: ShownState | None, *, said: str | None, has_done: int, updates: int | None
) -> Wish:
    """What to do with a run that is in `state` (None: there is none).

    Args:
        state: Of the run, as its home says.
        said: The last state in the journal, if the run was followed until now.
        has_done: The number of updates that it was to make.
        updates: The number that is asked for.
    """
    if state is None:
        return "begin"
    if state == "finished":
        return "go on" if (updates or 0) > has_done else "show"
    if state == "stopped" and said is not None:
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
        lifecycle.start(
            wanted.config, address=None, redis_url=wanted.redis_url,
            redis_port=wanted.redis_port, detach=wanted.detach, console=console,
        )  # fmt: skip
        return
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
        info.state, said=said, has_done=kept.learner.num_updates, updates=wanted.updates
    )
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
            nodes = _nodes(address, home, 0.0 if said in ENDED else HOME_AWAY_S, console)
            found = look(name, address, nodes)
        except ValueError:
            if said not in ENDED:
                raise
            found = None  # the run has ended, and its home has left: its journal has the last word
        if found is None and said is not None:
            if said in ("finished", "stopped"):
                return
            raise ValueError(f"run {name} {said or 'is gone from its home'}")
        done = found.config.learner.num_updates if found else 0
        state = found.state if found else None
        step = next_step(state, said=said, has_done=done, updates=wanted.updates)
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
            said = _watch(folder, console, _lost(address, at.host))
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


def _nodes(address: str, home: str | None, patience_s: float, console: Console) -> list[Member]:
    """The nodes where the run may live: `home` once it has joined, or all that offer a core.

    Raises:
        ValueError: There is none within `patience_s`, or the head does not answer.
    """
    begun_s, is_told = time.monotonic(), False
    while True:
        use_token(address)
        require_ray(address)
        require_accepted(address)
        alive = [node for node in members(address) if node.state == "alive"]
        able = [node for node in alive if node.offers("CPU") >= 1]
        try:
            if home is not None:
                return [find_member(alive, home)]
            if able:
                return able
            raise ValueError("no node of the cluster offers a core for the learner")
        except ValueError as problem:
            waited_s = time.monotonic() - begun_s
            twice = home is not None and sum(home in (n.name, n.host) for n in alive) > 1
            if waited_s >= (TWICE_S if twice else patience_s):
                raise
            if not is_told:
                text = f"{problem}; waiting for it for {HOME_AWAY_S / 60:.0f} minutes"
                console.print(literal(text), highlight=False)
                is_told = True
        time.sleep(2.0)


def _lost(address: str, host: str) -> Callable[[], bool]:
    """Whether the node that is at `host` now has left the cluster, even if another one is there."""
    here = {node.id for node in members(address) if node.host == host and node.is_alive}

    def is_lost() -> bool:
        try:
            return not any(node.id in here and node.is_alive for node in members(address))
        except ValueError:
            return True

    return is_lost


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
            return watch_live(
                journal, run=folder.name, scales=read_scales(folder.path), console=console,
                give_up=give_up, raises_interrupt=True,
            ).state  # fmt: skip
    except RedisAway:
        return ""
