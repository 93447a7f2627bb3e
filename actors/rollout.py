"""Playing: a player in N environments until every seed has been played; yields whole episodes and knows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from actors.envs import Envs, versions_of
from gato.episode import Episode
from gato.version import Version


@runtime_checkable
class Player(Protocol):
    """Whoever chooses actions for N rows."""

    def reset_rows(self, rows: Bool[np.ndarray, " N"], seeds: Shaped[np.ndarray, " N"]) -> None:
        """These rows begin a new episode, of these seeds."""
        ...

    def act(
        self,
        observations: Mapping[str, Shaped[np.ndarray, "N ..."]],
        extras: Mapping[str, Shaped[np.ndarray, "N ..."]],
        rewards: Float[np.ndarray, " N"],
    ) -> Shaped[np.ndarray, "N ..."]:
        """An action for each row; those of rows that do not play are not used. `rewards`: what the last ones were paid."""
        ...


class _Row:
    """The episode that one row is playing."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.observations: list[dict[str, np.ndarray]] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.labels: list[np.ndarray] = []


def play(
    envs: Envs,
    player: Player,
    seeds: Sequence[int],
    *,
    source: str,
    new_key: Callable[[], str],
    version: Version | None = None,
    with_extras: bool = False,
    labels_of: Callable[[], Shaped[np.ndarray, "N ..."] | None] | None = None,
) -> Iterator[Episode]:
    """Play one episode of each seed; yields them as they end. A row without a seed left waits for the others.

    for episode in play(envs, player, [7, 8, 9], source="agent", new_key=keys, version=version):
        sink.add(episode)
    """
    task, num_rows = envs.task, len(envs)
    waiting = list(seeds)[::-1]
    rows: list[_Row | None] = [None] * num_rows
    row_seeds = np.zeros(num_rows, np.int64)
    info = versions_of(task)

    def begin(row: int) -> None:
        rows[row] = _Row(waiting.pop()) if waiting else None
        begun = rows[row]
        if begun is not None:
            row_seeds[row] = begun.seed
            envs.reset_row(row, begun.seed)

    for row in range(num_rows):
        begin(row)
    player.reset_rows(np.ones(num_rows, np.bool_), row_seeds)
    rewards = np.zeros(num_rows, np.float32)
    while any(rows):
        seen = {name: values.copy() for name, values in envs.observations.items()}
        actions = player.act(seen, envs.extras() if with_extras else {}, rewards)
        labels = labels_of() if labels_of is not None else None
        playing = np.array([row is not None for row in rows])
        rewards, terminated, truncated = envs.step(actions, playing)
        fresh = np.zeros(num_rows, np.bool_)
        for index, row in enumerate(rows):
            if row is None:
                continue
            row.observations.append({name: values[index] for name, values in seen.items()})
            row.actions.append(actions[index])
            row.rewards.append(float(rewards[index]))
            if labels is not None:
                row.labels.append(labels[index])
            if terminated[index] or truncated[index]:
                yield Episode(
                    key=new_key(),
                    task=task.name,
                    source=source,
                    observations={name: np.stack([o[name] for o in row.observations]) for name in task.observations},
                    actions=np.stack(row.actions).astype(task.action.dtype),
                    rewards=np.asarray(row.rewards, np.float32),
                    labels=np.stack(row.labels).astype(task.action.dtype) if row.labels else None,
                    terminated=bool(terminated[index]),
                    truncated=bool(truncated[index]),
                    seed=row.seed,
                    version=version,
                    info=info,
                )
                begin(index)
                fresh[index] = True
        if fresh.any():
            player.reset_rows(fresh, row_seeds)
