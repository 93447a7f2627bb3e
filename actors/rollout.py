"""Rollouts: a player acts in N environments until every seed has been played; yields whole
episodes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ParamSpec

import numpy as np
from jaxtyping import Shaped

from actors.envs.env import EnvFailedError
from actors.envs.vector import Stepped, VectorEnv
from actors.players.player import Player, TimeStep
from gato.episode import AGENT, SUCCESS, Episode
from gato.task import Task
from gato.version import Version

P = ParamSpec("P")
BLOCK_STEPS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """An episode that its environment did not let end."""

    task: str
    seed: int
    step: int
    """Steps that were complete before it broke."""
    reason: str

    def __str__(self) -> str:
        return f"{self.task} broke at step {self.step} of seed {self.seed}: {self.reason}"


class _Steps:
    """An array [T, ...] that grows by a step at a time, in blocks. An array for each step would lie
    between those that acting needs for a moment, and the process grow to a multiple of its
    episodes (glibc's heap, fragmented)."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._filled = BLOCK_STEPS
        """Steps of the last block."""

    def append(self, values: np.ndarray, row: int) -> None:
        """Add a copy of a row of values [N, ...]."""
        if self._filled == BLOCK_STEPS:
            self._blocks.append(np.empty((BLOCK_STEPS, *values.shape[1:]), values.dtype))
            self._filled = 0
        self._blocks[-1][self._filled] = values[row]
        self._filled += 1

    def whole(self) -> np.ndarray:
        """All steps, at least one."""
        return np.concatenate([*self._blocks[:-1], self._blocks[-1][: self._filled]])


class _Recording:
    """The episode that one row is playing, step by step."""

    def __init__(self, seed: int, task: Task) -> None:
        self.seed = seed
        self.observations = {name: _Steps() for name in task.observations}
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.labels: list[np.ndarray] = []

    def episode(
        self,
        envs: VectorEnv,
        *,
        key: str,
        source: str,
        version: Version | None,
        terminated: bool,
        truncated: bool,
        notes: Sequence[str],
        success: bool | None,
    ) -> Episode:
        """The steps so far as an episode: arrays [T, ...] in the dtypes of the task."""
        task = envs.task
        info = dict(envs.versions)
        if notes:
            info["teacher"] = "; ".join(notes)
        if success is not None:
            info[SUCCESS] = "yes" if success else "no"
        return Episode(
            key=key,
            task=task.name,
            source=source,
            observations={name: steps.whole() for name, steps in self.observations.items()},
            actions=np.stack(self.actions).astype(task.action.dtype),
            rewards=np.asarray(self.rewards, np.float32),
            labels=np.stack(self.labels).astype(task.action.dtype) if self.labels else None,
            terminated=terminated,
            truncated=truncated,
            seed=self.seed,
            version=version,
            info=info,
        )


def _random_key() -> str:
    return uuid.uuid4().hex


def rollout(
    envs: VectorEnv,
    player: Player,
    seeds: Sequence[int],
    *,
    source: str = AGENT,
    new_key: Callable[[], str] = _random_key,
    version: Version | None = None,
    with_extras: bool = False,
    labels_of: Callable[[], Shaped[np.ndarray, "N ..."] | None] | None = None,
    notes: Sequence[str] = (),
    max_steps: int | None = None,
    on_reset: Callable[[], None] | None = None,
) -> Iterator[Episode | Dropped]:
    """Play one episode of each seed; yield each as it ends.

    A row without a seed left waits for the others. An environment that breaks costs its episode
    alone: it is made again for the next seed.

    for episode in rollout(envs, player, [7, 8, 9]):
        ...

    Args:
        source: Who acts, recorded in each episode.
        new_key: Called once an episode, for a key that is unique in replay.
        version: The weights that act, recorded in each episode.
        with_extras: Whether the player gets `TimeStep.extras`.
        labels_of: Called after each `act`, for the labels [N, *shape] of that step.
        notes: What is known of the teacher, recorded in each episode.
        max_steps: Where episodes are cut off, as truncated ones. None: at their end.
        on_reset: Called after each reset: those of all rows come before the first step.

    Yields:
        An `Episode`, or a `Dropped` with the reason in the place of one that broke.
    """
    num_rows = len(envs)
    waiting = list(seeds)[::-1]
    rows: list[_Recording | None] = [None] * num_rows
    row_seeds = np.zeros(num_rows, np.int64)

    def begin(row: int) -> Iterator[Dropped]:
        """Begin the next seed whose environment lets it; the row is idle if none is left."""
        rows[row] = None
        while waiting and rows[row] is None:
            seed = waiting.pop()
            try:
                envs.reset_row(row, seed)
            except EnvFailedError as problem:
                yield Dropped(
                    task=envs.task.name, seed=seed, step=0, reason=repr(problem.__cause__)
                )
                continue
            finally:
                if on_reset is not None:
                    on_reset()
            rows[row], row_seeds[row] = _Recording(seed, envs.task), seed

    for row in range(num_rows):
        yield from begin(row)
    # At first all rows count as begun, idle ones as well: a player that has played before forgets
    # everything, and the same seeds give the same bits again.
    is_first = np.ones(num_rows, np.bool_)
    rewards = np.zeros(num_rows, np.float32)
    while any(rows):
        step = TimeStep(
            # Copies: the environments write the next observations [N, ...] into the same arrays.
            observations={name: values.copy() for name, values in envs.observations.items()},
            rewards=rewards,
            active=np.array([row is not None for row in rows]),
            is_first=is_first,
            seeds=row_seeds.copy(),
            extras=envs.extras() if with_extras else {},
        )
        actions = player.act(step)
        labels = labels_of() if labels_of is not None else None
        stepped = envs.try_step(actions, step.active)
        rewards, is_first = stepped.rewards, np.zeros(num_rows, np.bool_)
        for index in np.flatnonzero(step.active).tolist():
            row = rows[index]
            assert row is not None
            if index in stepped.broken:
                # Its last observation and action are not kept: their reward is unknown.
                yield Dropped(
                    task=envs.task.name,
                    seed=row.seed,
                    step=len(row.actions),
                    reason=stepped.broken[index],
                )
            else:
                _record(row, index, step, actions, labels, stepped)
                terminated = bool(stepped.terminated[index])
                truncated = bool(stepped.truncated[index])
                truncated |= not terminated and len(row.actions) == max_steps
                if not (terminated or truncated):
                    continue
                yield row.episode(
                    envs,
                    key=new_key(),
                    source=source,
                    version=version,
                    terminated=terminated,
                    truncated=truncated,
                    notes=notes,
                    success=envs.success(index),
                )
            yield from begin(index)
            is_first[index] = True


def _record(
    row: _Recording,
    index: int,
    step: TimeStep,
    actions: Shaped[np.ndarray, "N ..."],
    labels: Shaped[np.ndarray, "N ..."] | None,
    stepped: Stepped,
) -> None:
    """Append what row `index` saw, did and received."""
    for name, steps in row.observations.items():
        steps.append(step.observations[name], index)
    row.actions.append(actions[index])
    row.rewards.append(float(stepped.rewards[index]))
    if labels is not None:
        row.labels.append(labels[index])


def _strict(played: Callable[P, Iterator[Episode | Dropped]]) -> Callable[P, Iterator[Episode]]:
    """The same, but an environment that breaks ends it with EnvFailedError."""

    def play(*args: P.args, **kwargs: P.kwargs) -> Iterator[Episode]:
        for episode in played(*args, **kwargs):
            if isinstance(episode, Dropped):
                raise EnvFailedError(str(episode))
            yield episode

    return play


play = _strict(rollout)
"""As `rollout`, but raises EnvFailedError at the first episode that breaks.

for episode in play(make_envs(task, 4), player, range(10)):
    print(episode.episode_return)
"""
