"""The mix: batch number i is drawn with a generator of its own, so it is the same whenever it is asked for.

For each row: a task by weight, then windows of its episodes, each step of each episode being equally likely; in some
rows every window follows a prompt from another episode of the same task and source (paper section 2.3).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
from jaxtyping import Float

from gato.sequence import Batch, RowWriter, StepLayout, Window
from gato.task import Task
from gato.tokenizer import TokenLayout
from replay.config import MixConfig, TaskMix
from replay.filter import least_return
from replay.header import DamagedEpisode, Header
from replay.record import IMAGE_BYTES
from replay.store import EpisodeStore

CACHE_BYTES = 256 << 20
"""Of small columns (states, actions), kept in memory; images are read in chunks."""
RANDOM_ROLE, PROMPT_ROLE = 3, 4
"""Distinguish the generators of batches and of prompts for acting from those of other parts of a run."""


class _Readable:
    """The episodes of one task that may be read, oldest first."""

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.ends = np.zeros(0, np.int64)
        """Cumulative steps."""
        self.by_source: dict[str, list[int]] = {}
        """Source to indices into `headers`."""
        self.rank: list[int] = []
        """Each header's place among those of its source."""

    def append(self, headers: Sequence[Header]) -> None:
        before = int(self.ends[-1]) if self.headers else 0
        self.ends = np.concatenate([self.ends, before + np.cumsum([h.steps for h in headers], dtype=np.int64)])
        for header in headers:
            same = self.by_source.setdefault(header.source, [])
            self.rank.append(len(same))
            same.append(len(self.headers))
            self.headers.append(header)


def least_steps(config: MixConfig, settings: TaskMix) -> int:
    """Steps of a task that a row must have room for: a window, and a prompt where there are prompts."""
    prompt = (config.prompt_steps or 1) if config.prompt_fraction else 0
    return (settings.window_steps or 1) + prompt


