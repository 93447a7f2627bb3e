"""The mixture: draws batch number i with a generator of its own, so that it is the same whenever it
is asked for.

For each row: a table by its share, a task by its weight, then windows of its episodes. Each step of
each episode is equally likely, unless the table's selector says otherwise. In some rows every
window follows a prompt from another episode of the same task and source (paper section 2.3).

Shape letters: B rows, R rows of one task in one table, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from gato.sequence import Batch, StepLayout
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.sampling.candidates import (
    Candidates,
    best_returns,
    build_candidates,
    items_of,
    members,
    passes_filters,
    scores,
)
from replay.sampling.collate import Collator, DamagedDraw
from replay.sampling.config import MixConfig, check_tasks, task_settings, task_weight
from replay.sampling.raw_windows import WindowReader, Windows
from replay.sampling.sample_info import Sample, info_of
from replay.sampling.selector_names import by_priority
from replay.sampling.window_draw import WindowDraw, fill_rows, in_order, one_window_each
from replay.storage.column_reader import EpisodeGone
from replay.storage.store import EpisodeStore

RANDOM_ROLE, WINDOWS_ROLE = 3, 6
"""Distinguish the generators of batches and of raw windows from those of other parts of a run."""
CACHE_BYTES = 256 << 20

TaskDraw = tuple[int, WindowDraw, Bool[np.ndarray, " B"]]
"""Index of a task, its windows, and which rows of the batch tell their return-to-go."""


class Mixture:
    """Draws batches from a store. One thread at a time.

    mixture = Mixture(store, tasks, layout, config, seed=0, teacher_returns={})
    batch = mixture.sample(17)        # None: nothing may be drawn yet
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
        """
        Args:
            teacher_returns: return of each task's teacher, which counts as score 1.
            cache_bytes: memory for tokens and patches that were read lately. Raw windows, if they
                are asked for, take as much again.

        Raises:
            ValueError: if the settings do not fit the tasks.
        """
        self._store = store
        self._tasks = list(tasks.values())
        self._by_name = tasks
        self._config = config
        self._seed = seed
        self._with_returns = layout.return_place is not None
        self.layouts = {
            task.name: StepLayout(task, layout, loss_on_questions=config.loss_on_questions)
            for task in self._tasks
        }
        self._settings = [task_settings(config, task) for task in self._tasks]
        check_tasks(config, self.layouts, tasks)
        self._weights = np.array([task_weight(config, task) for task in self._tasks])
        self._best = best_returns(tasks, teacher_returns)
        self._tables = list(config.tables.values())
        self._shares = np.array([table.share for table in self._tables])
        self._candidates: list[list[Candidates]] = []
        """By table and task."""
        self._cumulative = np.zeros(1)
        """Cumulative chances of each task in each table that a row is drawn from it."""
        self._seen_change = -1
        """State of the index that the candidates are of."""
        self._cache_bytes = cache_bytes
        self._reader: WindowReader | None = None
        self._collator = Collator(
            store,
            list(self.layouts.values()),
            num_rows=config.rows,
            row_tokens=config.row_tokens,
            loss_on_prompt=config.loss_on_prompt,
            cache_bytes=cache_bytes,
        )

    @property
    def draws_by_state(self) -> bool:
        """Whether draws depend on priorities, on how often episodes were drawn, or on the newest
        version."""
        config = self._config
        by_age = config.max_age_versions is not None or config.age_half_life_versions is not None
        return by_age or config.counts_draws or any(by_priority(t.selector) for t in self._tables)

    def only_layout(self, task_name: str | None) -> StepLayout:
        """The layout of a task; without a name, of the only one. Raises ValueError if there is no
        such task."""
        return list(self.layouts.values())[self._only("task", task_name, list(self.layouts))]

    def can_sample(self) -> bool:
        """Whether any task has an episode that may be drawn."""
        self._update()
        return bool(self._cumulative[-1] > 0)

    def _update(self) -> list[list[Candidates]]:
        """The candidates of each task in each table, brought up to date with the store."""
        index = self._store.index
        counts_draws = self._config.counts_draws
        # Draws change `times_sampled` but not `change`, so where they count nothing is reused.
        if index.change == self._seen_change and not counts_draws:
            return self._candidates
        snapshot = index.snapshot(fresh=counts_draws)
        newest = index.newest_version
        score = scores(snapshot, index.tasks, self._by_name, self._best)
        by_table = [list[Candidates]() for _ in self._tables]
        for task in self._tasks:
            # The filters are the same in all tables, so they are applied once for each task.
            of_task = snapshot.task == index.tasks.get(task.name, -1)
            passed = passes_filters(snapshot, of_task, score, self._config, newest)
            for table, of_table in zip(self._tables, by_table, strict=True):
                rows = np.flatnonzero(passed & members(table, snapshot.by_agent, snapshot.labelled))
                items = items_of(snapshot, rows, score, newest)
                of_table.append(
                    build_candidates(
                        snapshot, rows, items, table, self._config.age_half_life_versions
                    )
                )
        # `change` of the snapshot, not of the index: an insert may have come in between.
        self._candidates, self._seen_change = by_table, snapshot.change
        self._cumulative = np.cumsum(self._chances(by_table))
        return by_table

    def _chances(self, by_table: list[list[Candidates]]) -> Float64[np.ndarray, "tables tasks"]:
        """The chance of each task in each table that a row is drawn from it. A table with nothing
        to draw leaves its share to the others, a task within a table likewise."""
        has_any = np.array([[c.sampler is not None for c in of_table] for of_table in by_table])
        weights = self._weights * has_any
        sums = weights.sum(axis=1, keepdims=True)
        within_table = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
        return within_table * self._shares[:, None]

    def sample(self, index: int) -> Batch | None:
        """Batch number `index`; None if no task has an episode that may be drawn."""
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

    def _sample(self, index: int) -> tuple[Batch, list[TaskDraw]] | None:
        while True:
            candidates = self._update()
            # A new generator in each turn: a repeated draw depends only on what is left.
            rng = np.random.default_rng([self._seed, RANDOM_ROLE, index])
            draws = self._draw(rng, candidates)
            if not draws:
                return None
            try:
                batch = self._collator.batch(draws)
            except DamagedDraw as damaged:
                self._store.quarantine(damaged.header, str(damaged))
            except EpisodeGone as gone:  # evicted after the update
                self._store.gone(gone.numbers)
                self._seen_change = -1
            else:
                numbers = np.concatenate([draw.number for _, draw, _ in draws])
                self._store.index.sampled(numbers)
                keys = self._store.index.keys_of(np.unique(numbers))
                return replace(batch, episode_keys=keys), draws

    def _draw(self, rng: np.random.Generator, candidates: list[list[Candidates]]) -> list[TaskDraw]:
        """The windows of all rows of a batch, by task; empty if there is nothing to draw."""
        config = self._config
        cumulative = self._cumulative
        if not len(cumulative) or cumulative[-1] == 0.0:
            return []
        # 1. For each row a cell (table, task), by bisection of the cumulative chances. The random
        #    numbers are drawn also if there is only one cell, so that the stream is the same.
        points_B = rng.random(config.rows) * cumulative[-1]
        cells, cell_B = [0], np.zeros(config.rows, np.int64)
        if len(cumulative) > 1:
            cell_B = np.minimum(
                np.searchsorted(cumulative, points_B, side="right"), len(cumulative) - 1
            )
            cells = np.unique(cell_B).tolist()
        # 2. Which rows have prompts, and which tell their returns.
        prompted_B = rng.random(config.rows) < config.prompt_fraction
        told_B = (
            rng.random(config.rows) < config.return_fraction if self._with_returns else prompted_B
        )
        # 3. Windows of the rows of each cell at once.
        by_task: dict[int, list[WindowDraw]] = {}
        for cell in cells:
            table, task = divmod(cell, len(self._tasks))
            rows_R = np.flatnonzero(cell_B == cell)
            fit = config.row_tokens // self.layouts[self._tasks[task].name].tokens_per_step
            draw = fill_rows(
                rng,
                candidates[table][task],
                config,
                self._settings[task],
                fit,
                rows_R,
                prompted_B[rows_R] & (not self._tasks[task].writes_text),
            )
            if len(draw.row):
                by_task.setdefault(task, []).append(draw)
        return [(task, in_order(draws), told_B) for task, draws in sorted(by_task.items())]

    def windows(
        self,
        index: int,
        *,
        num_windows: int,
        steps: int,
        task_name: str | None = None,
        table: str | None = None,
    ) -> Windows | None:
        """Windows of one task as they were stored, without tokens or prompts: number `index` of a
        series of its own.

        Args:
            task_name: may be None if there is only one task.
            table: may be None if there is only one table.

        Returns:
            `num_windows` windows of at most `steps` steps; None if nothing may be drawn.
        """
        task = self._only("task", task_name, list(self.layouts))
        at = self._only("table", table, list(self._config.tables))
        if num_windows < 1 or steps < 1:
            raise ValueError(f"expected at least 1 window of 1 step, got {num_windows} of {steps}")
        if self._reader is None:
            self._reader = WindowReader(self._store, cache_bytes=self._cache_bytes)
        while True:
            candidates = self._update()[at][task]
            if candidates.sampler is None:
                return None
            rng = np.random.default_rng([self._seed, WINDOWS_ROLE, index])
            each = np.full(num_windows, steps)
            draw = one_window_each(
                rng, candidates, self._config, np.arange(num_windows), each, np.zeros_like(each)
            )
            try:
                columns = self._reader.read(self._tasks[task], draw, steps)
            except DamagedDraw as damaged:
                self._store.quarantine(damaged.header, str(damaged))
            except EpisodeGone as gone:
                self._store.gone(gone.numbers)
                self._seen_change = -1
            else:
                self._store.index.sampled(draw.number)
                observed = {n[2:]: columns.pop(n) for n in list(columns) if n.startswith("o/")}
                info = info_of(draw, self._store.index)
                return Windows(observations=observed, length=draw.length, info=info, **columns)

    def _only(self, what: str, name: str | None, names: list[str]) -> int:
        """Place of `name` in `names`, or of the only one."""
        if name is None and len(names) == 1:
            return 0
        if name not in names:
            raise ValueError(
                f"replay has no {what} {name!r}; name one of {', '.join(sorted(names))}"
            )
        return names.index(name)
