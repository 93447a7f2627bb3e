"""New weights to the workers, from a model that learns to models that play: this project's store,
which workers pull bfloat16 from, against RLlib's broadcast to its EnvRunners."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from actors.tasks.catalog import TASKS
from benchmarks.actors.players import players_of
from benchmarks.actors.ray import ray_of
from benchmarks.rows import Row
from benchmarks.train import ratio, take_turns
from cluster.supervision.weights_store import RemoteWeightsStore, StoreSink, StoreSource
from gato.config import PRESETS
from gato.network.model import Gato
from gato.threads import use_threads
from gato.version import Version
from gato.weights import Weights, acting_config, snapshot

NUM_WORKERS = 2
PRESETS_SENT = ("small", "79m")
TURNS = 7
ASK_AGAIN_S = 0.002


class Puller:
    """A worker of ours as far as weights go."""

    def __init__(self, source: StoreSource, preset: str) -> None:
        use_threads(1)
        self._source = source
        self._player = players_of(preset)(TASKS["mujoco/hopper"], 1, "evaluate")

    def pull(self, after: Version) -> Version:
        """Play with what is newer, once it is there; its version."""
        while (weights := self._source.newer_than(after)) is None:
            time.sleep(ASK_AGAIN_S)
        self._player.load(weights)
        return weights.version


class GatoModule(TorchRLModule):
    """A Gato as a module of RLlib's, as far as weights go."""

    def setup(self) -> None:
        self.gato = Gato(acting_config(PRESETS[self.model_config["preset"]]))


def ours(preset: str, folder: Path) -> tuple[Callable[[], None], Callable[[], None]]:
    """Publish until all workers have it, which is before it is on the disk; and wait for that."""
    store = RemoteWeightsStore.options(num_cpus=0).remote(folder)
    source, sink, model = StoreSource(store), StoreSink(store), Gato(acting_config(PRESETS[preset]))
    make: Any = ray.remote(num_cpus=0)(Puller)
    pullers = [make.remote(source, preset) for _ in range(NUM_WORKERS)]
    writing: list[threading.Thread] = []
    number = 0

    def once() -> None:
        nonlocal number
        before, number = Version(1, number), number + 1
        pulled = [puller.pull.remote(before) for puller in pullers]
        weights = Weights(version=Version(1, number), learner_step=number, arrays=snapshot(model))
        writing[:] = [threading.Thread(target=sink.publish, args=[weights])]
        writing[0].start()
        got = ray.get(pulled)
        assert all(Version(*version) == Version(1, number) for version in got)

    return once, lambda: writing[0].join()


def theirs(preset: str) -> Callable[[], None]:
    """`sync_weights` of an EnvRunnerGroup to its remote EnvRunners, waited for."""
    spec = RLModuleSpec(module_class=GatoModule, model_config={"preset": preset})
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=NUM_WORKERS, num_cpus_per_env_runner=0)
        .rl_module(rl_module_spec=spec)
    )
    group = EnvRunnerGroup(config=config, local_env_runner=True)
    local: Any = group.local_env_runner
    local.module.eval()
    number = 0

    def once() -> None:
        nonlocal number
        number += 1
        # Without a newer number EnvRunners leave their weights as they are.
        local._weights_seq_no = number
        group.sync_weights(timeout_seconds=None, inference_only=False)

    return once


def weights() -> Iterator[Row]:
    """Two workers on this machine, for each preset."""
    with tempfile.TemporaryDirectory() as folder, ray_of(NUM_WORKERS):
        for preset in PRESETS_SENT:
            publish, finish = ours(preset, Path(folder) / preset)
            work = {"ours": publish, "theirs": theirs(preset)}
            seconds = take_turns(work, TURNS, after=finish)
            yield {
                "path": f"weights to {NUM_WORKERS} workers, {preset}, and EnvRunners",
                "against": f"RLlib {version('ray')}'s sync_weights: float32, and no copy on disk",
                "ours_s": float(np.median(seconds["ours"])),
                "theirs_s": float(np.median(seconds["theirs"])),
                "ratio": ratio(seconds["ours"], seconds["theirs"]),
            }
