"""What the process that carries a sweep out writes down of its trials, and says as it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cluster.journal.records import Event
from cluster.monitor.format import NONE, number_text, score_text
from cluster.sweep.folder import SweepFolder
from cluster.sweep.journal import Ended, Exploited, Report, Stopped
from cluster.sweep.plan import SweepConfig
from cluster.sweep.settings import as_words
from cluster.sweep.space import Value
from cluster.sweep.state import TrialState, trials_in

HOW = "how"
"""In a trial's last result: how it ended."""


class TrialLog:
    """Appends to a sweep's journal, and keeps what it says of each trial.

    log = TrialLog(folder, sweep, say=print)
    report = log.report(3, 0, {"step": 100, "score": 0.4, ...})
    """

    def __init__(
        self, folder: SweepFolder, sweep: SweepConfig, *, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._sweep = sweep
        self._journal = folder.journal
        self._say = say
        self.trials = trials_in(self._journal.read())

    def mark(self) -> str:
        """A folder that says nothing, for what must name a checkpoint."""
        mark = self._folder.path / "trials" / ".mark"
        mark.mkdir(parents=True, exist_ok=True)
        return str(mark)

    def _add(self, record: Report | Stopped | Exploited | Ended) -> None:
        self._journal.append(record)
        self.trials[record.trial] = self.trials[record.trial].after(record)

    def report(self, trial: int, generation: int, result: Mapping[str, Any]) -> Report | None:
        """Write an evaluation down; None if the result has none."""
        score = float(result["score"])
        if not math.isfinite(score):
            return None
        loss = result.get("loss")
        report = Report(
            trial=trial,
            generation=generation,
            step=int(result["step"]),
            score=score,
            loss=None if loss is None else float(loss),
            returns=dict(result.get("returns", ())),
        )
        self._add(report)
        self._say(
            f"trial {trial}: update {report.step:,} of {self._sweep.updates:,}, score"
            f" {score_text(score)}, loss {NONE if loss is None else number_text(loss)}"
        )
        return report

    def note(self, text: str) -> None:
        """Write down what happened to the sweep."""
        self._journal.append(Event(kind="problem", text=text))
        self._say(text)

    def stopped(self, trial: int, step: int) -> None:
        """Write down that a trial was stopped at a rung."""
        self._add(Stopped(trial=trial, step=step))
        self._say(f"trial {trial}: stopped, {self.trials[trial].reason}")

    def exploited(
        self, trial: int, *, donor: TrialState, step: int, settings: Mapping[str, Value]
    ) -> int:
        """Let a trial go on from the donor's checkpoint of update `step` with other settings: its
        folder first, then the journal.

        Returns:
            The trial's new generation.

        Raises:
            ValueError: The donor's checkpoint is gone.
        """
        before = self.trials[trial]
        record = Exploited(
            trial=trial,
            generation=before.generation + 1,
            donor=donor.number,
            step=step,
            score=donor.reports[-1].score,
            settings=settings,
        )
        checkpoint = (
            self._folder.trial_path(donor.number, donor.generation)
            / "checkpoints"
            / f"step-{step:09d}"
        )
        if not checkpoint.is_dir():
            raise ValueError(f"the checkpoint {checkpoint} is gone; gato sweep resume goes on")
        self._folder.make_trial(self._sweep, before.after(record), checkpoint=checkpoint)
        self._add(record)
        self._folder.forget_checkpoints(trial, before.generation)
        self._say(
            f"trial {trial}: goes on from trial {donor.number} at update {step:,} with"
            f" {' '.join(as_words(settings))}"
        )
        return record.generation

    def ended(
        self, trial: int, how: Literal["finished", "diverged", "failed"], reason: str = ""
    ) -> None:
        """Write down that a trial goes no further; nothing if it is known."""
        if self.trials[trial].is_over:
            return
        self._add(Ended(trial=trial, how=how, reason=reason))
        self._say(f"trial {trial}: {how}{f', {reason}' if reason else ''}")
