"""The schedulers of Ray Tune, which write down what they decide and go on from what was written."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from cluster.sweep.journal import Report, SweepRecord
from cluster.sweep.plan import SweepConfig
from cluster.sweep.settings import SWEEP_ROLE
from cluster.sweep.space import Choice, Value
from cluster.sweep.trial_log import HOW, TrialLog

MOST_MUTATIONS = 20
"""How often settings that do not go together are drawn again."""


def _place(trial: Trial) -> tuple[int, int]:
    """Number and generation."""
    return trial.config["trial"]["number"], trial.config["trial"]["generation"]


def _complete(log: TrialLog, trial: Trial, result: Mapping[str, Any]) -> None:
    """Write the last result of a trial down. One that was stopped at a rung has it already."""
    number, generation = _place(trial)
    if HOW in result:
        log.report(number, generation, result)
        log.ended(number, result[HOW], result.get("reason", ""))


def _failed(log: TrialLog, trial: Trial) -> None:
    """Tune says so before each new try as well."""
    number = _place(trial)[0]
    if trial.should_recover():
        log.note(f"trial {number}: its process died; it goes on from its last checkpoint")
    else:
        log.ended(number, "failed", "its process died again and again")


class Halving:
    """Which trials asynchronous successive halving stops (Li et al. 2018).

    Reports that are given again in the same order lead to the same rungs.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        self._asha = AsyncHyperBandScheduler(
            time_attr="step",
            metric="score",
            mode="max",
            max_t=sweep.updates,
            grace_period=sweep.evaluate_every,
            reduction_factor=sweep.reduction,
        )
        self._updates = sweep.updates
        self._known: set[int] = set()

    def replay(self, records: Sequence[SweepRecord]) -> set[int]:
        """Take the reports of a journal. Returns the trials that end with their last one."""
        ending: set[int] = set()
        for record in records:
            if isinstance(record, Report):
                stops = self.stops(record.trial, record.step, record.score)
                ending = ending | {record.trial} if stops else ending - {record.trial}
        return ending

    def stops(self, trial: int, step: int, score: float) -> bool:
        """Take a report, and say whether the trial ends with it."""
        # Tune's scheduler asks nothing of a trial but its id, and nothing of the controller.
        named: Any = SimpleNamespace(trial_id=str(trial))
        nothing: Any = None
        if trial not in self._known:
            self._known.add(trial)
            self._asha.on_trial_add(nothing, named)
        result = {"step": step, "score": score}
        if step >= self._updates:
            return False  # it ends by itself, and no later trial is compared with it there
        return self._asha.on_trial_result(nothing, named, result) == TrialScheduler.STOP


class RecordingScheduler(FIFOScheduler):
    """Trials in their order; with `halving` it stops some. It writes all of it down."""

    def __init__(self, log: TrialLog, halving: Halving | None) -> None:
        super().__init__()
        self._log = log
        self._halving = halving

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        report = self._log.report(*_place(trial), result)
        if self._halving is None or report is None:
            return TrialScheduler.CONTINUE
        if not self._halving.stops(report.trial, report.step, report.score):
            return TrialScheduler.CONTINUE
        self._log.stopped(report.trial, report.step)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        _complete(self._log, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        _failed(self._log, trial)


class RecordingPbt(PopulationBasedTraining):
    """Population based training (Jaderberg et al. 2017) that writes down what it decides. A trial
    that the journal knows joins the population with its last score."""

    def __init__(self, sweep: SweepConfig, log: TrialLog) -> None:
        rng = np.random.default_rng([sweep.base.seed, SWEEP_ROLE, random.getrandbits(32)])
        self._space = sweep.space
        mutations = {
            path: list(of.values) if isinstance(of, Choice) else (lambda of=of: of.draw(rng))
            for path, of in self._space.items()
        }
        super().__init__(
            time_attr="step",
            perturbation_interval=sweep.evaluate_every,
            hyperparam_mutations={"trial": {"settings": mutations}},
            log_config=False,
        )
        self._sweep = sweep
        self._log = log

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        known = self._log.trials[_place(trial)[0]]
        if known.reported_score is None:
            return
        state = self._trial_state[trial]
        state.last_score = known.reported_score
        state.last_train_time = state.last_perturbation_time = known.step
        state.last_result = {"step": known.step, "score": known.reported_score}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._log.report(*_place(trial), result)
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        _complete(self._log, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        _failed(self._log, trial)

    def _checkpoint_or_exploit(
        self,
        trial: Trial,
        tune_controller: Any,
        upper_quantile: list[Trial],
        lower_quantile: list[Trial],
    ) -> None:
        """Every trial that reported can be copied. Tune copies only those that it has saved: not
        those that became the best later, and none after a resume."""
        for other in upper_quantile:
            if other is not trial and not self._trial_state[other].last_checkpoint:
                # A mark, as all that Tune saves: the checkpoint lies in the trial's folder.
                self._trial_state[other].last_checkpoint = Checkpoint(self._log.mark())
        super()._checkpoint_or_exploit(trial, tune_controller, upper_quantile, lower_quantile)

    def _get_new_config(
        self, trial: Trial, trial_to_clone: Trial
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Changed settings of the donor's, within what they are drawn from, for a new generation
        whose folder is made here."""
        donor, number = self._log.trials[_place(trial_to_clone)[0]], _place(trial)[0]
        settings: Mapping[str, Value] = donor.settings
        config: dict[str, Any] = {}
        operations: dict[str, Any] = {}
        for _ in range(MOST_MUTATIONS):
            config, operations = super()._get_new_config(trial, trial_to_clone)
            drawn: Mapping[str, Any] = config["trial"]["settings"]
            inside = {path: of.nearest(drawn[path]) for path, of in self._space.items()}
            try:
                self._sweep.config_of(inside, name=self._sweep.name)
            except ValueError:  # settings that do not go together
                continue
            settings = inside
            break
        generation = self._log.exploited(number, donor=donor, step=donor.step, settings=settings)
        config["trial"] = {
            "number": number,
            "generation": generation,
            "settings": dict(settings),
        }
        return config, operations
