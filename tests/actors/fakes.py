"""Fakes: an environment that counts, players that echo, and the two ends of a worker as lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from actors.envs.vector import VectorEnv
from actors.players.player import TimeStep
from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode
from gato.task import References, Task
from gato.version import Version
from gato.weights import Weights

COUNTING = Task(
    name="fake/counting",
    env_id="Counting-v0",
    family="mujoco",
    observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,))},
    action=ArraySpec(kind=Kind.CONTINUOUS, shape=(1,), low=-1e6, high=1e6),
    references=References(random=0.0, expert=1.0, source="made up"),
    max_steps=100,
)


class CountingEnv:
    """Shows (seed, step). An episode lasts 3 + seed % 5 steps and ends itself for even seeds, is
    cut for odd ones."""

    def __init__(self, breaks_at_seed: int | None = None, pays: float = 1.0) -> None:
        self._breaks_at_seed = breaks_at_seed
        self._pays = pays
        self.seed, self.count, self.actions = -1, 0, list[float]()

    def _observation(self) -> dict[str, np.ndarray]:
        return {"state": np.array([self.seed, self.count], np.float32)}

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.seed, self.count = seed, 0
        return self._observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        if self.seed == self._breaks_at_seed and self.count == 2:
            raise OSError("the wheels came off")
        self.actions.append(float(action[0]))
        self.count += 1
        ended = self.count == 3 + self.seed % 5
        return (
            self._observation(),
            self._pays * self.count,
            ended and self.seed % 2 == 0,
            ended and self.seed % 2 == 1,
        )

    def extras(self) -> dict[str, np.ndarray]:
        return {"secret": np.array([self.count], np.uint8)}

    def close(self) -> None: ...


def counting_envs(
    num_envs: int, *, breaks_at_seed: int | None = None, pays: float = 1.0
) -> VectorEnv:
    return VectorEnv(COUNTING, [CountingEnv(breaks_at_seed, pays) for _ in range(num_envs)])


class EchoPlayer:
    """Answers with the step that it was shown, and notes which rows began."""

    def __init__(self) -> None:
        self.begun: list[tuple[list[int], list[int]]] = []
        self.seen_extras: list[Mapping[str, np.ndarray]] = []

    def act(self, step: TimeStep) -> np.ndarray:
        if step.is_first.any():
            first = step.is_first
            self.begun.append((np.flatnonzero(first).tolist(), step.seeds[first].tolist()))
        self.seen_extras.append(step.extras)
        return step.observations["state"][:, 1:]


class RandomPlayer:
    """Uniform actions from a generator for each row, so that a row's episode depends on its seed
    alone."""

    def __init__(self, task: Task) -> None:
        self._spec = task.action
        self._rngs: dict[int, np.random.Generator] = {}

    def act(self, step: TimeStep) -> np.ndarray:
        for row in np.flatnonzero(step.is_first).tolist():
            self._rngs[row] = np.random.default_rng(int(step.seeds[row]))
        spec, rngs = self._spec, [self._rngs[row] for row in range(step.num_rows)]
        if spec.kind is Kind.DISCRETE:
            return np.stack([rng.integers(spec.num_values or 0, size=spec.shape) for rng in rngs])
        assert spec.low is not None
        actions = [rng.uniform(spec.low, spec.high or 0.0, spec.shape) for rng in rngs]
        return np.stack(actions).astype(spec.dtype)


class WeightedEcho(EchoPlayer):
    """An echo that notes which versions were loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[Version] = []

    def load(self, weights: Weights) -> None:
        self.loaded.append(weights.version)


@dataclass(frozen=True)
class Answer:
    status: str = "stored"
    reason: str = ""


@dataclass
class ListSink:
    """Keeps what it stores; returns `answers` in turn, then `stored`."""

    answers: list[Answer] = field(default_factory=list[Answer])
    episodes: list[Episode] = field(default_factory=list[Episode])
    tries: int = 0

    def add(self, episode: Episode) -> Answer:
        self.tries += 1
        answer = self.answers.pop(0) if self.answers else Answer()
        if answer.status == "stored":
            self.episodes.append(episode)
        return answer


@dataclass
class ListSource:
    """Offers the versions in turn, also if they are not newer, as a faulty source would."""

    versions: list[Version]

    def newer_than(self, version: Version | None) -> Weights | None:
        if not self.versions:
            return None
        offered = self.versions.pop(0)
        return Weights(version=offered, learner_step=10 * offered.number, arrays={})
