"""The best checkpoint: kept when the evaluations of its version are the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from cluster.journal.records import Event, Record
from cluster.monitor.scores import Scale, failure_of
from gato.files import DamagedFile, damaged, read_json
from gato.metrics import Evaluation
from gato.version import Version

Keep = Callable[[int, dict[str, object]], bool]
"""Keeps the checkpoint of a step, with a note; False if it is not there."""
MAX_VERSIONS = 50
"""Versions of which evaluations are remembered."""


@runtime_checkable
class Journal(Protocol):
    """What the worker pool needs of the journal."""

    def append(self, record: Record) -> None:
        """Write a record down."""
        ...


class BestCheckpoint:
    """Passes records on to the journal, and looks at the evaluations among them.

    best = BestCheckpoint(journal, tasks, scales, keep, so_far=read_best(folder))
    best.append(evaluation)

    A version counts once all tasks were evaluated with it. Its score is the mean over tasks of the
    normalised returns (0: random, 1: the teacher); of one task without a scale, its mean return.
    Tasks without a scale do not count among several. Only versions with a checkpoint can be kept:
    those that were published when one was saved, and whose checkpoint still is there.
    """

    def __init__(
        self,
        journal: Journal,
        tasks: Sequence[str],
        scales: Mapping[str, Scale],
        keep: Keep,
        *,
        so_far: float | None,
    ) -> None:
        """`so_far`: the score of the checkpoint that is kept; None if there is none."""
        self._journal = journal
        self._tasks = [name for name in tasks if name in scales] or list(tasks)
        self._scales = scales
        self._keep = keep
        self._best = -math.inf if so_far is None else so_far
        self._means: dict[Version, dict[str, float]] = {}

    def append(self, record: Record) -> None:
        """Write a record down; see the class."""
        self._journal.append(record)
        if not isinstance(record, Evaluation) or failure_of(record) is not None:
            return
        if not record.num_cut:  # a part of a game is not compared with whole ones
            self._see(record)

    def _see(self, evaluation: Evaluation) -> None:
        of_version = self._means.setdefault(evaluation.version, {})
        of_version[evaluation.task] = math.fsum(evaluation.returns) / len(evaluation.returns)
        score = self._score(of_version)
        for old in sorted(self._means)[:-MAX_VERSIONS]:
            del self._means[old]
        if score is None or not score > self._best:
            return
        step = evaluation.learner_step
        note: dict[str, object] = {
            "step": step,
            "version": list(evaluation.version),
            "score": score,
            "returns": of_version,
        }
        if self._keep(step, note):
            self._best = score
            self._journal.append(
                Event(
                    kind="best checkpoint",
                    text=f"of update {step:,}, version {evaluation.version}: {score:.3g}",
                )
            )

    def _score(self, means: Mapping[str, float]) -> float | None:
        """None: not all tasks were evaluated, or nothing compares them."""
        if any(name not in means for name in self._tasks):
            return None
        if len(self._tasks) == 1 and self._tasks[0] not in self._scales:
            return means[self._tasks[0]]
        if not all(name in self._scales for name in self._tasks):
            return None
        scores = [self._scales[name].normalise(means[name]) for name in self._tasks]
        return math.fsum(scores) / len(scores)


def read_best(checkpoints: Path) -> float | None:
    """The score of the checkpoint that is kept as best in a run's folder of checkpoints."""
    file = checkpoints / "best" / "best.json"
    if not file.is_file():
        return None
    fix = "remove the folder best; the next best evaluation makes it again"
    try:
        return float(read_json(file, fix=fix)["score"])
    except (KeyError, TypeError, ValueError) as problem:
        if isinstance(problem, DamagedFile):
            raise
        raise damaged(file, problem, fix=fix) from problem
