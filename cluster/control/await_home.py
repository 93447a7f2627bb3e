"""Waiting for the nodes of a run that is started or gone on with, and for their loss."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console

from cluster.monitor.format import literal
from cluster.nodes.members import Member, find_member, members
from cluster.nodes.probe import require_accepted, require_ray
from cluster.nodes.tokens import use_token

HOME_AWAY_S = 600.0
"""How long to wait for a run's home to join the cluster, at the start and after it was lost."""
TWICE_S = 60.0
"""How long there may be two nodes of one name: the one that was lost, and the one in its place."""


def nodes_for_run(
    address: str, home: str | None, patience_s: float, console: Console, *, waits_for_head: bool
) -> list[Member]:
    """The nodes where the run may live: `home` once it has joined, or all that offer a core.

    Raises:
        ValueError: There is none within `patience_s`, or the head does not answer.
    """
    begun_s, is_told = time.monotonic(), False
    while True:
        use_token(address)
        alive: list[Member] = []
        try:
            require_ray(address)
        except ValueError:
            if not waits_for_head or time.monotonic() - begun_s >= patience_s:
                raise
            time.sleep(2.0)
            continue
        require_accepted(address)
        try:
            alive = [node for node in members(address) if node.state == "alive"]
            able = [node for node in alive if node.offers("CPU") >= 1]
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


def lost_from_now(address: str, host: str) -> Callable[[], bool]:
    """Whether the node that is at `host` now has left the cluster, even if another one is there."""
    here = {node.id for node in members(address) if node.host == host and node.is_alive}

    def is_lost() -> bool:
        try:
            return not any(node.id in here and node.is_alive for node in members(address))
        except ValueError:
            return True

    return is_lost
