"""The weights store under threads that ask it all the time; a part of `benchmarks.fleet`."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from benchmarks.timing import milliseconds
from cluster.supervision.weights_store import RemoteWeightsStore, StoreSink, StoreSource
from gato.config import PRESETS
from gato.network.model import Gato
from gato.version import Version
from gato.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRow:
    """What the weights store does for workers that ask all the time."""

    clients: int
    questions_per_s: float
    """Is there anything newer? There is not."""
    question_p99_ms: float
    publish_s: float
    """One publication while they ask, until it is durable."""
    pull_s: float
    """Until one process of the same node has its arrays."""
    megabytes: float


def measure_store(clients: int, folder: Path) -> StoreRow:
    """Publish a small Gato while threads ask for what is newer."""
    store: Any = RemoteWeightsStore.options(num_cpus=0).remote(folder / f"weights{clients}")
    model = Gato(PRESETS["small"])
    arrays = {
        name: np.asarray(value.detach().numpy().astype(np.float16)).view(np.uint16)
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    size = sum(array.nbytes for array in arrays.values())
    sink, source = StoreSink(store), StoreSource(store)
    sink.publish(Weights(version=Version(1, 1), learner_step=0, arrays=arrays))
    ends, asked_s = threading.Event(), list[float]()

    def ask() -> None:
        while not ends.is_set():
            begun_s = time.monotonic()
            ray.get(store.newer_than.remote(Version(9, 9)))
            asked_s.append(time.monotonic() - begun_s)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begun_s = time.monotonic()
    time.sleep(5.0)
    rate = len(asked_s) / (time.monotonic() - begun_s)
    begun_s = time.monotonic()
    sink.publish(Weights(version=Version(1, 2), learner_step=1, arrays=arrays))
    publish_s = time.monotonic() - begun_s
    begun_s = time.monotonic()
    assert source.newer_than(Version(1, 1)) is not None
    pull_s = time.monotonic() - begun_s
    ends.set()
    for thread in threads:
        thread.join()
    ray.kill(store)
    return StoreRow(
        clients=clients,
        questions_per_s=round(rate, 1),
        question_p99_ms=milliseconds(asked_s, 99),
        publish_s=round(publish_s, 3),
        pull_s=round(pull_s, 3),
        megabytes=round(size / 1e6, 1),
    )
