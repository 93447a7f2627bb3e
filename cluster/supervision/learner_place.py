"""Where the learner's processes are, and the reservation of these places."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from cluster.supervision.stranded import end_stranded

HOME_GROUP = "home"
HOME_WAIT_S = 60.0
"""How long to wait for the learner's place."""

Options = dict[str, Any]
"""Of an actor: what it claims, and where."""


def learner_places(num_learners: int, threads: int, *, on_cluster: bool) -> list[Options]:
    """The places of the learner's processes. The first is on this node, the run's home; on a
    cluster the others are wherever there is room, and all are reserved until `free_places`.

    Each has a core for each of its `threads`, or a GPU and one core if the home has a GPU. On a
    local Ray nobody claims cores.

    Raises:
        ValueError: There are not so many GPUs or cores, or they are not free.
    """
    gpus = min(1, int(_offered_here().get("GPU", 0)))
    cores = 1 if gpus else threads
    _require(num_learners, gpus, on_cluster=on_cluster)
    if not on_cluster:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": here}
        return [options] * num_learners
    group = _reserve(num_learners, cores, gpus)
    return [
        {
            "num_cpus": cores,
            "num_gpus": gpus,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=bundle
            ),
        }
        for bundle in range(num_learners)
    ]


def free_places() -> None:
    """Let others have the places of this namespace's run."""
    with suppress(ValueError):  # there are none
        remove_placement_group(ray.util.get_placement_group(_group_name()))


def _group_name() -> str:
    """The names of placement groups are the cluster's, not the namespace's."""
    return f"{ray.get_runtime_context().namespace}-{HOME_GROUP}"


def _offered_here() -> Mapping[str, float]:
    here = ray.get_runtime_context().get_node_id()
    return next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)


def _require(num_learners: int, gpus: int, *, on_cluster: bool) -> None:
    """Raises ValueError if there are too few GPUs or cores, even were all of them free."""
    if num_learners == 1 or not (gpus or on_cluster):
        return
    offered = ray.cluster_resources() if on_cluster else _offered_here()
    has, what = int(offered.get("GPU" if gpus else "CPU", 0)), "GPU" if gpus else "core"
    if has < num_learners:
        where = "the cluster" if on_cluster else "this machine"
        raise ValueError(
            f"learner.num_learners is {num_learners}, and {where} has {has} {what}s for them; lower"
            " learner.num_learners"
            + (", or let more machines join (gato cluster join)" if on_cluster else "")
        )


def _reserve(num_learners: int, cores: int, gpus: int) -> PlacementGroup:
    """The learner's places: the first on this node, reserved for the run."""
    name = _group_name()
    one = {"CPU": float(cores), "GPU": float(gpus)}
    try:
        group = ray.util.get_placement_group(name)
    except ValueError:
        node = f"node:{ray.util.get_node_ip_address()}"
        group = placement_group(
            [{**one, node: 0.001}, *[one] * (num_learners - 1)],
            strategy="STRICT_PACK" if num_learners == 1 else "PACK",
            name=name,
            lifetime="detached",
        )
    try:
        try:
            ray.get(group.ready(), timeout=HOME_WAIT_S / 4)
        except GetTimeoutError:
            end_stranded()
            ray.get(group.ready(), timeout=HOME_WAIT_S * 3 / 4)
    except (GetTimeoutError, RayError):
        remove_placement_group(group)
        wanted = f"{cores} core{'s' * (cores > 1)}" + (" and 1 GPU" if gpus else "")
        others = f", and as much for each of {num_learners - 1} others," * (num_learners > 1)
        raise ValueError(
            f"node {ray.util.get_node_ip_address()} has not had {wanted} free for the learner"
            f"{others} for {HOME_WAIT_S:.0f} s; stop another run there, or name another node with"
            " --home (gato cluster nodes lists them)"
        ) from None
    return group
