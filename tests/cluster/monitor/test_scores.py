"""What a task's evaluations add up to: returns by version, the newest version's episodes, and the
scale they are read on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cluster.monitor.fold import fold
from cluster.monitor.scores import (
    MAX_SCORES,
    Scale,
    Spread,
    TaskState,
    finite,
    read_scales,
    scale_of,
)
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.size import Size
from cluster.monitor.terminal.task_table import aggregate_line, task_table
from gato.array_spec import ArraySpec, Kind
from gato.metrics import Evaluation
from gato.task import References, Task
from gato.version import Version

HOPPER, PONG, OWN = "mujoco/hopper", "atari/pong", "own/task"
SCALES = {
    HOPPER: Scale(random_return=20.0, teacher_return=3220.0, expert_return=1620.0),
    PONG: Scale(random_return=-20.0, teacher_return=20.0, human_return=60.0),
}


def evaluation(
    number: int,
    *returns: float,
    task: str = HOPPER,
    epoch: int = 1,
    step: int | None = None,
    failed: str | None = None,
    warnings: tuple[str, ...] = (),
) -> Evaluation:
    return Evaluation(
        task=task,
        version=Version(epoch, number),
        learner_step=100 * number if step is None else step,
        returns=returns,
        failed=failed,
        warnings=warnings,
    )


def state_after(*evaluations: Evaluation) -> TaskState:
    state = TaskState()
    for each in evaluations:
        state = state.after(each)
    return state


@pytest.mark.parametrize(
    ("evaluations", "counted"),
    [
        (((1.0, 2.0), (3.0,)), (1.0, 2.0)),
        (((3.0,), (1.0, 2.0)), (1.0, 2.0)),
        (((1.0, 2.0), (1.0, 9.0)), (1.0, 9.0)),  # the first was cut off
    ],
)
def test_of_evaluations_of_one_version_the_one_with_most_episodes_counts(
    evaluations: tuple[tuple[float, ...], ...], counted: tuple[float, ...]
) -> None:
    state = state_after(*(evaluation(1, *returns) for returns in evaluations))
    assert state.newest_returns == counted
    (score,) = state.scores.values()
    assert (score.learner_step, score.returns) == (100, Spread.of(counted))
    assert state.num_versions == 1


def test_a_newer_version_begins_the_newest_returns_again() -> None:
    state = state_after(evaluation(1, 1.0, 2.0), evaluation(2, 3.0))
    assert state.newest_returns == (3.0,)
    assert state.newest is not None
    assert state.newest[0] == Version(1, 2)


def test_an_older_version_that_comes_late_changes_its_own_score_alone() -> None:
    state = state_after(evaluation(2, 5.0), evaluation(1, 1.0))
    assert state.newest_returns == (5.0,)
    assert {version.number: score.returns.mean for version, score in state.scores.items()} == {
        1: 1.0,
        2: 5.0,
    }


def test_a_later_epoch_is_newer_whatever_its_number() -> None:
    state = state_after(evaluation(9, 1.0), evaluation(2, 7.0, epoch=2), evaluation(10, 2.0))
    assert state.newest_returns == (7.0,)


@pytest.mark.parametrize(
    ("failed", "returns", "reason"),
    [
        ("it broke", (8.0,), "it broke"),
        (None, (), "it has no returns"),
        ("both", (), "both"),
        (None, (1.0, math.nan), "a return is not finite"),
        (None, (math.inf, -math.inf), "a return is not finite"),
    ],
)
def test_a_failure_is_counted_with_its_reason_and_changes_nothing_else(
    failed: str | None, returns: tuple[float, ...], reason: str
) -> None:
    before = state_after(evaluation(1, 1.0, warnings=("clipped",)))
    state = before.after(evaluation(2, *returns, failed=failed, warnings=("other",)))
    assert (state.num_failed, state.last_failure) == (1, reason)
    assert (state.scores, state.newest_returns) == (before.scores, (1.0,))
    assert state.warnings == ("clipped",)
    assert state.after(evaluation(2, failed="again")).num_failed == 2


def test_a_success_ends_the_failure_and_brings_its_own_warnings() -> None:
    state = state_after(
        evaluation(1, 1.0, warnings=("clipped",)),
        evaluation(2, failed="it broke"),
        evaluation(2, 2.0, warnings=("blind",)),
    )
    assert (state.num_failed, state.last_failure, state.warnings) == (1, None, ("blind",))
    assert state.after(evaluation(3, 1.0)).warnings == ()


def test_of_two_versions_of_one_step_the_newer_counts_and_steps_are_in_order() -> None:
    state = state_after(
        evaluation(5, 1.0, epoch=2, step=400),
        evaluation(4, 2.0, step=400),
        evaluation(6, 3.0, step=300),
    )
    assert [(score.learner_step, score.returns.mean) for score in state.by_step] == [
        (300, 3.0),
        (400, 1.0),
    ]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_a_spread_has_the_mean_and_deviation_of_its_values(values: list[float]) -> None:
    spread = Spread.of(values)
    mean = math.fsum(values) / len(values)
    assert spread.count == len(values)
    assert spread.mean == pytest.approx(mean, abs=1e-9)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    assert spread.std == pytest.approx(math.sqrt(variance), abs=1e-9)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8),
)
def test_the_deviation_of_large_values_keeps_its_digits(one: list[float], two: list[float]) -> None:
    large = [1e8 + value for value in (*one, *two)]
    parts = Spread.of(large[: len(one)]) + Spread.of(large[len(one) :])
    mean = math.fsum(large) / len(large)
    variance = math.fsum((value - mean) ** 2 for value in large) / len(large)
    assert parts.std == pytest.approx(math.sqrt(variance), rel=1e-6, abs=1e-6)


def test_nothing_has_no_mean_and_equal_values_no_deviation() -> None:
    assert math.isnan(Spread().mean)
    assert math.isnan(Spread().std)
    assert Spread.of([0.1, 0.1, 0.1]).std == pytest.approx(0.0, abs=1e-8)
    assert Spread.of([1.0]) + Spread.of([3.0]) == Spread.of([1.0, 3.0])


def test_a_return_is_normalised_by_teacher_expert_or_human() -> None:
    scale = Scale(random_return=20.0, teacher_return=120.0, expert_return=220.0, human_return=60.0)
    assert scale.normalise(70.0) == 0.5
    assert scale.normalise(70.0, by="expert") == 0.25
    assert scale.normalise(70.0, by="human") == 1.25
    assert math.isnan(SCALES[HOPPER].normalise(70.0, by="human"))
    assert math.isnan(Scale(random_return=1.0, teacher_return=1.0).normalise(5.0))


def test_without_a_teacher_the_published_expert_is_the_top_of_the_scale() -> None:
    references = References(random=1.0, expert=9.0, human=5.0, source="made for tests")
    task = Task(
        name="test/task",
        env_id="Task-v0",
        family="test",
        observations={"x": ArraySpec(kind=Kind.CONTINUOUS, shape=(1,))},
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=2),
        max_steps=10,
        references=references,
    )
    with_teacher, without = scale_of(task, 7.0), scale_of(task, None)
    assert with_teacher == Scale(
        random_return=1.0, teacher_return=7.0, expert_return=9.0, human_return=5.0
    )
    assert without is not None
    assert without.teacher_return == 9.0
    assert scale_of(task, 0.0) == Scale(
        random_return=1.0, teacher_return=0.0, expert_return=9.0, human_return=5.0
    )


def test_scales_are_read_from_the_runs_folder_and_none_is_no_error(tmp_path: Path) -> None:
    assert read_scales(tmp_path) == {}
    plain = {"mujoco/hopper": {"random_return": 20.0, "teacher_return": 3220.0}}
    (tmp_path / "scales.json").write_text(json.dumps(plain))
    assert read_scales(tmp_path) == {HOPPER: Scale(random_return=20.0, teacher_return=3220.0)}
    (tmp_path / "scales.json").write_text('{"mujoco/hopper": {"random_return": "low"}}')
    with pytest.raises(ValueError, match=r"scales\.json is damaged .*gato resume"):
        read_scales(tmp_path)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_becomes_none(value: float | None) -> None:
    assert finite(value) is None
    assert finite(0.0) == 0.0


def summary_of(*evaluations: Evaluation) -> Summary:
    summary = Summary(run="demo", scales=SCALES)
    for place, record in enumerate(evaluations):
        summary = fold(summary, f"{place + 1}-0", 1000.0 + place, record)
    return summary


BOTH = (
    evaluation(1, 20.0, 20.0),
    evaluation(2, 820.0, 1620.0),
    evaluation(1, -10.0, 10.0, task=PONG),
    evaluation(1, 1e6, 1e6, task=OWN),
)


def test_the_mean_over_tasks_is_of_the_newest_versions_normalised_by_each_measure() -> None:
    summary = summary_of(*BOTH)
    # Hopper's 0.25 and 0.5, Pong's 0.25 and 0.75: of four scores the middle two count whole.
    by_teacher = summary.aggregate("teacher")
    assert by_teacher is not None
    assert by_teacher.iqm == pytest.approx(0.375)
    low, high = by_teacher.bounds or (0.0, 0.0)
    assert 0.25 <= low < 0.375 < high <= 0.75
    assert by_teacher.num_tasks == 2
    # A task without the measure is left out: of two scores the inner half of each counts.
    by_expert, by_human = summary.aggregate("expert"), summary.aggregate("human")
    assert by_expert is not None
    assert by_human is not None
    assert (by_expert.iqm, by_expert.num_tasks) == (pytest.approx(0.75), 1)
    assert (by_human.iqm, by_human.num_tasks) == (pytest.approx((0.125 + 0.375) / 2), 1)


def test_without_evaluations_there_is_no_mean_over_tasks() -> None:
    assert summary_of().aggregate("teacher") is None
    assert summary_of(evaluation(1, 5.0, task=OWN)).aggregate("teacher") is None
    assert summary_of(evaluation(1, failed="it broke")).aggregate("teacher") is None


@pytest.mark.parametrize(("ascii_only", "between"), [(True, ", "), (False, " · ")])
def test_the_screen_shows_the_mean_over_tasks_where_two_or_more_have_the_measure(
    ascii_only: bool, between: str
) -> None:
    size = Size(columns=200, ascii_only=ascii_only)
    summary = summary_of(*BOTH)
    line, over = aggregate_line(summary, size), summary.aggregate("teacher")
    assert line is not None
    assert over is not None
    assert line.plain == f"IQM {over.text()} of the teacher's"
    assert over.text().startswith("0.38 [")
    scales = dict.fromkeys((HOPPER, PONG), SCALES[HOPPER])
    two = Summary(run="demo", scales=scales, tasks=dict.fromkeys(scales, summary.tasks[HOPPER]))
    line = aggregate_line(two, size)
    assert line is not None
    assert line.plain == (
        f"IQM 0.38 [0.25, 0.50] of the teacher's{between}0.75 [0.50, 1.00] of the expert's"
    )


def test_the_screen_has_no_such_line_for_one_task() -> None:
    size = Size(columns=200, ascii_only=False)
    assert aggregate_line(summary_of(evaluation(1, 820.0, 820.0)), size) is None
    assert aggregate_line(summary_of(), size) is None


def test_scores_of_a_long_run_are_bounded_and_no_episode_is_lost() -> None:
    state = TaskState()
    for number in range(5000):
        state = state.after(evaluation(number, 1.0, 3.0))
    assert len(state.scores) <= MAX_SCORES
    assert state.num_versions == 5000
    assert sum((score.returns for score in state.scores.values()), Spread()).count == 10_000
    steps = [score.learner_step for score in state.by_step]
    assert steps == sorted(steps)
    version, score = state.newest or (None, None)
    assert version == Version(1, 4999)
    assert score is not None
    assert score.returns.count == 2


def test_success_is_a_share_of_episodes_and_tasks_count_alike() -> None:
    def solved(task: str, number: int, *successes: bool) -> Evaluation:
        returns = tuple(100.0 for _ in successes)
        return replace(evaluation(number, *returns, task=task), successes=successes)

    records = [
        solved(HOPPER, 1, True, True),
        solved(HOPPER, 2, True, False),
        solved(HOPPER, 2, True, False, False, False),
        solved(OWN, 1, True),
        evaluation(1, 5.0, task=PONG),
    ]
    summary = Summary(run="x", scales=SCALES)
    for place, record in enumerate(records):
        summary = fold(summary, f"{place + 1}-0", 1.0, record)
    assert summary.success_rates() == {HOPPER: 0.25, OWN: 1.0}  # of the newest version
    shown = summary.to_json()
    assert (shown["success"], shown["tasks"][PONG]["success"]) == (0.625, None)
    line = aggregate_line(summary, Size(columns=120, ascii_only=False))
    assert line is not None
    assert "success 62% over 2 tasks" in line.plain
    console = Console(width=120, file=StringIO())
    console.print(task_table(summary, 1.0, Size(columns=120, ascii_only=False)))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert "success" in drawn
    assert "25%" in drawn
    plain = fold(Summary(run="x", scales=SCALES), "1-0", 1.0, records[-1])
    assert "success" not in [
        column.header
        for column in task_table(plain, 1.0, Size(columns=120, ascii_only=False)).columns
    ]
