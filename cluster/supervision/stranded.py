"""Processes that Ray keeps for actors that it has forgotten, and their cores with them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gato.processes import Usage, siblings

QUIET_S = 5.0
BUSY = 0.02
"""Share of a core above which a process does something, such as to load the class of an actor."""
IDLE = "ray::IDLE"
FIRST_LOOK_S, LAST_LOOK_S = 30.0, 600.0
"""How long workers wait before their nodes are looked at; twice as long after each look that
found nothing, up to the second of these."""
ANSWER_S = 60.0


def end_stranded() -> int:
    """End the worker processes of this node that have had nothing to do for 5 s; how many.

    A node whose cores are taken queues the leases that the head's server asks for. Where that
    server is killed meanwhile, the node later grants them to nobody: a process waits for an actor
    that never comes, and its cores are never free again. Ray does not tell such a process from one
    that waits for the next task; to end one of those costs no more than the start of another.

    Call it in a process of Ray's on that node.
    """
    before = _idle()
    time.sleep(QUIET_S)
    ended = 0
    for pid, now in _idle().items():
        then = before.get(pid)
        if then is None or then.birth != now.birth or now.cpu_s - then.cpu_s > BUSY * QUIET_S:
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            ended += 1
    return ended


def _idle() -> dict[int, Usage]:
    return {pid: usage for pid, usage in siblings().items() if usage.title == IDLE}


@final
class StrandedCores:
    """Frees such cores on all nodes while workers wait for one. It never waits for a node."""

    def __init__(self) -> None:
        self._pause_s = FIRST_LOOK_S
        self._since_s: float | None = None
        """Since when workers wait, or since the last look."""
        self._looks: list[ray.ObjectRef[int]] = []

    def tick(self, *, workers_wait: bool) -> None:
        """Begin to look, if it is time to.

        Raises:
            RayError, RuntimeError: The head is away.
        """
        now_s = time.monotonic()
        if not workers_wait:
            self._pause_s, self._since_s = FIRST_LOOK_S, None
            return
        if self._since_s is None:
            self._since_s = now_s
        if self._looks:
            done, missing = ray.wait(self._looks, num_returns=len(self._looks), timeout=0.0)
            if missing and now_s - self._since_s < ANSWER_S:
                return
            self._looks = []
            found = sum(map(_number, done))
            self._pause_s = FIRST_LOOK_S if found else min(2 * self._pause_s, LAST_LOOK_S)
        if now_s - self._since_s >= self._pause_s:
            self._since_s = now_s
            self._looks = [
                _end_stranded.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote()
                for node in ray.nodes()
                if node["Alive"] and node["Resources"].get("CPU", 0) > 0
            ]


_end_stranded = ray.remote(num_cpus=0, max_retries=0)(end_stranded)


def _number(look: ray.ObjectRef[int]) -> int:
    try:
        return ray.get(look)
    except RayError:  # the node was lost
        return 0
