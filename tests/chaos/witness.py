"""A writer beside the run's workers, which keeps a list of what replay acknowledged to it.

    python -m tests.chaos.witness HEAD:PORT NAMESPACE LOG

Runs until it is killed. `LOG` gets `try KEY` before an episode is sent and `ok KEY` once replay has
acknowledged it. Started again with the same list, it first sends the episode again of which it does
not know whether it arrived.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray

from actors.tasks.resolve import resolve_task
from cluster.nodes.connect import connect_ray
from gato.episode import AGENT, Episode
from gato.version import Version
from replay.clients import RemoteEpisodeSink
from replay.remote import Shards

TASK = "mujoco/inverted-pendulum"
STREAM = "witness.0"
PAUSE_S = 0.3


def episode(number: int) -> Episode:
    """The episode of a number: a short one of the agent's, which no return filter lets through."""
    task = resolve_task(TASK)
    steps = 5 + number % 20
    observations = {
        name: np.full((steps, *spec.shape), 0.01 * (number % 50), np.float32)
        for name, spec in task.observations.items()
    }
    return Episode(
        key=f"{STREAM}.{number}",
        task=task.name,
        source=AGENT,
        observations=observations,
        actions=np.zeros((steps, *task.action.shape), np.float32),
        rewards=np.ones(steps, np.float32),
        terminated=True,
        truncated=False,
        seed=number,
        version=Version(1, 1),
    )


def poison(number: int) -> Episode:
    """An episode that replay must refuse: a reward that is no number."""
    good = episode(number)
    return replace(
        good, key=f"poison.0.{number}", rewards=np.full(good.num_steps, np.nan, np.float32)
    )


def acknowledged(log: Path) -> list[str]:
    """Keys that replay acknowledged."""
    return [line[3:] for line in _lines(log) if line.startswith("ok ")]


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.is_file() else []


def main() -> None:
    """Write until killed."""
    address, namespace, log = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    tried = sum(line.startswith("try ") for line in _lines(log))
    number = tried if len(acknowledged(log)) == tried else tried - 1
    connect_ray(address, namespace=namespace)
    names = sorted(n for n in ray.util.list_named_actors() if n.startswith("replay-"))
    if not names:
        raise SystemExit("no replay yet")
    sink = RemoteEpisodeSink(Shards(tuple(map(ray.get_actor, names))), patience_s=30.0)
    with log.open("a", buffering=1) as out:
        while True:
            if number >= tried:
                out.write(f"try {number}\n")
                tried = number + 1
            answer = sink.add(episode(number))
            if answer.status in ("stored", "duplicate"):
                out.write(f"ok {STREAM}.{number}\n")
                number += 1
                if number % 20 == 0 and (answer := sink.add(poison(number))).status != "rejected":
                    out.write(f"poison taken {number}: {answer.status}\n")
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
