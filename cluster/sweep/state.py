"""What the journal of a sweep says of its trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster.sweep.journal import Ended, Exploited, Planned, Report, Stopped, SweepRecord
from cluster.sweep.space import Value

TrialWord = Literal["planned", "unfinished", "stopped", "finished", "diverged", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialState:
    """One trial."""

    number: int
    """From 1."""
    settings: Mapping[str, Value]
    """Those that it has now; `pbt` changes them."""
    generation: int = 0
    reports: tuple[Report, ...] = ()
    word: TrialWord = "planned"
    reason: str = ""
    copied: Exploited | None = None
    """Where its newest generation came from."""

    @property
    def is_over(self) -> bool:
        """Whether a resumed sweep leaves it alone."""
        return self.word in ("stopped", "finished", "diverged")

    @property
    def score(self) -> float | None:
        """Of its last evaluation, or of the checkpoint that it goes on from."""
        if self.copied is not None and not self.of_generation:
            return self.copied.score if math.isfinite(self.copied.score) else None
        return self.reported_score

    @property
    def reported_score(self) -> float | None:
        """Of its last evaluation, by which Tune ranks it also after it has copied another."""
        score = self.reports[-1].score if self.reports else math.nan
        return score if math.isfinite(score) else None

    @property
    def step(self) -> int:
        """Updates at its last evaluation, or of the checkpoint that it goes on from."""
        if self.copied is not None and not self.of_generation:
            return self.copied.step
        return self.reports[-1].step if self.reports else 0

    @property
    def of_generation(self) -> tuple[Report, ...]:
        """The reports of its newest generation."""
        return tuple(r for r in self.reports if r.generation == self.generation)

    def after(self, record: SweepRecord) -> TrialState:
        """This trial after one more record of it."""
        match record:
            case Report():
                # One that is sent again, after its process died, takes the place of the first.
                same = (record.generation, record.step)
                kept = [r for r in self.reports if (r.generation, r.step) != same]
                return replace(self, reports=(*kept, record), word="unfinished", reason="")
            case Stopped():
                reason = f"not among the best at update {record.step}"
                return replace(self, word="stopped", reason=reason)
            case Exploited():
                return replace(
                    self,
                    settings=record.settings,
                    generation=record.generation,
                    copied=record,
                    word="unfinished",
                )
            case Ended():
                return replace(self, word=record.how, reason=record.reason)
            case _:
                return self


def trials_in(records: Iterable[SweepRecord]) -> dict[int, TrialState]:
    """All trials by number, in order."""
    trials: dict[int, TrialState] = {}
    for record in records:
        if isinstance(record, Planned):
            trials[record.trial] = TrialState(number=record.trial, settings=record.settings)
        elif isinstance(record, (Report, Stopped, Exploited, Ended)) and record.trial in trials:
            trials[record.trial] = trials[record.trial].after(record)
    return dict(sorted(trials.items()))


def ranked(trials: Iterable[TrialState]) -> list[TrialState]:
    """The best score first; those without one last. Of two with the same, one that has copied it is
    the second."""
    return sorted(
        trials,
        key=lambda t: (
            t.score is None,
            -(t.score if t.score is not None else 0.0),
            t.copied is not None and not t.of_generation,
            t.number,
        ),
    )


def best_of(trials: Sequence[TrialState]) -> TrialState | None:
    """The trial with the best score among those that were trained to the end; among all, if none
    was."""
    scored = [trial for trial in ranked(trials) if trial.score is not None]
    return next((trial for trial in scored if trial.word == "finished"), next(iter(scored), None))
