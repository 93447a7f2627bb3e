"""Candidates: the episodes of one task in one table that may be drawn, with their sampler.

Shape letters: N stored episodes, M of them that may be drawn, oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gato.task import Task
from replay.sampling.config import MixConfig, TableConfig
from replay.sampling.return_filter import least_return
from replay.sampling.sampler import Sampler, build_sampler
from replay.sampling.selector_names import selector_from_name
from replay.sampling.selectors import Items, RandomSelector, Selector
from replay.storage.index import NO_VERSION, Snapshot

KEPT_FOR_EVALUATION = "held out for evaluations"
"""The reason for which records that were held out are not drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """M episodes of one task that may be drawn."""

    number: Int64[np.ndarray, " M"]
    steps: Int64[np.ndarray, " M"]
    sampler: Sampler | None
    """None if there is nothing to draw."""
    draws_are_counted: bool
    """Whether the table limits how often an episode is drawn."""
    by_source: Int64[np.ndarray, " M"]
    """Indices, grouped by source."""
    group_start: Int64[np.ndarray, " M"]
    """Where in `by_source` the group of each episode begins."""
    group_size: Int64[np.ndarray, " M"]
    rank: Int64[np.ndarray, " M"]
    """Each episode's place in its group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aged:
    """A selector whose weights halve with each `half_life_versions` of age."""

    inner: RandomSelector
    half_life_versions: float

    @property
    def name(self) -> str:
        return self.inner.name

    def weights(self, items: Items) -> Float64[np.ndarray, " N"]:
        return self.inner.weights(items) * np.exp2(-items.age_versions / self.half_life_versions)


def ages(version: Int64[np.ndarray, " M"], newest: int) -> Int64[np.ndarray, " M"]:
    """How many versions are newer than each; 0 for episodes without a version."""
    return np.where(version == NO_VERSION, 0, np.maximum(newest - version, 0))


def scores(
    snapshot: Snapshot,
    codes: Mapping[str, int],
    tasks: Mapping[str, Task],
    best: Mapping[str, float | None] | None = None,
) -> Float64[np.ndarray, " N"]:
    """Normalised return of each episode: 0 is the random policy, 1 the return in `best`, or the
    reference expert's. For a task without references it is 0.

    Args:
        codes: the code of each task in the snapshot.
        best: return that counts as 1, by task; None: the reference expert's.
    """
    low, high = np.zeros(len(codes)), np.ones(len(codes))
    for name, code in codes.items():
        if name in tasks:
            top, references = (best or {}).get(name), tasks[name].references
            if references is None:
                high[code] = np.inf
                continue
            low[code] = references.random
            high[code] = references.expert if top is None else top
    return (snapshot.episode_return - low[snapshot.task]) / (high - low)[snapshot.task]


def best_returns(
    tasks: Mapping[str, Task], teacher_returns: Mapping[str, float]
) -> dict[str, float | None]:
    """The return that counts as score 1, by task: its teacher's; None, for the reference expert's,
    if the teacher is not better than chance."""
    randoms = {
        name: task.references.random for name, task in tasks.items() if task.references is not None
    }
    best = {name: teacher_returns.get(name, random) for name, random in randoms.items()}
    return {name: best[name] if best[name] > random else None for name, random in randoms.items()}


def items_of(
    snapshot: Snapshot, rows: Int64[np.ndarray, " M"], score: Float64[np.ndarray, " N"], newest: int
) -> Items:
    """The columns that selectors read, for some rows of the index."""
    return Items(
        number=snapshot.number[rows],
        steps=snapshot.steps[rows],
        task=snapshot.task[rows],
        score=score[rows],
        priority=snapshot.priority[rows],
        age_versions=ages(snapshot.version[rows], newest),
        times_sampled=snapshot.times_sampled[rows],
    )


def filters(
    snapshot: Snapshot,
    of_task: Bool[np.ndarray, " N"],
    score: Float64[np.ndarray, " N"],
    config: MixConfig,
    newest: int,
) -> list[tuple[str, Bool[np.ndarray, " N"]]]:
    """The name of each filter, and which episodes of a task it leaves out."""
    returns, by_agent, labelled = snapshot.episode_return, snapshot.by_agent, snapshot.labelled
    found: list[tuple[str, Bool[np.ndarray, " N"]]] = []
    if (held_out := of_task & snapshot.held_out).any():
        found.append((KEPT_FOR_EVALUATION, held_out))
    shown = of_task & ~by_agent & ~snapshot.held_out
    if config.min_expert_fraction is not None and shown.any():
        least = least_return(returns[shown], config.min_expert_fraction)
        name = (
            f"below {config.min_expert_fraction:.0%} of the best demonstrations' return"
            f" ({least:,.6g})"
        )
        found.append((name, shown & ~labelled & (returns < least)))
    for least, whose, what in (
        (config.min_agent_score, by_agent & ~labelled, "the agent's own"),
        (config.min_demonstration_score, ~by_agent, "demonstrations"),
    ):
        if least is not None:
            found.append(
                (f"{what} below {least:g} of the reference", of_task & whose & ~(score >= least))
            )
    if config.max_age_versions is not None:
        old = ages(snapshot.version, newest) > config.max_age_versions
        found.append((f"played more than {config.max_age_versions} versions ago", of_task & old))
    return found


def passes_filters(
    snapshot: Snapshot,
    of_task: Bool[np.ndarray, " N"],
    score: Float64[np.ndarray, " N"],
    config: MixConfig,
    newest: int,
) -> Bool[np.ndarray, " N"]:
    """Which episodes of a task pass the filters."""
    passed = of_task.copy()
    for _, left_out in filters(snapshot, of_task, score, config, newest):
        passed &= ~left_out
    return passed


def members(
    table: TableConfig, by_agent: Bool[np.ndarray, " N"], labelled: Bool[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Which episodes are in a table."""
    return {
        "all": np.ones_like(by_agent),
        "demonstrations": ~by_agent,
        "agent": by_agent,
        "relabelled": by_agent & labelled,
    }[table.episodes]


def build_candidates(
    snapshot: Snapshot,
    rows: Int64[np.ndarray, " M"],
    items: Items,
    table: TableConfig,
    half_life: float | None,
) -> Candidates:
    """The candidates of a table, from some rows of the index.

    Args:
        half_life: `MixConfig.age_half_life_versions`.
    """
    selector: Selector = selector_from_name(table.selector)
    if half_life is not None and isinstance(selector, RandomSelector):
        selector = Aged(inner=selector, half_life_versions=half_life)
    source = snapshot.source[rows]
    by_source = np.argsort(source, kind="stable")
    _, group, sizes = np.unique(source, return_inverse=True, return_counts=True)
    group_start = (np.cumsum(sizes) - sizes)[group]
    rank = np.empty(len(rows), np.int64)
    rank[by_source] = np.arange(len(rows)) - group_start[by_source]
    sampler = build_sampler(selector, items, table.max_times_sampled)
    return Candidates(
        number=items.number,
        steps=items.steps,
        sampler=sampler if len(sampler.index) else None,
        draws_are_counted=table.max_times_sampled is not None,
        by_source=by_source,
        group_start=group_start,
        group_size=sizes[group],
        rank=rank,
    )
