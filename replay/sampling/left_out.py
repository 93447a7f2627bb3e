"""Left out: episodes that are stored but never drawn, counted by reason.

Shape letters: N episodes that are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from gato.metrics import Amount
from gato.task import Task
from replay.sampling.candidates import best_returns, filters, members, scores
from replay.sampling.config import MixConfig, task_weight
from replay.storage.index import Index, Snapshot
from replay.storage.store import EpisodeStore


def left_out(
    snapshot: Snapshot,
    of_task: Bool[np.ndarray, " N"],
    score: Float64[np.ndarray, " N"],
    config: MixConfig,
    newest: int,
) -> dict[str, Amount]:
    """Episodes and steps of a task that are never drawn, each under the first reason that holds.

    The reasons are those of the filters, then: in no table that is drawn from; drawn as often as
    the table allows.

    Args:
        of_task: which episodes are of the task.
        score: their normalised returns.
        newest: number of the newest version of the weights.
    """
    reasons = filters(snapshot, of_task, score, config, newest)
    drawn = [table for table in config.tables.values() if table.share > 0]
    in_table = np.zeros_like(of_task)
    used_up = np.ones_like(of_task)
    for table in drawn:
        inside = members(table, snapshot.by_agent, snapshot.labelled)
        in_table |= inside
        most = np.inf if table.max_times_sampled is None else table.max_times_sampled
        used_up &= ~inside | (snapshot.times_sampled >= most)
    reasons.append(("in no table that is drawn from", of_task & ~in_table))
    reasons.append(("drawn as often as it may be", of_task & in_table & used_up))
    amounts: dict[str, Amount] = {}
    left = of_task.copy()
    for name, rows in reasons:
        rows = rows & left
        left &= ~rows
        if rows.any():
            amounts[name] = Amount(episodes=int(rows.sum()), steps=int(snapshot.steps[rows].sum()))
    return amounts


def left_out_by_task(
    index: Index, tasks: Mapping[str, Task], config: MixConfig, best: Mapping[str, float | None]
) -> dict[str, dict[str, Amount]]:
    """What this mixture never draws, by task and reason; only tasks with such episodes.

    Args:
        best: return that counts as score 1, by task; see `best_returns`.
    """
    snapshot = index.snapshot(fresh=config.counts_draws)
    score = scores(snapshot, index.tasks, tasks, best)
    out: dict[str, dict[str, Amount]] = {}
    for name, task in tasks.items():
        of_task = snapshot.task == index.tasks.get(name, -1)
        if not of_task.any():
            continue
        if task_weight(config, task) > 0:
            reasons = left_out(snapshot, of_task, score, config, index.newest_version)
        else:
            steps = int(snapshot.steps[of_task].sum())
            reasons = {"its task has weight 0": Amount(episodes=int(of_task.sum()), steps=steps)}
        if reasons:
            out[name] = reasons
    return out


def left_out_of(
    stores: Sequence[EpisodeStore],
    config: MixConfig,
    tasks: Mapping[str, Task],
    teacher_returns: Mapping[str, float],
) -> dict[str, dict[str, Amount]]:
    """What a run with this mixture does not read of some shards, by task and reason.

    Args:
        tasks: those whose references are known. For others the filters by score are not applied.
    """
    out: dict[str, dict[str, Amount]] = {}
    best = best_returns(tasks, teacher_returns)
    unscored = replace(config, min_agent_score=None, min_demonstration_score=None)
    for store in stores:
        index = store.index
        snapshot = index.snapshot()
        score = scores(snapshot, index.tasks, tasks, best)
        for name, code in sorted(index.tasks.items()):
            used = config if name in tasks else unscored
            found = left_out(snapshot, snapshot.task == code, score, used, index.newest_version)
            for reason, amount in found.items():
                of_task = out.setdefault(name, {})
                of_task[reason] = of_task[reason] + amount if reason in of_task else amount
    return out
