"""The mix: batch number i is drawn with a generator of its own, so it is the same whenever it is
asked for.

For each row: a table by its share, a task by its weight, then windows of its episodes, each step of
each episode being equally likely unless the table's selector says otherwise; in some rows every
window follows a prompt from another episode of the same task and source (paper section 2.3).

Shape letters: B rows, R rows of one task in one table, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float64

from gato.metrics import Amount
from gato.sequence import Batch, StepLayout, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.sampling.candidates import (
    Readable,
    best_returns,
    items_of,
    left_out,
    may_read,
    members,
    readable,
    scores,
)
from replay.sampling.collate import Composer, DamagedDraw
from replay.sampling.config import MixConfig, TaskMix
from replay.sampling.raw_windows import WindowReader, Windows
from replay.sampling.sample_info import Sample, info_of
from replay.sampling.window_draw import Draw, fill_rows, in_order, one_window_each
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.store import EpisodeStore

RANDOM_ROLE, PROMPT_ROLE, WINDOWS_ROLE = 3, 4, 6
"""Distinguish the generators of batches, of prompts for acting and of raw windows from those of
other parts of a run."""
CACHE_BYTES = 256 << 20


def by_priority(selector: str) -> bool:
    """Whether a selector looks at priorities."""
    return any(word in selector for word in ("prioritized", "heap"))


def least_steps(config: MixConfig, settings: TaskMix) -> int:
    """Steps of a task that a row must have room for: a window, and a prompt where there are
    prompts."""
    prompt = (config.prompt_steps or 1) if config.prompt_fraction else 0
    return (settings.window_steps or 1) + prompt


class Mix:
    """Draws batches from a store. One thread at a time.

    mix = Mix(store, tasks, layout, config, seed=0, teacher_returns={})
    batch = mix.sample(17)        # None: nothing may be read yet
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
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._store = store
        self._tasks = list(tasks.values())
        self._by_name = tasks
        self._config = config
        self._seed = seed
        self._with_returns = layout.return_place is not None
        self.layouts = {task.name: StepLayout(task, layout) for task in self._tasks}
        self._settings = [config.tasks.get(task.name, TaskMix()) for task in self._tasks]
        self._check()
        self._weights = np.array(
            [
                task.weight if s.weight is None else s.weight
                for task, s in zip(self._tasks, self._settings, strict=True)
            ]
        )
        self._best = best_returns(tasks, teacher_returns)
        self._tables = list(config.tables.values())
        self._shares = np.array([table.share for table in self._tables])
        self._count_draws = any(table.max_times_sampled is not None for table in self._tables)
        self._readable: list[list[Readable]] = []
        """By table and task."""
        self._cumulative = np.zeros(1)
        """Of the chances of each task in each table that a row is drawn from it."""
        self._seen_change = -1
        self._cache_bytes = cache_bytes
        self._reader: WindowReader | None = None
        self._composer = Composer(
            store,
            list(self.layouts.values()),
            num_rows=config.rows,
            row_tokens=config.row_tokens,
            loss_on_prompt=config.loss_on_prompt,
            cache_bytes=cache_bytes,
        )

    def _check(self) -> None:
        unknown = set(self._config.tasks) - set(self.layouts)
        if unknown:
            raise ValueError(
                f"the mix has settings for {sorted(unknown)[0]!r}, which is no task of this run"
            )
        for task, settings in zip(self._tasks, self._settings, strict=True):
            if task.references is None and self._config.min_demonstration_score is not None:
                raise ValueError(
                    f"min_demonstration_score {self._config.min_demonstration_score} is of a"
                    f" normalised return, and task {task.name} has no references to normalise by;"
                    " set min_demonstration_score=null"
                )
            steps = least_steps(self._config, settings)
            needed = steps * self.layouts[task.name].tokens_per_step
            weight = task.weight if settings.weight is None else settings.weight
            if weight and needed > self._config.row_tokens:
                raise ValueError(
                    f"{steps} steps of {task.name} (a window, with its prompt) take {needed}"
                    f" tokens, a row has {self._config.row_tokens}; raise row_tokens, lower"
                    " window_steps, or set prompt_fraction=0"
                )

    def _look(self) -> list[list[Readable]]:
        """What may be read of each task in each table, brought up to what the store holds now."""
        index = self._store.index
        if index.change == self._seen_change and not self._count_draws:
            return self._readable
        snapshot = index.snapshot(fresh=self._count_draws)
        newest = index.newest_version
        score = scores(snapshot, index.tasks, self._by_name, self._best)
        out = [list[Readable]() for _ in self._tables]
        for task in self._tasks:
            of_task = snapshot.task == index.tasks.get(task.name, -1)
            passed = may_read(snapshot, of_task, score, self._config, newest)
            for table, made in zip(self._tables, out, strict=True):
                rows = np.flatnonzero(passed & members(table, snapshot.by_agent, snapshot.labelled))
                items = items_of(snapshot, rows, score, newest)
                made.append(
                    readable(snapshot, rows, items, table, self._config.age_half_life_versions)
                )
        self._readable, self._seen_change = out, snapshot.change
        self._cumulative = np.cumsum(self._chances(out))
        return out

    def left_out(self) -> dict[str, dict[str, Amount]]:
        """What is stored but never drawn, by task and reason; only tasks of which there is some."""
        index = self._store.index
        snapshot = index.snapshot(fresh=self._count_draws)
        score = scores(snapshot, index.tasks, self._by_name, self._best)
        out: dict[str, dict[str, Amount]] = {}
        for task, weight in zip(self._tasks, self._weights.tolist(), strict=True):
            of_task = snapshot.task == index.tasks.get(task.name, -1)
            if not of_task.any():
                continue
            if weight > 0:
                reasons = left_out(snapshot, of_task, score, self._config, index.newest_version)
            else:
                steps = int(snapshot.steps[of_task].sum())
                reasons = {
                    "its task has weight 0": Amount(episodes=int(of_task.sum()), steps=steps)
                }
            if reasons:
                out[task.name] = reasons
        return out

    @property
    def draws_by_state(self) -> bool:
        """Whether what is drawn depends on priorities, on how often episodes were drawn, or on the
        newest version."""
        ages = (
            self._config.max_age_versions is not None
            or self._config.age_half_life_versions is not None
        )
        return (
            ages or self._count_draws or any(by_priority(table.selector) for table in self._tables)
        )

    def only_layout(self, task_name: str | None) -> StepLayout:
        """The layout of a task, or of the only one there is. ValueError where it is none of
        them."""
        return list(self.layouts.values())[self._only("task", task_name, list(self.layouts))]

    def can_sample(self) -> bool:
        """Whether any task has an episode that may be read."""
        self._look()
        return bool(self._cumulative[-1] > 0)

    def _chances(self, tables: list[list[Readable]]) -> Float64[np.ndarray, "tables tasks"]:
        """The chance of each task in each table that a row is drawn from it, where something can be
        drawn at all."""
        there = np.array([[r.chooser is not None for r in tasks] for tasks in tables])
        weights = self._weights * there
        sums = weights.sum(axis=1, keepdims=True)
        return (
            np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
            * self._shares[:, None]
        )

    def sample(self, index: int) -> Batch | None:
        """Batch number `index`, or None where no task has an episode that may be read."""
        drawn = self._sample(index)
        return drawn[0] if drawn else None

    def sample_with_info(self, index: int) -> Sample | None:
        """The same batch, with what is known of its windows."""
        drawn = self._sample(index)
        if drawn is None:
            return None
        batch, draws = drawn
        draw = in_order([draw for _, draw, _ in draws])
        return Sample(batch=batch, info=info_of(draw, self._store.index))

    def windows(
        self,
        index: int,
        *,
        num_windows: int,
        steps: int,
        task_name: str | None = None,
        table: str | None = None,
    ) -> Windows | None:
        """Windows of one task as they were stored, drawn as the table says, without tokens or
        prompts: number `index` of its own series. None where nothing may be read. `task_name` and
        `table` may be left out where there is but one."""
        task = self._only("task", task_name, list(self.layouts))
        at = self._only("table", table, list(self._config.tables))
        if num_windows < 1 or steps < 1:
            raise ValueError(
                f"{num_windows} windows of {steps} steps are nothing; ask for at least one of one"
            )
        if self._reader is None:
            self._reader = WindowReader(self._store, cache_bytes=self._cache_bytes)
        while True:
            found = self._look()[at][task]
            if found.chooser is None:
                return None
            rng = np.random.default_rng([self._seed, WINDOWS_ROLE, index])
            each = np.full(num_windows, steps)
            draw = one_window_each(
                rng, found, self._config, np.arange(num_windows), each, np.zeros_like(each)
            )
            try:
                columns = self._reader.read(self._tasks[task], draw, steps)
            except DamagedDraw as damaged:
                self._store.quarantine(damaged.header, str(damaged))
            except EpisodeGone:
                self._seen_change = -1
            else:
                self._store.index.sampled(draw.number)
                seen = {
                    name[2:]: columns.pop(name) for name in list(columns) if name.startswith("o/")
                }
                return Windows(
                    observations=seen,
                    length=draw.length,
                    info=info_of(draw, self._store.index),
                    **columns,
                )

    def _only(self, what: str, name: str | None, names: list[str]) -> int:
        """Place of `name`, or of the only one there is."""
        if name is None and len(names) == 1:
            return 0
        if name not in names:
            raise ValueError(
                f"{what} {name!r} is none of this replay's; name one of {', '.join(sorted(names))}"
            )
        return names.index(name)

    def _sample(
        self, index: int
    ) -> tuple[Batch, list[tuple[int, Draw, Bool[np.ndarray, " B"]]]] | None:
        while True:
            tables = self._look()
            try:
                draws = self._draw(np.random.default_rng([self._seed, RANDOM_ROLE, index]), tables)
                if not draws:
                    return None
                batch = self._composer.batch(draws)
            except (
                DamagedDraw
            ) as damaged:  # taken out; the same number is drawn again from what is left
                self._store.quarantine(damaged.header, str(damaged))
            except EpisodeGone:  # evicted since we looked
                self._seen_change = -1
            else:
                self._store.index.sampled(np.concatenate([draw.number for _, draw, _ in draws]))
                return batch, draws

    def _draw(
        self, rng: np.random.Generator, tables: list[list[Readable]]
    ) -> list[tuple[int, Draw, Bool[np.ndarray, " B"]]]:
        config = self._config
        cumulative = self._cumulative
        if not len(cumulative) or cumulative[-1] == 0.0:
            return []
        points_B = rng.random(config.rows) * cumulative[-1]
        places, chosen_B = [0], np.zeros(config.rows, np.int64)
        if len(cumulative) > 1:
            chosen_B = np.minimum(
                np.searchsorted(cumulative, points_B, side="right"), len(cumulative) - 1
            )
            places = np.unique(chosen_B).tolist()
        prompted_B = rng.random(config.rows) < config.prompt_fraction
        told_B = (
            rng.random(config.rows) < config.return_fraction if self._with_returns else prompted_B
        )
        by_task: dict[int, list[Draw]] = {}
        for place in places:
            table, task = divmod(place, len(self._tasks))
            rows = np.flatnonzero(chosen_B == place)
            fit = config.row_tokens // self.layouts[self._tasks[task].name].tokens_per_step
            draw = fill_rows(
                rng, tables[table][task], config, self._settings[task], fit, rows, prompted_B[rows]
            )
            if len(draw.row):
                by_task.setdefault(task, []).append(draw)
        return [(task, in_order(draws), told_B) for task, draws in sorted(by_task.items())]

    def demonstration(
        self, task_name: str, num_steps: int, *, draw: int = 0, source: str | None = None
    ) -> Window | None:
        """The first steps of a successful demonstration, to prompt an actor with: the same for the
        same `draw` and store.

        None where there is none, of `source` if that is given.
        """
        if task_name not in self.layouts:
            raise ValueError(
                f"no task {task_name!r} in this run; there are {', '.join(sorted(self.layouts))}"
            )
        task = self._tasks[list(self.layouts).index(task_name)]
        while True:
            header = self._good_demonstration(
                task, np.random.default_rng([self._seed, PROMPT_ROLE, draw]), source
            )
            if header is None:
                return None
            try:
                return self._beginning(header, min(num_steps, header.steps))
            except DamagedEpisode as damaged:
                self._store.quarantine(header, str(damaged))
            except EpisodeGone:
                continue

    def _good_demonstration(
        self, task: Task, rng: np.random.Generator, source: str | None
    ) -> Header | None:
        """One of the better half of the demonstrations that may be read."""
        index = self._store.index
        snapshot = index.snapshot()
        of_task = snapshot.task == index.tasks.get(task.name, -1)
        score = scores(snapshot, index.tasks, self._by_name, self._best)
        inside = may_read(snapshot, of_task, score, self._config, index.newest_version)
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
        window = self._store.read(header, 0, stop)
        labels = (
            self._store.column(header, "labels", 0, stop)
            if "labels" in header.columns
            else window.actions
        )
        returns = None
        if self._with_returns:
            rewards = self._store.column(header, "rewards", 0, header.steps)
            returns = np.cumsum(rewards[::-1], dtype=np.float64)[::-1][:stop]
        return Window(observations=window.observations, actions=labels, returns=returns)
