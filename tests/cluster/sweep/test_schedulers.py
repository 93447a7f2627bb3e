"""Schedulers that are rebuilt from the journal decide as those that were never interrupted."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial

from cluster.runs.presets import RUNS
from cluster.sweep.folder import SweepFolder
from cluster.sweep.journal import Planned, Report, SweepRecord
from cluster.sweep.plan import SweepConfig
from cluster.sweep.trial_log import TrialLog
from cluster.sweep.tune_schedulers import Halving, RecordingPbt

EVERY = 5


def sweep_of(scheduler: str, trials: int, folder: str = "/nowhere") -> SweepConfig:
    return SweepConfig(
        name="s", base=RUNS["debug"], words=(), over={"learner.max_rate": "log:1e-4:1e-2"},
        scheduler=scheduler, reduction=2, trials=trials, evaluate_every=EVERY, episodes=1,
        stores=(folder,), scales={},
    )  # type: ignore[arg-type]  # fmt: skip


@st.composite
def reports(draw: st.DrawFn) -> list[Report]:
    """Reports of ten trials, in any order, each trial's in its own."""
    order = draw(st.permutations([trial for trial in range(10) for _ in range(7)]))
    steps = dict.fromkeys(range(10), 0)
    made: list[Report] = []
    for trial in order:
        steps[trial] += EVERY
        score = draw(st.floats(0, 1))
        made.append(Report(trial=trial, generation=0, step=steps[trial], score=score))
    return made


def decided(halving: Halving, given: list[Report]) -> list[bool]:
    return [halving.stops(report.trial, report.step, report.score) for report in given]


@given(given=reports(), cut=st.integers(0, 70))
def test_rungs_that_are_replayed_stop_the_same_trials(given: list[Report], cut: int) -> None:
    unbroken = decided(Halving(sweep_of("asha", 10)), given)
    rebuilt = Halving(sweep_of("asha", 10))
    journal: list[SweepRecord] = [Planned(trial=0, settings={}), *given[:cut]]
    ending = rebuilt.replay(journal)
    assert decided(rebuilt, given[cut:]) == unbroken[cut:]
    last = {report.trial: stops for report, stops in zip(given[:cut], unbroken, strict=False)}
    assert ending == {trial for trial, stops in last.items() if stops}


def test_the_worse_half_ends_at_each_rung_and_nobody_at_the_end() -> None:
    halving = Halving(sweep_of("asha", 10))
    assert not halving.stops(1, 5, 0.5)  # nobody to compare it with
    assert halving.stops(2, 5, 0.1)
    assert not halving.stops(3, 5, 0.9)
    assert not halving.stops(1, 10, 0.5)
    assert not halving.stops(3, 10, 0.9)
    assert not halving.stops(1, RUNS["debug"].learner.num_updates, 0.0)


# PBT


class Controller:
    """What the scheduler asks of Tune."""

    search_alg = None

    def __init__(self) -> None:
        self.trials: list[Trial] = []

    def get_trials(self) -> list[Trial]:
        return self.trials

    def pause_trial(self, trial: Trial, should_checkpoint: bool) -> None:
        trial.status = Trial.PAUSED

    def _schedule_trial_save(self, trial: Trial, result: object) -> object:
        return SimpleNamespace(path="a checkpoint that Tune saved")


class Population:
    """A scheduler with its trials, which are running."""

    def __init__(self, folder: SweepFolder, sweep: SweepConfig) -> None:
        self.log = TrialLog(folder, sweep, say=lambda _: None)
        self.scheduler = RecordingPbt(sweep, self.log)
        self.scheduler.set_search_properties("score", "max")
        self.controller = Controller()
        self.by_number: dict[int, Trial] = {}
        for state in self.log.trials.values():
            config = {
                "trial": {
                    "number": state.number,
                    "generation": state.generation,
                    "settings": dict(state.settings),
                }
            }
            trial = Trial("sweep", stub=True, config=config, trial_id=str(state.number))
            trial.status = Trial.RUNNING
            self.by_number[state.number] = trial
            self.controller.trials.append(trial)
            self.scheduler.on_trial_add(self.controller, trial)

    def report(self, folder: SweepFolder, number: int, step: int, score: float) -> None:
        trial = self.by_number[number]
        generation = trial.config["trial"]["generation"]
        checkpoints = folder.trial_path(number, generation) / "checkpoints"
        (checkpoints / f"step-{step:09d}").mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {"step": step, "score": score, "loss": 1.0, "returns": []}
        self.scheduler.on_trial_result(self.controller, trial, result)
        trial.status = Trial.RUNNING

    def standing(self) -> dict[int, tuple[float | None, int, int]]:
        """Score, step, and step of the last change, as the scheduler knows them."""
        return {
            int(trial.trial_id): (s.last_score, s.last_train_time, s.last_perturbation_time)
            for trial, s in self.scheduler._trial_state.items()
        }

    def quantiles(self) -> list[list[str]]:
        return [[t.trial_id for t in part] for part in self.scheduler._quantiles()]


@pytest.fixture
def population(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SweepFolder, SweepConfig]:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path))
    sweep = sweep_of("pbt", 4, str(tmp_path))
    folder = SweepFolder.create(sweep)
    for number in range(1, 5):
        settings = {"learner.max_rate": number * 1e-3}
        folder.journal.append(Planned(trial=number, settings=settings))
    return folder, sweep


def test_a_worse_trial_copies_a_better_one_within_the_range(
    population: tuple[SweepFolder, SweepConfig],
) -> None:
    folder, sweep = population
    random.seed(0)
    alive = Population(folder, sweep)
    alive.report(folder, 4, EVERY, 0.9)
    alive.report(folder, 1, EVERY, 0.1)
    state = alive.log.trials[1]
    assert state.copied is not None
    assert (state.copied.donor, state.copied.step, state.generation) == (4, EVERY, 1)
    assert 1e-4 <= float(state.settings["learner.max_rate"] or 0) <= 1e-2
    assert alive.by_number[1].config["trial"] == {
        "number": 1,
        "generation": 1,
        "settings": dict(state.settings),
    }
    new = folder.trial_path(1, 1)
    assert (new / "checkpoints" / f"step-{EVERY:09d}").is_dir()
    assert not (folder.trial_path(1, 0) / "checkpoints").exists()


@pytest.mark.parametrize("seed", range(5))
def test_a_population_that_is_rebuilt_stands_as_it_did(
    population: tuple[SweepFolder, SweepConfig], seed: int
) -> None:
    folder, sweep = population
    random.seed(seed)
    alive = Population(folder, sweep)
    steps = dict.fromkeys(range(1, 5), 0)
    for _ in range(14):
        number = random.randint(1, 4)
        steps[number] = alive.log.trials[number].step + EVERY
        alive.report(folder, number, steps[number], random.random())
    rebuilt = Population(folder, sweep)
    assert rebuilt.standing() == alive.standing()
    assert rebuilt.quantiles() == alive.quantiles()
    assert rebuilt.log.trials == alive.log.trials
    assert any(state.generation for state in rebuilt.log.trials.values())
    low, high = rebuilt.quantiles()
    assert low
    worst = int(low[0])
    rebuilt.report(folder, worst, rebuilt.log.trials[worst].step + EVERY, -1.0)
    assert rebuilt.log.trials[worst].copied is not None  # it can copy at once
    assert str(rebuilt.log.trials[worst].copied.donor) in high  # type: ignore[union-attr]
