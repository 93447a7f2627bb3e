"""What evaluations say of a task: the returns of each version, kept as sums, and the scale that
they are read on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gato.files import damaged, read_json
from gato.metrics import Evaluation, Mean
from gato.serialization import from_plain
from gato.version import Version

if TYPE_CHECKING:
    from gato.task import Task

MAX_SCORES = 1024
"""Of one task; more are merged, so that a week's journal is read in a minute."""
NEWEST_SCORES = 64
NOT_FINITE = "a return is not finite"
Measure = Literal["teacher", "expert", "human"]
MEASURES: tuple[Measure, ...] = ("teacher", "expert", "human")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The returns between which a task's return is normalised: 0 is a random policy, 1 is the
    teacher."""

    random_return: float
    teacher_return: float
    expert_return: float | None = None
    """The published expert's, where there is one."""
    human_return: float | None = None
    """A human player's, of games."""

    def normalise(self, mean_return: float, *, by: Measure = "teacher") -> float:
        """0: random, 1: whom `by` names; not a number where that is unknown."""
        top = {
            "teacher": self.teacher_return,
            "expert": self.expert_return,
            "human": self.human_return,
        }[by]
        span = math.nan if top is None else top - self.random_return
        return (mean_return - self.random_return) / span if span else math.nan


def scale_of(task: Task, teacher_return: float | None) -> Scale | None:
    """The scale of a task by its references; without a teacher the published expert is in its
    place. None without references."""
    references = task.references
    if references is None:
        return None
    return Scale(
        random_return=references.random,
        teacher_return=references.expert if teacher_return is None else teacher_return,
        expert_return=references.expert,
        human_return=references.human,
    )


def read_scales(run: Path) -> dict[str, Scale]:
    """The scales of a run by task, from its folder; none where they were not written yet.
    ValueError names a damaged file."""
    file, fix = run / "scales.json", "remove it; gato resume writes it again"
    if not file.is_file():
        return {}
    plain = read_json(file, fix=fix)
    try:
        return {name: from_plain(Scale, scale) for name, scale in plain.items()}
    except (TypeError, ValueError) as problem:
        raise damaged(file, problem, fix=fix) from problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and standard deviation as sums, so that parts add up to the whole."""

    total: float = 0.0
    squares: float = 0.0
    """Of the distances from the mean: those of the values lose all digits of large ones."""
    count: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        kept = tuple(values)
        total = math.fsum(kept)
        squares = math.fsum((v - total / len(kept)) ** 2 for v in kept)
        return cls(total=total, squares=squares, count=len(kept))

    def __add__(self, other: Spread) -> Spread:
        count = self.count + other.count
        # Chan et al. 1979: the means' distance from each other adds to those from the means.
        apart = other.mean - self.mean if self.count and other.count else 0.0
        between = apart**2 * self.count * other.count / max(1, count)
        return Spread(
            total=self.total + other.total,
            squares=self.squares + other.squares + between,
            count=count,
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count) if self.count else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The episodes of one task that one version was evaluated on."""

    learner_step: int
    returns: Spread
    successes: Mean = Mean()
    """Episodes that solved the task, of those whose environment says so."""

    @property
    def success_rate(self) -> float | None:
        """The share of episodes that solved the task; None if its environment does not say."""
        return finite(self.successes.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """What evaluations say of one task."""

    scores: Mapping[Version, Score] = field(default_factory=dict[Version, Score])
    """Of long runs older neighbours are merged under the later version: see `MAX_SCORES`."""
    num_versions: int = 0
    """How many were evaluated."""
    newest_version: Version | None = None
    num_failed: int = 0
    last_failure: str | None = None
    """Why the latest evaluation has no returns; None if it has."""
    newest_returns: tuple[float, ...] = ()
    """Of each episode of the newest version."""
    warnings: tuple[str, ...] = ()
    """What tokens lost of the observations in the latest evaluation."""
    measures: Mapping[str, Mean] = field(default_factory=dict[str, Mean])
    """What the latest evaluation says of held-out records, by name."""

    @property
    def newest(self) -> tuple[Version, Score] | None:
        version = self.newest_version
        return None if version is None else (version, self.scores[version])

    @property
    def by_step(self) -> list[Score]:
        """A score a learner step, in order; of two versions of one step (after a resume) the
        newer."""
        steps = {
            self.scores[version].learner_step: self.scores[version]
            for version in sorted(self.scores)
        }
        return [steps[step] for step in sorted(steps)]

    def after(self, evaluation: Evaluation) -> TaskState:
        """This task after one more evaluation. Those of one version play the same seeds: the one
        with more episodes counts, of equal ones the later. A failed one changes no score."""
        reason = failure_of(evaluation)
        if reason is not None:
            return replace(self, num_failed=self.num_failed + 1, last_failure=reason)
        known = self.scores.get(evaluation.version)
        if known is not None and len(evaluation.returns) < known.returns.count:
            return replace(self, last_failure=None)
        score = Score(
            learner_step=evaluation.learner_step,
            returns=Spread.of(evaluation.returns),
            successes=Mean(sum(evaluation.successes), len(evaluation.successes)),
        )
        before = self.newest_version or evaluation.version
        is_newest = evaluation.version >= before
        scores = {**self.scores, evaluation.version: score}
        return replace(
            self,
            scores=_merged(scores) if len(scores) > MAX_SCORES else scores,
            num_versions=self.num_versions + (known is None),
            newest_version=max(before, evaluation.version),
            last_failure=None,
            newest_returns=evaluation.returns if is_newest else self.newest_returns,
            warnings=evaluation.warnings,
            measures=evaluation.measures,
        )


def failure_of(evaluation: Evaluation) -> str | None:
    """Why an evaluation has no score; None if it has one."""
    if evaluation.failed is None and not evaluation.returns:
        return "it has no returns"
    if evaluation.failed is None and not all(map(math.isfinite, evaluation.returns)):
        return NOT_FINITE
    return evaluation.failed


def _merged(scores: Mapping[Version, Score]) -> dict[Version, Score]:
    """Neighbours by step as one, but for the newest, whose evaluations may still come in."""
    versions = sorted(scores, key=lambda version: (scores[version].learner_step, version))
    kept = sorted(versions)[-NEWEST_SCORES:]
    old = [version for version in versions if version not in set(kept)]
    if len(old) % 2:
        kept.append(old.pop())
    merged = {
        later: replace(
            scores[later],
            returns=scores[earlier].returns + scores[later].returns,
            successes=scores[earlier].successes + scores[later].successes,
        )
        for earlier, later in zip(old[::2], old[1::2], strict=True)
    }
    return merged | {version: scores[version] for version in kept}


def finite(value: float | None) -> float | None:
    """`value`, or None where it is not a number."""
    return value if value is not None and math.isfinite(value) else None


def mean_success(rates: Mapping[str, float]) -> float | None:
    """The mean over tasks of their success rates, each of which counts alike; None without any."""
    return math.fsum(rates.values()) / len(rates) if rates else None
