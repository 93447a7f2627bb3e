"""The nodes of a Ray cluster, asked of its head."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from ray import _raylet
from ray.core.generated import autoscaler_pb2, gcs_pb2
from ray.exceptions import GetTimeoutError, RpcError

from cluster.nodes.probe import require_ray

AUTOSCALER: Any = autoscaler_pb2
STATE: Any = getattr(_raylet, "GlobalStateAccessor")  # noqa: B009 (compiled: no types)
GCS_OPTIONS: Any = getattr(_raylet, "GcsClientOptions")  # noqa: B009
GCS: Any = gcs_pb2

TIMEOUT_S = 10.0
GONE_S = 60.0
"""How long a node that was killed may be taken for alive; see HEALTH in head.py."""
State = Literal["alive", "draining", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node of the cluster."""

    id: str
    """In hexadecimal, Ray's own."""
    name: str
    host: str
    """Its address."""
    is_head: bool
    state: State
    total: Mapping[str, float]
    """What it offers: CPU, GPU, and Ray's own resources."""
    free: Mapping[str, float]
    started_s: float
    """Wall-clock time, by its own clock."""

    @property
    def is_alive(self) -> bool:
        """Whether it is up, even if nothing new goes there."""
        return self.state != "dead"

    def offers(self, resource: str) -> float:
        """Number of CPU or GPU."""
        return self.total.get(resource, 0.0)


@contextmanager
def asked(address: str) -> Generator[Any]:
    """A client of the head at `address`, whose API Ray does not publish.

    Raises:
        ValueError: The head does not answer.
    """
    try:
        yield getattr(_raylet, "GcsClient")(address=address)  # noqa: B009 (compiled: no types)
    except (RpcError, GetTimeoutError, RuntimeError) as problem:
        raise ValueError(
            f"the head at {address} does not answer ({str(problem).splitlines()[0]}); is the"
            " cluster up?"
        ) from problem


def members(address: str) -> list[Member]:
    """All nodes that the head of the cluster at `address` knows, dead ones too.

    Raises:
        ValueError: The head does not answer.
    """
    with asked(address) as client:
        infos = client.get_all_node_info(timeout=TIMEOUT_S)
        state = AUTOSCALER.GetClusterResourceStateReply()
        state.ParseFromString(client.get_cluster_resource_state(timeout_s=TIMEOUT_S))
    known = {node.node_id.hex(): node for node in state.cluster_resource_state.node_states}
    found: list[Member] = []
    for key, info in infos.items():
        node_id = key.hex()
        resources = known.get(node_id)
        is_alive = info.state == GCS.GcsNodeInfo.ALIVE
        is_draining = resources is not None and resources.status == AUTOSCALER.NodeStatus.DRAINING
        found.append(
            Member(
                id=node_id,
                name=info.node_name,
                host=info.node_manager_address,
                is_head=info.is_head_node,
                state="dead" if not is_alive else "draining" if is_draining else "alive",
                total=dict(info.resources_total),
                free=dict(resources.available_resources) if resources is not None else {},
                started_s=info.start_time_ms / 1000,
            )
        )
    return sorted(found, key=lambda node: (not node.is_head, not node.is_alive, node.name))


def has_actor(address: str, namespace: str, name: str, *, is_alive: bool = False) -> bool:
    """Whether the cluster at `address` has this actor, or is starting it again; with `is_alive`,
    whether it is up. False also where the head does not answer."""
    try:
        require_ray(address)
    except ValueError:
        return False
    options = GCS_OPTIONS.create(
        address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    accessor = STATE(options)
    if not accessor.connect():
        return False
    actors = (GCS.ActorTableData.FromString(row) for row in accessor.get_actor_table(None, None))
    states = GCS.ActorTableData.ActorState
    return any(
        actor.ray_namespace == namespace
        and actor.name == name
        and (actor.state == states.ALIVE if is_alive else actor.state != states.DEAD)
        for actor in actors
    )


def find_member(nodes: list[Member], wanted: str) -> Member:
    """The live node with this name, address or id (or its beginning).

    Raises:
        ValueError: None, or several.
    """
    alive = [node for node in nodes if node.is_alive]
    fits = [node for node in alive if wanted in (node.name, node.host)] or [
        node for node in alive if len(wanted) >= 4 and node.id.startswith(wanted)
    ]
    there = ", ".join(f"{node.name} ({node.host})" for node in alive) or "none"
    if not fits:
        raise ValueError(f"no node {wanted!r} is in the cluster; there are: {there}")
    if len(fits) > 1:
        raise ValueError(f"several nodes are called {wanted!r}; give the address: {there}")
    return fits[0]


def wait_until_gone(address: str, host: str) -> None:
    """Wait until the cluster knows that the node which was at `host` before is gone, for a minute
    at most. After the restart of a container Ray would have drivers there use that one.

    Raises:
        ValueError: The head does not answer.
    """
    until_s = time.monotonic() + GONE_S
    while time.monotonic() < until_s:
        if not any(member.host == host and member.is_alive for member in members(address)):
            return
        time.sleep(0.5)


def drain(address: str, node: Member, *, within_s: float) -> None:
    """Have nothing new go to a node, and end it after `within_s`.

    Raises:
        ValueError: The cluster refuses, or the head does not answer.
    """
    deadline_ms = int((time.time() + within_s) * 1000)
    with asked(address) as client:
        accepted, reason = client.drain_node(
            node.id,
            AUTOSCALER.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
            "gato cluster drain",
            deadline_ms,
        )
    if not accepted:
        raise ValueError(f"node {node.name} cannot be drained: {reason}")
