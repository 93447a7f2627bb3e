"""A training in this process, without Ray: episodes into a store, a learner that goes on from its
last checkpoint, and the model played as it acts in a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from actors.envs.factory import WorkerEnvs
from actors.players.gato_player import GatoPlayer
from actors.players.player import Player
from actors.rollout import play
from cluster.runs.config import RunConfig
from cluster.runs.resolve import tasks_of
from cluster.supervision.scheduler import EVALUATION_SEED
from gato.acting.config import ActingConfig
from gato.episode import Episode
from gato.network.model import Gato
from gato.sequence import Batch, Window
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, acting_config, snapshot
from learner.loop import Learner
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes

MOST_ENVS = 10
Play = Callable[[Player, Task, int], Sequence[float]]
"""Returns of a player's episodes, of (player, task, number)."""


class _Source:
    """Replay as the learner's source."""

    def __init__(self, service: ReplayService) -> None:
        self._service = service

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        return self._service.next_batch(index, timeout_s=timeout_s)


class _NoSink:
    def publish(self, weights: Weights) -> bool:
        return True


class Training:
    """One training, kept in a folder: what was stored and learned before is not done again.

    with Training(config, folder, tasks, episodes=lambda: demonstrate(task, episodes=10, seed=0)) \\
            as training:
        model = training.run()
        returns = returns_of(GatoPlayer.from_model(model, task, num_envs=10), task, 20)
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        episodes: Callable[[], Iterable[Episode]],
        tasks: Mapping[str, Task] | None = None,
    ) -> None:
        """Args:
        folder: Of this training alone.
        episodes: Called if they are not all stored; those that are stored are skipped by their
            keys.
        tasks: By name. None: those of the catalogue that the config names.
        """
        self._config = config
        self._folder = folder
        self.tasks = dict(tasks or tasks_of(config))
        folder.mkdir(parents=True, exist_ok=True)
        self.service = ReplayService(
            folder / "replay", self.tasks, config.model.layout, config.replay, seed=config.seed
        )
        filled = folder / "filled"
        if not filled.exists():
            for episode in episodes():
                added = self.service.add(
                    record_to_bytes(pack(episode)), timeout_s=60.0, is_paced=False
                )
                if added.status not in ("stored", "duplicate"):
                    raise ValueError(f"{episode.key} was not stored: {added.reason}")
            filled.touch()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()

    def run(self, *, begins_with: Gato | None = None) -> Gato:
        """Train to the last update, from the last checkpoint if there is one, else from the weights
        of a model of the same shape, else from random ones."""
        learner = Learner(
            self._config.learner, self._config.model, _Source(self.service), _NoSink(),
            self._folder / "checkpoints", epoch=1, task_names=list(self.tasks),
            seed=self._config.seed, in_background=False,
        )  # fmt: skip
        if begins_with is not None and not learner.progress.step:
            learner.model.load_state_dict(begins_with.state_dict())
        if learner.progress.step < self._config.learner.num_updates:
            for _ in learner.run():
                pass
        return learner.model.eval()


def returns_of(
    player: Player, task: Task, episodes: int, *, first_seed: int = EVALUATION_SEED
) -> list[float]:
    """Returns of whole episodes, by seed, in at most `MOST_ENVS` environments. The player has one
    row for each."""
    envs = WorkerEnvs()(task, min(MOST_ENVS, episodes))
    try:
        seeds = range(first_seed, first_seed + episodes)
        played = {e.seed: e.episode_return for e in play(envs, player, seeds)}
    finally:
        envs.close()
    return [played[seed] for seed in seeds]


def gato_returns(
    model: Gato,
    task: Task,
    acting: ActingConfig,
    episodes: int,
    *,
    prompt: Window | None = None,
    play: Play | None = None,
) -> list[float]:
    """Returns of the model on a task, each episode begun with the prompt.

    `play`: plays whole episodes, where the task is none of the catalogue's; see `returns_of`.
    """
    player = GatoPlayer(
        Gato(acting_config(model.config)).eval().requires_grad_(False),
        task,
        acting,
        num_envs=min(MOST_ENVS, episodes),
        find_prompt=lambda: prompt,
    )
    player.load(Weights(version=Version(1, 1), learner_step=0, arrays=snapshot(model)))
    return list((play or returns_of)(player, task, episodes))


class Kept:
    """Results in a JSON file, entry by entry: what was measured before is not measured again.

    kept = Kept(RESULTS / "mine.json")
    entry = kept.get_or({"seed": 0}, lambda: {"return": measure()})
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.entries: list[dict[str, Any]] = []
        with suppress(FileNotFoundError):
            self.entries = json.loads(file.read_text())

    def get_or(
        self, label: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The entry of this label; measured and written if it is not there."""
        for entry in self.entries:
            if all(name in entry and entry[name] == value for name, value in label.items()):
                return entry
        entry = {**label, **measure()}
        self.entries.append(entry)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self.entries, indent=1) + "\n")
        print(json.dumps({**label, "mean": entry.get("mean")}), flush=True)
        return entry


def summary(returns: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and all returns, rounded."""
    return {
        "mean": round(float(np.mean(returns)), 2),
        "std": round(float(np.std(returns)), 2),
        "returns": [round(value, 2) for value in returns],
    }
