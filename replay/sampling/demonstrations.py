"""Demonstrations: the beginnings of good ones, as prompts for acting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gato.sequence import Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.sampling.candidates import best_returns, passes_filters, scores
from replay.sampling.config import MixConfig
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.store import EpisodeStore

PROMPT_ROLE = 4
"""Distinguishes the generator of prompts for acting from those of other parts of a run."""


class Demonstrations:
    """Prompts for acting, from the episodes that the mixture may draw. One thread at a time.

    demonstrations = Demonstrations(store, tasks, layout, config, seed=0, teacher_returns={})
    window = demonstrations.window("mujoco/hopper", num_steps=20)
    """

    def __init__(
        self,
        store: EpisodeStore,
        tasks: Mapping[str, Task],
        layout: TokenLayout,
        config: MixConfig,
        *,
        seed: int,
        teacher_returns: Mapping[str, float],
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._config = config
        self._seed = seed
        self._best = best_returns(tasks, teacher_returns)
        self._with_returns = layout.return_place is not None
        """Whether the model is return-conditioned, so that prompts have returns."""

    def window(
        self, task_name: str, num_steps: int, *, draw: int = 0, source: str | None = None
    ) -> Window | None:
        """The first steps of a successful demonstration. The same `draw` and store give the same
        one.

        Returns:
            At most `num_steps` steps; None if there is no demonstration, or none of `source`.

        Raises:
            ValueError: if no task has this name.
        """
        task = self._tasks.get(task_name)
        if task is None:
            raise ValueError(
                f"no task {task_name!r} in this run; there are {', '.join(sorted(self._tasks))}"
            )
        while True:
            rng = np.random.default_rng([self._seed, PROMPT_ROLE, draw])
            header = self._good_one(task, rng, source)
            if header is None:
                return None
            try:
                return self._beginning(header, min(num_steps, header.steps))
            except DamagedEpisode as damaged:
                self._store.quarantine(header, str(damaged))
            except EpisodeGone as gone:
                self._store.gone(gone.numbers)

    def _good_one(self, task: Task, rng: np.random.Generator, source: str | None) -> Header | None:
        """One of the better half of the demonstrations, by return."""
        index = self._store.index
        snapshot = index.snapshot()
        of_task = snapshot.task == index.tasks.get(task.name, -1)
        score = scores(snapshot, index.tasks, self._tasks, self._best)
        inside = passes_filters(snapshot, of_task, score, self._config, index.newest_version)
        inside &= (
            ~snapshot.by_agent
            if source is None
            else snapshot.source == index.sources.get(source, -1)
        )
        rows = np.flatnonzero(inside)
        if not len(rows):
            return None
        good = rows[np.argsort(snapshot.episode_return[rows], kind="stable")][len(rows) // 2 :]
        return self._store.episodes.get(int(snapshot.number[good[int(rng.integers(len(good)))]]))

    def _beginning(self, header: Header, stop: int) -> Window:
        """Steps [0, stop), with labels in place of actions where there are labels."""
        window = self._store.read(header, 0, stop)
        labels = (
            self._store.column(header, "labels", 0, stop)
            if "labels" in header.columns
            else window.actions
        )
        returns = None
        if self._with_returns:
            # The return-to-go counts all rewards that follow, also those behind the prompt.
            rewards = self._store.column(header, "rewards", 0, header.steps)
            returns = np.cumsum(rewards[::-1], dtype=np.float64)[::-1][:stop]
        return Window(observations=window.observations, actions=labels, returns=returns)
