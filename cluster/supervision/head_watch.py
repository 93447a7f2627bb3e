"""What the cluster's head knows, asked of it by a thread: which nodes are being drained, and how
many cores are free; it has those freed that Ray has lost. And where an actor is."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import ray
from ray._private.state import state as gcs
from ray.exceptions import RayError

from cluster.supervision.stranded import StrandedCores

LOOK_EVERY_S = 1.0


@final
class HeadWatch:
    """Looks every second, so that the supervisor never waits for a head that is away.

    watch = HeadWatch()
    watch.leaving()         # {"1a2b...": 1234.5}
    watch.free_cores        # 3.0
    watch.close()
    """

    def __init__(self) -> None:
        self._leaving: Mapping[str, float] = {}
        self._stranded = StrandedCores()
        self.workers_wait = False
        """Whether a worker has no place, although the cluster might have one."""
        self.free_cores, self.all_cores = _cores()
        self._closing = threading.Event()
        threading.Thread(target=self._run, name="head watch", daemon=True).start()

    def leaving(self) -> Mapping[str, float]:
        """Ids of the nodes that are being drained, each with the monotonic time of its end."""
        return self._leaving

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            try:
                deadlines_ms = gcs.get_draining_nodes()
                self.free_cores, self.all_cores = _cores()
                self._stranded.tick(workers_wait=self.workers_wait)
            except (RayError, RuntimeError):  # the head is away: what was known stands
                continue
            now_s = time.monotonic() - time.time()
            self._leaving = {
                node: ms / 1000 + now_s if ms else math.inf for node, ms in deadlines_ms.items()
            }


def _cores() -> tuple[float, float]:
    free, there = ray.available_resources(), ray.cluster_resources()
    return free.get("CPU", 0.0), there.get("CPU", 0.0)


class Process(NamedTuple):
    """A process of an actor, which has another one when it is started again."""

    node: str
    pid: int


def process_of(actor: Any) -> Process | None:
    """The present process of an actor; None while it has none, or the head does not say."""
    try:
        entry: Any = gcs.actor_table(actor._ray_actor_id.hex())
    except (RayError, RuntimeError):
        return None
    if not entry or entry["State"] != "ALIVE":
        return None
    return Process(entry["Address"]["NodeID"], entry["Pid"])


def own_node() -> tuple[str, str]:
    """Id and name of the node of this process."""
    here = ray.get_runtime_context().get_node_id()
    return here, next(node["NodeName"] for node in ray.nodes() if node["NodeID"] == here)
