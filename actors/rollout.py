"""Playing: a player in N environments until every seed has been played; yields whole episodes and
what was dropped, and knows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from actors.envs.factory import EnvFailedError, Envs
from gato.episode import Episode
from gato.version import Version

P = ParamSpec("P")


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
        """An action for each row; those of rows that do not play are not used. `rewards`: what the
        last ones were paid."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """An episode that its environment did not let end."""

    task: str
    seed: int
    step: int
    """Steps that were whole before it broke."""
    reason: str

    def __str__(self) -> str:
        return f"{self.task} broke at step {self.step} of seed {self.seed}: {self.reason}"


class _Row:
    """The episode that one row is playing."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.observations: list[dict[str, np.ndarray]] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.labels: list[np.ndarray] = []


def play_on(
    envs: Envs,
    player: Player,
    seeds: Sequence[int],
    *,
    source: str,
    new_key: Callable[[], str],
    version: Version | None = None,
    with_extras: bool = False,
    labels_of: Callable[[], Shaped[np.ndarray, "N ..."] | None] | None = None,
    notes: Sequence[str] = (),
) -> Iterator[Episode | Dropped]:
    """Play one episode of each seed; yields them as they end. A row without a seed left waits for
    the others. An environment that breaks costs its episode alone: it is made anew for the next
    seed. `notes`, of the teacher, are kept with each.

    for episode in play_on(envs, player, [7, 8, 9], source="agent", new_key=keys, version=version):
        sink.add(episode)
    """
    task, num_rows = envs.task, len(envs)
    waiting = list(seeds)[::-1]
    rows: list[_Row | None] = [None] * num_rows
    row_seeds = np.zeros(num_rows, np.int64)

    def begin(row: int) -> Iterator[Dropped]:
        """The next seed that can be begun."""
        rows[row] = None
        while waiting and rows[row] is None:
            seed = waiting.pop()
            try:
                envs.reset_row(row, seed)
            except EnvFailedError as problem:
                yield Dropped(task=task.name, seed=seed, step=0, reason=repr(problem.__cause__))
                continue
            rows[row], row_seeds[row] = _Row(seed), seed

    for row in range(num_rows):
        yield from begin(row)
    player.reset_rows(np.ones(num_rows, np.bool_), row_seeds)
    rewards = np.zeros(num_rows, np.float32)
    while any(rows):
        seen = {name: values.copy() for name, values in envs.observations.items()}
        actions = player.act(seen, envs.extras() if with_extras else {}, rewards)
        labels = labels_of() if labels_of is not None else None
        playing = np.array([row is not None for row in rows])
        stepped = envs.try_step(actions, playing)
        rewards = stepped.rewards
        fresh = np.zeros(num_rows, np.bool_)
        for index, row in enumerate(rows):
            if row is None:
                continue
            if index in stepped.broken:
                yield Dropped(
                    task=task.name,
                    seed=row.seed,
                    step=len(row.actions),
                    reason=stepped.broken[index],
                )
                yield from begin(index)
                fresh[index] = True
                continue
            row.observations.append({name: values[index] for name, values in seen.items()})
            row.actions.append(actions[index])
            row.rewards.append(float(rewards[index]))
            if labels is not None:
                row.labels.append(labels[index])
            if stepped.terminated[index] or stepped.truncated[index]:
                yield Episode(
                    key=new_key(),
                    task=task.name,
                    source=source,
                    observations={
                        name: np.stack([o[name] for o in row.observations])
                        for name in task.observations
                    },
                    actions=np.stack(row.actions).astype(task.action.dtype),
                    rewards=np.asarray(row.rewards, np.float32),
                    labels=np.stack(row.labels).astype(task.action.dtype) if row.labels else None,
                    terminated=bool(stepped.terminated[index]),
                    truncated=bool(stepped.truncated[index]),
                    seed=row.seed,
                    version=version,
                    info={**envs.versions, "teacher": "; ".join(notes)} if notes else envs.versions,
                )
                yield from begin(index)
                fresh[index] = True
        if fresh.any():
            player.reset_rows(fresh, row_seeds)


def unbroken(played: Callable[P, Iterator[Episode | Dropped]]) -> Callable[P, Iterator[Episode]]:
    """The same play, in which an environment that breaks ends it all: EnvFailedError."""

    def play(*args: P.args, **kwargs: P.kwargs) -> Iterator[Episode]:
        for episode in played(*args, **kwargs):
            if isinstance(episode, Dropped):
                raise EnvFailedError(str(episode))
            yield episode

    return play


play = unbroken(play_on)
