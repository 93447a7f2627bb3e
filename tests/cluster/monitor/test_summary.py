"""Folding the journal gives the state of the run: the same in one go or in parts, and never a mean
of means."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.journal.records import Event, Record
from cluster.monitor.alerts import standing_alerts
from cluster.monitor.fold import fold, killed
from cluster.monitor.scores import Scale, Spread
from cluster.monitor.summary import WINDOW_S, Summary
from gato.metrics import (
    AssignmentProgress,
    Evaluation,
    LearnerReport,
    Mean,
    ReplayStats,
    WorkerReport,
)
from gato.version import Version

HOPPER, PONG = "mujoco/hopper", "atari/pong"
SCALES = {
    HOPPER: Scale(random_return=20.0, teacher_return=3220.0, expert_return=1620.0),
    PONG: Scale(random_return=-20.0, teacher_return=20.0),
}
BEGIN_S = 1_000.0


def evaluation(
    number: int, *returns: float, task: str = HOPPER, epoch: int = 1, step: int | None = None
) -> Evaluation:
    step = 100 * number if step is None else step
    return Evaluation(task=task, version=Version(epoch, number), learner_step=step, returns=returns)


def learner(
    step: int, number: int = 1, *, wall_s: float = 2.0, wait_s: float = 0.5, tokens: int = 1000
) -> LearnerReport:
    return LearnerReport(
        step=step,
        num_updates=1000,
        version=Version(1, number),
        loss=Mean(6.0, 4),
        loss_by_task={HOPPER: Mean(3.0, 2)},
        learning_rate=1e-4,
        gradient_norm=1.0,
        tokens=tokens,
        wall_s=wall_s,
        wait_s=wait_s,
        blocked_s=0.02,
    )


def worker(
    name: str = "worker-0",
    *,
    number: int | None = 1,
    steps: int = 1000,
    wall_s: float = 5.0,
    task: str = HOPPER,
) -> WorkerReport:
    return WorkerReport(
        worker=name,
        role="generate",
        task=task,
        version=None if number is None else Version(1, number),
        episodes=2,
        env_steps=steps,
        wall_s=wall_s,
        wait_s=1.0,
        refused={"NaN": 1},
    )


def at_work(
    name: str = "worker-0", *, number: int | None = 1, steps: int = 1000, wall_s: float = 5.0
) -> AssignmentProgress:
    return AssignmentProgress(
        worker=name,
        role="evaluate",
        task=PONG,
        version=None if number is None else Version(1, number),
        episodes=3,
        env_steps=steps,
        wall_s=wall_s,
    )


REPLAY = ReplayStats(
    episodes={HOPPER: 3, PONG: 4},
    steps=700,
    inserted_tokens=9_000,
    read_tokens=8_000,
    stored_bytes=250,
    capacity_bytes=1000,
    refused={"NaN": 2},
)


def folded(
    records: Iterable[Record],
    summary: Summary | None = None,
    *,
    times_s: Sequence[float] | None = None,
    first: int = 1,
) -> Summary:
    summary = summary or Summary(run="demo", scales=SCALES)
    for place, record in enumerate(records):
        number = first + place
        time_s = times_s[place] if times_s is not None else BEGIN_S + number
        summary = fold(summary, f"{number}-0", time_s, record)
    return summary


finite = st.floats(-1e6, 1e6)
# Made in the test, not while drawing: the check of their types draws random numbers of its own.
any_maker = st.one_of(
    st.builds(
        partial,
        st.just(evaluation),
        st.integers(1, 9),
        finite,
        finite,
        task=st.sampled_from([HOPPER, PONG, "own/task"]),
    ),
    st.builds(partial, st.just(learner), st.integers(0, 1000), st.integers(1, 9)),
    st.builds(
        partial,
        st.just(worker),
        st.sampled_from(["a", "b"]),
        number=st.one_of(st.none(), st.integers(1, 9)),
    ),
    st.just(lambda: REPLAY),
    st.builds(
        partial,
        st.just(at_work),
        st.sampled_from(["a", "b"]),
        number=st.one_of(st.none(), st.integers(1, 9)),
    ),
    st.builds(
        partial,
        st.just(Event),
        kind=st.sampled_from(["started", "stopped", "scaled"]),
        text=st.text(),
        time_s=finite,
    ),
)
Makers = list[Callable[[], Record]]


@given(makers=st.lists(any_maker, max_size=30), cut=st.integers(0, 30))
def test_folding_in_two_parts_equals_folding_the_whole(makers: Makers, cut: int) -> None:
    records = [make() for make in makers]
    whole = folded(records)
    first = folded(records[:cut])
    assert folded(records[cut:], first, first=len(records[:cut]) + 1) == whole
    assert folded(records, whole) == whole, "entries that are read again change nothing"


@given(makers=st.lists(any_maker, max_size=30))
def test_what_the_page_gets_is_valid_json(makers: Makers) -> None:
    records = [make() for make in makers]
    entry = json.loads(json.dumps(folded(records).to_json(), allow_nan=False))
    assert {"run", "tasks", "learner", "replay", "workers"} <= entry.keys()
    keys = {"version", "step", "return", "normalised", "episodes", "teacher_return", "history"}
    assert all(keys <= task.keys() for task in entry["tasks"].values())
    assert {"step", "loss", "tokens_per_s", "wait_fraction"} <= entry["learner"].keys()


@given(parts=st.lists(st.lists(finite, min_size=1, max_size=5), min_size=1, max_size=5))
def test_the_return_of_a_version_is_that_of_its_longest_evaluation(
    parts: list[list[float]],
) -> None:
    returns = max(reversed(parts), key=len)  # all play the same seeds
    task = folded(evaluation(1, *part) for part in parts).to_json()["tasks"][HOPPER]
    mean = math.fsum(returns) / len(returns)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in returns) / len(returns))
    assert task["episodes"] == len(returns)
    assert task["return"] == pytest.approx(mean, abs=1e-6, rel=1e-9)
    assert task["return_std"] == pytest.approx(std, abs=0.05)


@given(a=st.lists(finite), b=st.lists(finite))
def test_spreads_of_parts_add_up(a: list[float], b: list[float]) -> None:
    parts, whole = Spread.of(a) + Spread.of(b), Spread.of(a + b)
    assert parts.count == whole.count
    assert parts.total == pytest.approx(whole.total, abs=1e-6)


def test_a_task_is_shown_by_its_newest_version_with_its_history_in_order_of_steps() -> None:
    records = [
        evaluation(2, 20.0),
        evaluation(5, 1620.0, 1620.0),
        evaluation(1, 20.0),
        evaluation(3, 820.0),
    ]
    task = folded(records).to_json()["tasks"][HOPPER]
    assert task == {
        "version": "1.5",
        "step": 500,
        "return": 1620.0,
        "return_std": 0.0,
        "normalised": 0.5,
        "expert_normalised": 1.0,
        "human_normalised": None,
        "success": None,
        "measures": {},
        "episodes": 2,
        "random_return": 20.0,
        "teacher_return": 3220.0,
        "expert_return": 1620.0,
        "human_return": None,
        "versions_evaluated": 4,
        "failed": 0,
        "last_failure": None,
        "warnings": [],
        "env_steps_per_s": 0,
        "history": [[100, 0.0], [200, 0.0], [300, 0.25], [500, 0.5]],
    }


def test_after_a_resume_the_later_epoch_counts() -> None:
    records = [
        evaluation(4, 20.0, step=400),
        evaluation(5, 1620.0, epoch=2, step=400),
        evaluation(6, 20.0, step=600),
    ]
    summary = folded(records)
    assert summary.history(HOPPER) == [(400, 0.5), (600, 0.0)]
    assert summary.to_json()["tasks"][HOPPER]["version"] == "2.5"


def test_a_failed_evaluation_is_counted_and_never_averaged() -> None:
    failed = Evaluation(
        task=HOPPER, version=Version(1, 2), learner_step=200, returns=(1e9,), failed="it broke"
    )
    task = folded([evaluation(1, 20.0), failed]).to_json()["tasks"][HOPPER]
    assert (task["version"], task["return"], task["failed"], task["last_failure"]) == (
        "1.1",
        20.0,
        1,
        "it broke",
    )
    task = folded([failed, evaluation(2, 20.0)]).to_json()["tasks"][HOPPER]
    assert (task["failed"], task["last_failure"]) == (1, None)


def test_a_task_that_was_not_evaluated_has_nulls() -> None:
    task = folded([]).to_json()["tasks"][PONG]
    assert (task["version"], task["return"], task["normalised"], task["history"]) == (
        None,
        None,
        None,
        [],
    )
    assert task["teacher_return"] == 20.0


def test_a_task_without_a_scale_has_no_normalised_return() -> None:
    task = folded([evaluation(1, 5.0, task="own/task")]).to_json()["tasks"]["own/task"]
    assert (task["return"], task["normalised"], task["teacher_return"]) == (5.0, None, None)


def test_learner_rates_are_sums_over_sums_of_the_last_minute() -> None:
    records = [
        learner(1, tokens=10**9),
        learner(2, wall_s=1.0, wait_s=1.0),
        learner(3, wall_s=9.0, wait_s=0.0),
    ]
    summary = folded(records, times_s=[BEGIN_S, BEGIN_S + WINDOW_S + 1, BEGIN_S + WINDOW_S + 10])
    state = summary.to_json()["learner"]
    assert state["wait_fraction"] == pytest.approx(0.1)
    assert state["tokens_per_s"] == pytest.approx(200.0)
    assert (state["step"], state["loss"], state["loss_by_task"]) == (3, 1.5, {HOPPER: 1.5})


def test_a_report_without_an_update_leaves_the_loss_as_it_was() -> None:
    last = replace(learner(40, 2), loss=Mean(), loss_by_task={})
    shown = folded([learner(40), last]).to_json()["learner"]
    assert (shown["loss"], shown["version"]) == (1.5, "1.2")
    assert shown["loss_by_task"] == {HOPPER: 1.5}
    assert folded([last]).to_json()["learner"]["loss"] is None


def test_a_last_publication_leaves_the_gradient_and_mfu_as_they_were() -> None:
    full = replace(learner(40), mfu=0.25)
    last = replace(learner(40, 2, wait_s=0.0, tokens=0), loss=Mean(), gradient_norm=0.0, mfu=0.0)
    kept = folded([full, last]).learner
    assert kept is not None
    assert (kept.gradient_norm, kept.mfu, kept.version) == (1.0, 0.25, Version(1, 2))
    waiting = folded([full, replace(last, wait_s=2.0)]).learner
    assert waiting is not None
    assert waiting.mfu == 0.0


def test_a_clock_that_is_set_back_takes_the_run_with_it() -> None:
    hour_s = 3600.0
    before = folded([learner(1), worker("a"), worker("gone")], times_s=[BEGIN_S + hour_s] * 3)
    after = [learner(2, tokens=4000), worker("a", steps=500), at_work("b")]
    summary = folded(after, before, times_s=[BEGIN_S, BEGIN_S + 1, BEGIN_S + 1], first=4)
    assert summary.last_s == BEGIN_S + 1
    assert [w["id"] for w in summary.to_json()["workers"]] == ["a", "b"]
    assert summary.learner_rate("tokens") == pytest.approx(2000.0)
    assert summary.workers["a"].env_steps_per_s() == pytest.approx(100.0)
    a_little = folded([learner(3)], summary, times_s=[BEGIN_S - 5], first=7)
    assert a_little.last_s == BEGIN_S + 1


def test_a_worker_that_told_how_far_it_is_and_left_is_not_counted_for_long() -> None:
    records = [worker("a", wall_s=900.0), at_work("a", wall_s=8.0)]
    summary = folded(records, times_s=[BEGIN_S, BEGIN_S + 8])
    assert summary.current_workers(BEGIN_S + 8 + WINDOW_S - 1)
    assert not summary.current_workers(BEGIN_S + 8 + WINDOW_S + 1)


def test_rates_of_all_tasks_are_those_of_each() -> None:
    records = [worker("a"), worker("b", task=PONG), at_work("b", steps=700), worker("c")]
    summary = folded(records)
    rates = summary.env_steps_per_s_of_tasks(summary.last_s)
    for task in (HOPPER, PONG):
        assert rates[task] == pytest.approx(summary.env_steps_per_s(summary.last_s, task))
        assert summary.to_json()["tasks"][task]["env_steps_per_s"] == pytest.approx(rates[task])


def test_accuracy_and_norms_stay_when_a_report_has_none() -> None:
    full = replace(
        learner(30, 1), accuracy_by_task={HOPPER: Mean(3.0, 4)}, norm_by_part={"head": 0.5}
    )
    kept = folded([full, replace(learner(40, 2), loss=Mean(), loss_by_task={})]).learner
    assert kept is not None
    assert (kept.step, kept.accuracy_by_task, kept.norm_by_part) == (
        40, full.accuracy_by_task, full.norm_by_part,
    )  # fmt: skip


def test_the_last_loss_may_be_no_number() -> None:
    broken = LearnerReport(
        step=1,
        num_updates=2,
        version=Version(1, 1),
        loss=Mean(math.nan, 1),
        learning_rate=math.inf,
        gradient_norm=math.nan,
        tokens=0,
        wall_s=0.0,
        wait_s=0.0,
    )
    state = folded([broken]).to_json()["learner"]
    assert (state["loss"], state["learning_rate"], state["tokens_per_s"]) == (None, None, None)


def test_environment_steps_a_second_add_up_over_workers_and_split_by_task() -> None:
    records = [
        worker("a"),
        worker("b", task=PONG),
        worker("a", task=PONG, steps=3000),
        worker("b", task=PONG),
    ]
    summary = folded(records, times_s=[BEGIN_S, BEGIN_S, BEGIN_S + 5, BEGIN_S + 5])
    now_s = BEGIN_S + 5
    assert summary.env_steps_per_s(now_s) == pytest.approx(400.0 + 200.0)
    assert summary.env_steps_per_s(now_s, HOPPER) == pytest.approx(100.0)
    assert summary.env_steps_per_s(now_s, PONG) == pytest.approx(300.0 + 200.0)


def test_a_worker_that_is_not_heard_of_is_not_counted() -> None:
    summary = folded([worker("a"), worker("b", wall_s=300.0)], times_s=[BEGIN_S, BEGIN_S])
    assert [w["id"] for w in summary.to_json(BEGIN_S + WINDOW_S + 1)["workers"]] == ["b"]


def test_a_worker_at_a_long_assignment_is_shown_with_how_far_it_is() -> None:
    records = [worker("a", wall_s=5.0), at_work("a", steps=9_000, wall_s=90.0), at_work("new")]
    summary = folded(records, times_s=[BEGIN_S, BEGIN_S + 90, BEGIN_S + 90])
    now_s = BEGIN_S + 90 + WINDOW_S / 2
    old, new = summary.to_json(now_s)["workers"]
    assert (old["id"], old["role"], old["task"]) == ("a", "evaluate", PONG)
    assert (old["assignment_s"], old["assignment_episodes"]) == (90.0 + WINDOW_S / 2, 3)
    assert old["env_steps_per_s"] == pytest.approx(100.0)
    assert old["refused"] == {"NaN": 1}
    assert (new["id"], new["version"]) == ("new", str(Version(1, 1)))
    assert summary.env_steps_per_s(now_s, PONG) == pytest.approx(100.0 + 200.0)
    done = folded([worker("a", steps=9_500, wall_s=95.0)], summary, times_s=[BEGIN_S + 95], first=9)
    (ended, _) = done.to_json(BEGIN_S + 95)["workers"]
    assert (ended["role"], ended["assignment_s"]) == ("generate", None)
    assert ended["env_steps_per_s"] == pytest.approx(100.0)


def test_the_age_of_the_weights_is_counted_from_when_there_were_newer_ones() -> None:
    records = [
        learner(1, 1),
        learner(2, 2),
        learner(3, 3),
        worker(number=1),
        worker("b", number=3),
        worker("t", number=None),
    ]
    summary = folded(
        records,
        times_s=[BEGIN_S, BEGIN_S + 10, BEGIN_S + 20, BEGIN_S + 25, BEGIN_S + 25, BEGIN_S + 25],
    )
    workers = {entry["id"]: entry for entry in summary.to_json()["workers"]}
    assert (workers["worker-0"]["age_versions"], workers["worker-0"]["age_s"]) == (2, 15.0)
    assert (workers["b"]["age_versions"], workers["b"]["age_s"]) == (0, 0.0)
    assert (workers["t"]["version"], workers["t"]["age_versions"]) == (None, None)
    assert summary.oldest_weights_played(summary.last_s) == (2, 15.0)


def test_refusals_and_waits_of_a_worker_add_up() -> None:
    (entry,) = folded([worker(), replace(worker(), kept=3)]).to_json()["workers"]
    assert entry["refused"] == {"NaN": 2}
    assert entry["kept"] == 3, "as it stands, not all that was ever kept"
    assert entry["wait_fraction"] == pytest.approx(0.2)


def test_replay_is_shown_with_its_fill() -> None:
    replay = folded([REPLAY]).to_json()["replay"]
    assert (replay["fill"], replay["episodes"], replay["refused"]) == (
        0.25,
        {HOPPER: 3, PONG: 4},
        {"NaN": 2},
    )
    assert folded([]).to_json()["replay"] == {}


def test_events_say_how_the_run_stands_and_the_newest_is_last() -> None:
    summary = folded([Event(kind="started", text=""), Event(kind="scaled", text="to 4")])
    assert (summary.state, summary.events[-1].text) == ("running", "to 4")
    assert folded([Event(kind="stopped", text="")], summary, first=3).state == "stopped"
    many = folded(Event(kind="scaled", text=str(n)) for n in range(200))
    assert (len(many.events), many.events[-1].text) == (50, "199")


def test_a_killed_run_is_an_alert_and_the_same_one_at_each_look() -> None:
    summary = fold(
        Summary(run="demo"), "1-0", 1000.0, Event(kind="started", text="x", time_s=1000.0)
    )
    one, other = killed(summary), killed(summary)
    assert one.state == "dead"
    assert [(alert.kind, alert.time_s) for alert in standing_alerts(one, 5000.0)] == [
        ("dead", 1000.0)
    ]
    assert one == other
