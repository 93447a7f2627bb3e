"""This machine as the head of a Ray cluster: start it, go on with the cluster that it had, and end
the cluster."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from ray.exceptions import RayError

from cluster.nodes.connect import keep_to_loopback, note_version
from cluster.nodes.head_store import (
    HeadStore,
    forget_store,
    head_store,
    keep_store,
    kept_store,
)
from cluster.nodes.members import drain, members
from cluster.nodes.node import (
    Node,
    bring_up,
    launch,
    record,
    require_none,
    stop_node,
)
from cluster.nodes.own_address import require_address
from cluster.nodes.probe import require_ray
from cluster.nodes.tokens import make_own_token, use_token

HEALTH: Mapping[str, str] = {
    # A machine that is gone is noticed after about 15 s, a pause of 5 s costs nothing.
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
}
RECONNECT_S = 3600
"""How long nodes wait for a head that has a store and is away, before they end."""
LEAVE_S = 1.0
END_S = 15.0
"""How long the end of a cluster with a store waits for its other nodes to leave."""
RAY, RAY_WITH_STORE = "cluster.nodes.ray_process", "cluster.nodes.head_process"


def start_head(
    *,
    host: str | None,
    port: int,
    name: str | None,
    cpus: int | None,
    gpus: int | None,
    redis_url: str | None = None,
    autoscaling_config: Path | None = None,
) -> Node:
    """Start the head of a cluster in the background, with a token.

    Args:
        host: The address that other machines reach it at. Default: loopback, for this machine only.
        port: Of the head.
        name: Of this node. Default: the machine's.
        cpus: What it offers. Default: all cores.
        gpus: What it offers. Default: all GPUs.
        redis_url: A Redis that keeps the cluster's state: a head that died and is started again at
            its address goes on with its cluster. Default: the one that this head had, until
            `end_cluster`.
        autoscaling_config: What `ray up` wrote, for Ray to start the other machines by.

    Raises:
        ValueError: A head runs already, the port is taken, the Redis cannot be used, or Ray did not
            start.
    """
    where = host or "127.0.0.1"
    require_address(where)
    is_alone = host is None or ipaddress.ip_address(where).is_loopback
    address = f"{where}:{port}"
    require_none(address)
    before = kept_store(address)
    store = head_store(address, redis_url) if redis_url is not None else before
    if store is not None:
        if is_alone:
            raise ValueError(
                "a cluster of one machine ends with it, whatever --redis keeps; give --host, too"
            )
        store.require()
    try:
        with socket.create_server((where, port)):
            pass
    except OSError as problem:
        raise ValueError(
            f"port {port} of {where} cannot be used ({problem.strerror}); give another with --port"
        ) from problem
    make_own_token()
    use_token(address)
    keep_to_loopback(is_alone)
    arguments = ["--head", f"--port={port}", f"--node-ip-address={where}"]
    arguments += ["--include-dashboard=false"]
    if autoscaling_config is not None:
        arguments.append(f"--autoscaling-config={autoscaling_config}")
    environment = dict(HEALTH)
    if store is not None:
        keep_store(store)
        # Every process of every node takes this from its head.
        waits = {"gcs_rpc_server_reconnect_timeout_s": RECONNECT_S}
        arguments.append(f"--system-config={json.dumps(waits)}")
        environment |= store.environment
    program = RAY if store is None else RAY_WITH_STORE
    begun_s = time.time()
    try:
        node = bring_up(
            lambda: launch(address, arguments, name, cpus, gpus, environment, program=program),
            lambda process: record(address, where, name, process, is_head=True),
            lambda: _answers(address, begun_s),
        )
    except ValueError:
        if store is not None and before is None:
            forget_store(store)
        raise
    note_version(address)
    return node


def end_cluster(node: Node | None, store: HeadStore | None) -> None:
    """End a head of this machine and, if its state is in a store, what would go on without it: the
    other nodes, and the state.

    Args:
        node: The head. None: it has died before.
        store: Of its state.

    Raises:
        ValueError: The Redis does not answer: the state is still there.
    """
    if node is not None:
        if store is not None:
            _send_away(node.address)
        stop_node(node)
    if store is not None:
        forget_store(store)


def _send_away(address: str) -> None:
    """Have all nodes but the head leave: they would wait for it to be started again."""
    use_token(address)
    keep_to_loopback(False)
    try:
        others = [node for node in members(address) if node.is_alive and not node.is_head]
        for node in others:
            drain(address, node, within_s=LEAVE_S)
        until_s = time.monotonic() + END_S
        while time.monotonic() < until_s and any(
            node.is_alive and not node.is_head for node in members(address)
        ):
            time.sleep(0.2)
    except (ValueError, RayError):
        return  # it does not answer: they end when they have waited for it


def _answers(address: str, begun_s: float) -> bool:
    """Whether the head answers, and is a node of its cluster itself; an earlier one may still be
    listed."""
    try:
        require_ray(address)
    except ValueError:
        return False
    return any(
        node.is_alive and node.is_head and node.started_s >= begun_s - 1.0
        for node in members(address)
    )
