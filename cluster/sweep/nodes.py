"""Which nodes of a Ray cluster can train a trial: those with room that see the sweep's folder and
the stored episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PROBE_TIMEOUT_S = 120.0
"""A process on each node is started for it."""


def nodes_for_trials(paths: Sequence[Path], *, cpus: int, gpus: int) -> list[str] | None:
    """Ids of the nodes that can train a trial; None: all can.

    Raises:
        ValueError: None has the CPUs and GPUs of a trial, or none of those sees all paths.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    roomy = [node["NodeID"] for node in nodes if _has_room(node, cpus, gpus)]
    if not roomy:
        most = ", ".join(
            f"{node['Resources'].get('CPU', 0):g} CPUs and {node['Resources'].get('GPU', 0):g} GPUs"
            for node in nodes
        )
        raise ValueError(
            f"a trial needs {cpus} CPUs and {gpus} GPUs on one node, and the nodes have {most};"
            " lower --cpus or --gpus"
        )
    words = [str(path) for path in paths]
    asked = [
        _missing.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(words)
        for node in roomy
    ]
    missing = dict(zip(roomy, ray.get(asked, timeout=PROBE_TIMEOUT_S), strict=True))
    seeing = [node for node, paths_missing in missing.items() if not paths_missing]
    if not seeing:
        raise ValueError(
            f"no node of the cluster sees {next(iter(missing.values()))[0]}; put GATO_RUNS on a"
            " file system that all nodes share, under the same path"
        )
    return None if len(seeing) == len(nodes) else seeing


def _has_room(node: Mapping[str, Any], cpus: int, gpus: int) -> bool:
    has = node["Resources"]
    return has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus


@ray.remote
def _missing(paths: list[str]) -> list[str]:
    """Which of the paths this node does not see."""
    return [path for path in paths if not Path(path).exists()]
