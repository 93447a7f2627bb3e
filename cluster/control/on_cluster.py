"""Runs on a cluster, from any of its machines: choose the home, start or resume there, and keep
here what is needed to watch and steer."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.tasks.text_encoder import BYTES
from cluster.control.at_home import home_node
from cluster.control.home import RemoteSupervisor
from cluster.control.initial_weights import initial_of
from cluster.control.order import About, Order
from cluster.control.run_journal import keep_url
from cluster.monitor.terminal.watch import ENDED
from cluster.nodes.connect import connect_ray
from cluster.nodes.members import Member, find_member, has_actor, members
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder, runs_root
from cluster.runs.folder_name import RunExists
from cluster.runs.home import SUPERVISOR, Home
from cluster.runs.overrides import override

BEGIN_S = 120.0
"""How long the supervisor may take to start its process and to make the run's folder."""
RUNNING_S = 300.0


def start_on_cluster(
    config: RunConfig,
    *,
    address: str,
    home: str | None,
    redis_url: str | None,
    is_exact: bool = False,
) -> RunFolder:
    """Start a run on the cluster at `address`, and return the folder by which it is known here.

    Args:
        config: Of the run.
        address: host:port of the cluster's head.
        home: Name or address of the node for the learner. Default: see `choose_home`.
        redis_url: A Redis for the journal. Default: one of the run's own, at its home.
        is_exact: Whether it must have its config's name.

    Raises:
        RunExists: Its home has a run of that name, and `is_exact`.
        ValueError: The cluster or the node is not there, or the run did not start.
    """
    run_id = secrets.token_hex(6)
    text = None if config.text == BYTES else Path(config.text).read_bytes()
    order = Order(
        run_id=run_id,
        address=address,
        redis_url=redis_url,
        config=config,
        text=text,
        initial=initial_of(config),
        is_exact=is_exact,
    )
    connect_ray(address, namespace=f"gato-{run_id}")
    try:
        node = choose_home(members(address), home, ray.util.get_node_ip_address())
        return _begin(order, node)
    finally:
        ray.shutdown()


def resume_on_cluster(
    folder: RunFolder,
    home: Home,
    *,
    settings: Sequence[str],
    address: str | None,
    redis_url: str | None,
    to: str | None,
) -> None:
    """Go on with a run at its home.

    Args:
        folder: By which the run is known here.
        home: Of the run.
        settings: What is changed.
        address: host:port of the cluster's head. Default: the one that it had.
        redis_url: A Redis for the journal. Default: the one that it had.
        to: Name or address of a node that is to be its home, because the one that it had is lost.

    Raises:
        ValueError: Its home is not in the cluster and `to` is None, or it is and `to` is another;
            or it did not start.
    """
    home = replace(home, address=address or home.address)
    if to is None:
        go_on(home, settings=settings, redis_url=redis_url, name=folder.name)
    else:
        _move(folder, home, settings=settings, redis_url=redis_url, to=to)


def _move(
    folder: RunFolder, home: Home, *, settings: Sequence[str], redis_url: str | None, to: str
) -> None:
    """Go on with a run at another home, from the copy in its storage."""
    connect_ray(home.address, namespace=home.namespace)
    try:
        nodes = members(home.address)
        node = choose_home(nodes, to, "")
        url = override(folder.config(), settings).storage.url
        if node.host == home.host:  # with an empty disk, if need be
            _go_on(replace(_order(home, settings, redis_url), storage=url), home, node)
            return
        if any(each.host == home.host and each.is_alive for each in nodes):
            raise ValueError(
                f"run {folder.name} lives on {home.node} ({home.host}), which is in the cluster; it"
                " moves only when its home is lost: leave out --home"
            )
        if not url:
            raise ValueError(
                f"run {folder.name} has no storage: all of it is on {home.node} ({home.host}); let"
                " that machine join again"
            )
        _end_lost()
        _begin(replace(_order(home, settings, redis_url), path="", storage=url), node)
    finally:
        ray.shutdown()


def _order(home: Home, settings: Sequence[str], redis_url: str | None) -> Order:
    return Order(
        run_id=home.run_id,
        address=home.address,
        redis_url=redis_url,
        path=home.path,
        settings=tuple(settings),
    )


def go_on(home: Home, *, settings: Sequence[str], redis_url: str | None, name: str) -> RunFolder:
    """Go on with the run `name` at its home or, if it is active, only find it; return the folder
    by which it is known here.

    Raises:
        ValueError: Its home is not in the cluster at `home.address`, or it did not start.
    """
    connect_ray(home.address, namespace=home.namespace)
    try:
        node = home_node(name, home, home.address)
        return _go_on(_order(home, settings, redis_url), home, node)
    finally:
        ray.shutdown()