class Mix:
    """Draws batches from a store.

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
    ) -> None:
        self._store = store
        self._tasks = list(tasks.values())
        self._by_name = {task.name: task for task in self._tasks}
        self._config = config
        self._seed = seed
        self._with_returns = layout.return_place is not None
        self.layouts = {task.name: StepLayout(task, layout) for task in self._tasks}
        self._settings = [config.tasks.get(task.name, TaskMix()) for task in self._tasks]
        unknown = set(config.tasks) - set(tasks)
        if unknown:
            raise ValueError(f"the mix has settings for {sorted(unknown)[0]!r}, which is no task of this run")
        for task, settings in zip(self._tasks, self._settings, strict=True):
            steps = least_steps(config, settings)
            needed = steps * self.layouts[task.name].tokens_per_step
            weight = task.weight if settings.weight is None else settings.weight
            if weight and needed > config.row_tokens:
                raise ValueError(
                    f"{steps} steps of {task.name} (a window, with its prompt) take {needed} tokens, a row has "
                    f"{config.row_tokens}; raise row_tokens, lower window_steps, or set prompt_fraction=0"
                )
        self._weights = np.array(
            [task.weight if s.weight is None else s.weight for task, s in zip(self._tasks, self._settings, strict=True)]
        )
        # A teacher that is no better than chance is no measure of the agent: then the reference is.
        best = {task.name: teacher_returns.get(task.name, task.references.random) for task in self._tasks}
        self._best = {t.name: best[t.name] if best[t.name] > t.references.random else None for t in self._tasks}
        self._readable = {task.name: _Readable() for task in self._tasks}
        self._demonstrated: dict[str, list[float]] = {task.name: [] for task in self._tasks}
        """Of the demonstrations of each task, oldest first."""
        self._least: dict[str, float] = {}
        """The least return of a demonstration that is read, by task."""
        self._num_seen = 0
        self._last_seen = -1
        self._cache: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()
        self._cached_bytes = 0

    def _may_read(self, header: Header) -> bool:
        task = self._by_name.get(header.task)
        if task is None:
            return False
        labelled = "labels" in header.columns
        if not (header.by_agent or labelled) and header.episode_return < self._least.get(task.name, -np.inf):
            return False
        least = self._config.min_agent_score if header.by_agent else self._config.min_demonstration_score
        return least is None or task.normalise(header.episode_return, one=self._best[task.name]) >= least

    def _index(self) -> list[_Readable]:
        """What may be read of each task, brought up to what the store holds now."""
        episodes = self._store.episodes
        fresh = list(takewhile(lambda header: header.number > self._last_seen, reversed(episodes.values())))[::-1]
        gone = len(episodes) != self._num_seen + len(fresh)  # some were evicted or taken out
        if gone:
            self._demonstrated, self._least = {task.name: [] for task in self._tasks}, {}
            fresh = list(episodes.values())
        if self._raise_bar(fresh) or gone:
            self._readable = {task.name: _Readable() for task in self._tasks}
            fresh = list(episodes.values())
        by_task: dict[str, list[Header]] = {}
        for header in fresh:
            if self._may_read(header):
                by_task.setdefault(header.task, []).append(header)
        for name, headers in by_task.items():
            self._readable[name].append(headers)
        self._num_seen = len(episodes)
        self._last_seen = fresh[-1].number if fresh else self._last_seen
        return list(self._readable.values())

    def _raise_bar(self, fresh: Sequence[Header]) -> bool:
        """Note the returns of fresh demonstrations. True: what counts as an expert's has changed."""
        fraction = self._config.min_expert_fraction
        demonstrations = [h for h in fresh if not h.by_agent and h.task in self._demonstrated]
        if fraction is None or not demonstrations:
            return False
        for header in demonstrations:
            self._demonstrated[header.task].append(header.episode_return)
        before = dict(self._least)
        for name in {header.task for header in demonstrations}:
            self._least[name] = least_return(np.array(self._demonstrated[name]), fraction)
        return before != self._least

    def can_sample(self) -> bool:
        """Whether any task has an episode that may be read."""
        return any(bool(r.headers) and weight > 0 for r, weight in zip(self._index(), self._weights, strict=True))

    def sample(self, index: int) -> Batch | None:
        """Batch number `index`, or None where no task has an episode that may be read."""
        while True:
            readable = self._index()
            try:
                return self._sample(np.random.default_rng([self._seed, RANDOM_ROLE, index]), readable)
            except _Damaged as damaged:  # taken out; the same number is drawn again from what is left
                self._store.quarantine(damaged.header, str(damaged))

    def _sample(self, rng: np.random.Generator, readable: list[_Readable]) -> Batch | None:
        config = self._config
        weights = self._weights * np.array([bool(r.headers) for r in readable])
        if not weights.sum():
            return None
        row_task = rng.choice(len(self._tasks), size=config.rows, p=weights / weights.sum())
        row_prompted = rng.random(config.rows) < config.prompt_fraction
        row_told = rng.random(config.rows) < config.return_fraction if self._with_returns else row_prompted
        writer = RowWriter(num_rows=config.rows, row_tokens=config.row_tokens, loss_on_prompt=config.loss_on_prompt)
        for task_index in np.unique(row_task):
            steps = self.layouts[self._tasks[task_index].name]
            rows = np.flatnonzero(row_task == task_index)
            windows = self._windows(rng, readable[task_index], steps, self._settings[task_index], row_prompted[rows])
            if self._with_returns:
                for row in np.flatnonzero(~row_told[rows]):
                    windows[row] = [replace(window, returns=None) for window in windows[row]]
            writer.write_rows(rows.tolist(), task_index=int(task_index), steps=steps, windows=windows)
        return writer.batch()

    def _windows(
        self, rng: np.random.Generator, readable: _Readable, steps: StepLayout, settings: TaskMix, prompted: np.ndarray
    ) -> list[list[Window]]:
        """Windows of each row. Of a task without `window_steps`, short episodes leave room, which further windows fill."""
        fit = self._config.row_tokens // steps.tokens_per_step
        out: list[list[Window]] = []
        for is_prompted in prompted:
            half = min(fit // 2, fit - (settings.window_steps or 1))
            prompt_steps = (self._config.prompt_steps or half) if is_prompted else 0
            row: list[Window] = []
            room = fit
            while room >= prompt_steps + (settings.window_steps or 1):
                window_steps = settings.window_steps or room - prompt_steps
                row.append(self._window(rng, readable, window_steps, prompt_steps))
                # Rows of fixed windows hold the same number of them, however short an episode was.
                room -= prompt_steps + window_steps if settings.window_steps else len(row[-1].actions)
            out.append(row)
        return out

    def _window(self, rng: np.random.Generator, readable: _Readable, window_steps: int, prompt_steps: int) -> Window:
        step = int(rng.integers(readable.ends[-1]))
        chosen = int(np.searchsorted(readable.ends, step, side="right"))
        header = readable.headers[chosen]
        length = min(window_steps, header.steps)
        # The step drawn lies anywhere in its window, as far as the episode's ends allow.
        inside = step - int(readable.ends[chosen]) + header.steps
        start = int(np.clip(inside - rng.integers(length), 0, header.steps - length))
        window = self._read(header, start, start + length)
        prompt = self._prompt(rng, readable, chosen, start, prompt_steps) if prompt_steps else None
        if prompt is None:
            return window
        return Window(
            observations={k: np.concatenate([prompt.observations[k], v]) for k, v in window.observations.items()},
            actions=np.concatenate([prompt.actions, window.actions]),
            prompt_steps=len(prompt.actions),
            returns=_joined(prompt.returns, window.returns),
        )

    def _prompt(
        self, rng: np.random.Generator, readable: _Readable, chosen: int, window_start: int, prompt_steps: int
    ) -> Window | None:
        """Steps of another episode of the same source, as the settings say; of the same one, steps before the window."""
        target = readable.headers[chosen]
        same = readable.by_source[target.source]
        if self._config.prompt_episode == "any":
            header = readable.headers[same[int(rng.integers(len(same)))]]
        elif len(same) > 1:
            other = int(rng.integers(len(same) - 1))
            header = readable.headers[same[other + (other >= readable.rank[chosen])]]
        else:
            header = target
        if header is target:
            length = min(prompt_steps, window_start)
            return self._read(target, window_start - length, window_start) if length else None
        length = min(prompt_steps, header.steps)
        at_end = rng.random() < self._config.prompt_end_fraction
        start = header.steps - length if at_end else int(rng.integers(header.steps - length + 1))
        return self._read(header, start, start + length)

    def _read(self, header: Header, start: int, stop: int) -> Window:
        try:
            columns = {name: self._column(header, name, start, stop) for name in header.columns if name != "rewards"}
            returns = self._returns(header)[start:stop] if self._with_returns else None
        except DamagedEpisode as problem:
            raise _Damaged(header, str(problem)) from problem
        actions = columns.pop("actions")
        actions = columns.pop("labels", actions)  # what is to be learned, where that is not what was done
        observations = {name[2:]: values for name, values in columns.items()}
        return Window(observations=observations, actions=actions, returns=returns)

    def _returns(self, header: Header) -> Float[np.ndarray, " T"]:
        """Return-to-go of each step of an episode."""
        return self._cached(
            (header.number, "returns"),
            lambda: np.cumsum(self._store.column(header, "rewards", 0, header.steps)[::-1], dtype=np.float64)[::-1],
        )

    def _column(self, header: Header, name: str, start: int, stop: int) -> np.ndarray:
        dtype, shape = header.columns[name]
        if np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64) >= IMAGE_BYTES:
            return self._store.column(header, name, start, stop)
        return self._cached((header.number, name), lambda: self._store.column(header, name, 0, header.steps))[
            start:stop
        ]

    def _cached(self, key: tuple[int, str], make: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._cache:
            self._cache[key] = make()
            self._cached_bytes += self._cache[key].nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        self._cache.move_to_end(key)
        return self._cache[key]

    def demonstration(
        self, task_name: str, num_steps: int, *, draw: int = 0, source: str | None = None
    ) -> Window | None:
        """The first steps of a successful demonstration, to prompt an actor with: the same for the same `draw` and store.

        None where there is none, of `source` if that is given.
        """
        rng = np.random.default_rng([self._seed, PROMPT_ROLE, draw])
        if task_name not in self._readable:
            raise ValueError(f"no task {task_name!r} in this run; there are {', '.join(sorted(self._readable))}")
        while True:
            self._index()
            headers = self._readable[task_name].headers
            headers = [h for h in headers if (not h.by_agent if source is None else h.source == source)]
            if not headers:
                return None
            good = sorted(headers, key=lambda h: h.episode_return)[len(headers) // 2 :]
            header = good[int(rng.integers(len(good)))]
            try:
                return self._read(header, 0, min(num_steps, header.steps))
            except _Damaged as damaged:
                self._store.quarantine(damaged.header, str(damaged))


def _joined(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])


class _Damaged(Exception):
    """An episode turned out to be damaged while it was read."""

    def __init__(self, header: Header, reason: str) -> None:
        super().__init__(reason)
        self.header = header
