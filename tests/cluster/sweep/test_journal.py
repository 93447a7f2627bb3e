"""The journal of a sweep, and what it says of the trials."""

import math
import stat
from pathlib import Path

import pytest

from cluster.journal.records import Event
from cluster.sweep.journal import (
    FILE,
    Ended,
    Exploited,
    Planned,
    Report,
    Stopped,
    SweepJournal,
    SweepRecord,
)
from cluster.sweep.state import best_of, ranked, trials_in


def report(trial: int, step: int, score: float, generation: int = 0) -> Report:
    return Report(
        trial=trial, generation=generation, step=step, score=score, loss=1.5, returns={"t": 3.0}
    )


RECORDS: list[SweepRecord] = [
    Event(kind="started", text="3 trials", time_s=1.0),
    Planned(trial=1, settings={"learner.max_rate": 1e-3, "learner.bf16": None, "a": True}),
    Planned(trial=2, settings={"learner.max_rate": 2e-3}),
    Planned(trial=3, settings={"learner.max_rate": 3e-3}),
    Planned(trial=4, settings={"learner.max_rate": 4e-3}),
    report(1, 10, 0.1),
    report(2, 10, 0.5),
    Exploited(
        trial=1, generation=1, donor=2, step=10, score=0.5, settings={"learner.max_rate": 2.4e-3}
    ),
    Stopped(trial=2, step=10),
    report(1, 20, 0.3, generation=1),
    Ended(trial=1, how="finished"),
    Ended(trial=3, how="diverged", reason="loss nan at step 3"),
]


def test_records_come_back_in_order(tmp_path: Path) -> None:
    journal = SweepJournal(tmp_path)
    for record in RECORDS:
        journal.append(record)
    assert journal.read() == RECORDS
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("keep", [1, 20, 60])
def test_a_line_that_a_killed_process_did_not_finish_is_left_out(tmp_path: Path, keep: int) -> None:
    journal = SweepJournal(tmp_path)
    for record in RECORDS[:5]:
        journal.append(record)
    whole = (tmp_path / FILE).read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    (tmp_path / FILE).write_bytes(whole[: len(whole) - len(last) + min(keep, len(last) - 2)])
    assert journal.read() == RECORDS[:4]
    journal.append(RECORDS[5])  # not glued to the rest of that line
    assert journal.read() == [*RECORDS[:4], RECORDS[5]]


def test_a_trial_is_what_its_records_say() -> None:
    trials = trials_in(RECORDS)
    assert [t.word for t in trials.values()] == ["finished", "stopped", "diverged", "planned"]
    first = trials[1]
    assert (first.generation, first.score, first.step) == (1, 0.3, 20)
    assert first.settings == {"learner.max_rate": 2.4e-3}
    assert trials[3].reason == "loss nan at step 3"
    assert [t.is_over for t in trials.values()] == [True, True, True, False]


def test_a_trial_that_copied_another_goes_on_from_its_step() -> None:
    trial = trials_in(RECORDS[:8])[1]
    assert (trial.word, trial.step, trial.score) == ("unfinished", 10, 0.5)  # the donor's


def test_of_two_trials_with_one_score_the_one_that_copied_it_is_the_second() -> None:
    copied = Exploited(trial=1, generation=1, donor=2, step=10, score=0.5, settings={"seed": 3})
    planned = [Planned(trial=number, settings={"seed": number}) for number in (1, 2)]
    trials = trials_in([*planned, report(1, 10, 0.1), report(2, 10, 0.5), copied])
    assert [t.number for t in ranked(trials.values())] == [2, 1]  # its settings were not tried yet


def test_a_report_that_is_sent_again_counts_once() -> None:
    trial = trials_in([RECORDS[1], report(1, 10, 0.1), report(1, 10, 0.1)])[1]
    assert len(trial.reports) == 1


def test_a_failed_trial_is_tried_again() -> None:
    failed = trials_in([RECORDS[1], Ended(trial=1, how="failed", reason="no space")])[1]
    assert not failed.is_over
    assert failed.after(report(1, 10, 0.2)).word == "unfinished"


def test_the_best_was_trained_to_the_end() -> None:
    trials = list(trials_in(RECORDS).values())
    assert [t.number for t in ranked(trials)] == [2, 1, 3, 4]
    best = best_of(trials)
    assert best is not None
    assert best.number == 1  # trial 2 has a higher score, of fewer updates
    nothing = trials_in([RECORDS[1], report(1, 10, math.nan)])[1]
    assert best_of([nothing]) is None