def _go_on(order: Order, home: Home, node: Member) -> RunFolder:
    """Go on at a home that is there, or there again."""
    if home.node_id not in ("", node.id) and not has_actor(
        home.address, home.namespace, SUPERVISOR, is_alive=True
    ):
        _end_lost()
    return _begin(order, node)


def choose_home(nodes: Sequence[Member], wanted: str | None, here: str) -> Member:
    """The node for a run's learner: the one that is wanted; else one with a GPU, this one before
    others; else this one if it offers a core; else the one with the most free cores.

    Args:
        nodes: Of the cluster.
        wanted: A node's name, address or id.
        here: Address of this node.

    Raises:
        ValueError: There is no such node, or none offers a core.
    """
    alive = [node for node in nodes if node.state == "alive"]
    if wanted is not None:
        node = find_member(alive, wanted)
        if node.offers("CPU") < 1:
            raise ValueError(
                f"node {node.name} offers no core for the learner; join it with --cpus 1 or more"
            )
        return node
    able = [node for node in alive if node.offers("CPU") >= 1]
    if not able:
        raise ValueError(
            "no node of the cluster offers a core for the learner; join one with --cpus 1 or more"
        )
    return max(
        able,
        key=lambda node: (
            node.offers("GPU") >= 1,
            node.free.get("GPU", 0.0) >= 1,
            node.host == here,
            node.free.get("CPU", 0.0),
        ),
    )


def _begin(order: Order, node: Member) -> RunFolder:
    """Start the supervisor on its node, and wait until the run goes on."""
    _end_lingering()
    is_new = SUPERVISOR not in ray.util.list_named_actors()
    actor = RemoteSupervisor.options(
        name=SUPERVISOR,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=4,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
    ).remote(order)
    try:
        about: About = ray.get(actor.begin.remote(), timeout=BEGIN_S)
        folder = keep_here(about)
        deadline_s = time.monotonic() + RUNNING_S
        while about.state == "starting" and time.monotonic() < deadline_s:
            time.sleep(0.3)
            about = ray.get(actor.about.remote(), timeout=30.0)
    except RayTaskError as failure:
        if is_new:
            ray.kill(actor, no_restart=True)
        if isinstance(failure.cause, RunExists):
            raise RunExists(f"node {node.name}: {failure.cause}") from None
        raise ValueError(f"node {node.name}: {failure.cause}") from None
    except (RayError, GetTimeoutError) as failure:
        if is_new:
            ray.kill(actor, no_restart=True)
        raise ValueError(
            f"the supervisor did not start on node {node.name} ({str(failure).splitlines()[0]}); is"
            " the same version of the project installed there?"
        ) from failure
    keep_here(about)
    if about.state in ENDED and about.state != "finished":
        raise ValueError(f"run {about.name} did not start: {about.reason}")
    return folder


def _end_lingering() -> None:
    """End a supervisor that stays for a while after its run's end, for those who watch."""
    try:
        actor: Any = ray.get_actor(SUPERVISOR)
        about: About = ray.get(actor.about.remote(), timeout=30.0)
    except (ValueError, RayError, GetTimeoutError):
        return  # there is none, or Ray is starting it again: `begin` waits for it
    if about.state in ("starting", "running"):
        return
    ray.kill(actor, no_restart=True)
    deadline_s = time.monotonic() + 10.0
    while SUPERVISOR in ray.util.list_named_actors() and time.monotonic() < deadline_s:
        time.sleep(0.1)


def _end_lost() -> None:
    """Give up the supervisor on a home that is lost: Ray would wait to start it again there."""
    with suppress(ValueError):
        ray.kill(ray.get_actor(SUPERVISOR), no_restart=True)
    deadline_s = time.monotonic() + 10.0
    while SUPERVISOR in ray.util.list_named_actors() and time.monotonic() < deadline_s:
        time.sleep(0.1)


def keep_here(about: About) -> RunFolder:
    """Keep on this machine what is needed to watch and steer a run whose home is elsewhere."""
    at_home = Path(about.home.path)
    if about.home.host == ray.util.get_node_ip_address() and runs_root() == at_home.parent:
        return RunFolder(at_home.parent, at_home.name)
    folder = RunFolder.create_view(about.config, replace(about.home, is_here=False))
    if about.redis_url:
        keep_url(folder, about.redis_url)
    (folder.path / "scales.json").write_text(about.scales)
    folder.set_known_state(about.state, reason=about.reason)
    return folder
