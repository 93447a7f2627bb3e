"""The table of domains: each task counts alike, and accuracy stands apart from success."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from cluster.control.evaluation.domains import domains_table
from cluster.control.evaluation.report import EvaluationReport, TaskResult
from cluster.monitor.scores import Scale


def result(
    task: str, returns: tuple[float, ...], *, successes: tuple[bool, ...] = (), top: float = 1.0
) -> TaskResult:
    return TaskResult(
        task=task,
        learner_step=1,
        returns=returns,
        successes=successes,
        scale=Scale(random_return=0.0, teacher_return=top),
        is_trained=True,
    )


def lines(*results: TaskResult) -> list[list[str]]:
    report = EvaluationReport(
        checkpoint=Path("c"), tasks={each.task: each for each in results}, clips={}
    )
    table = domains_table(report)
    if table is None:
        return []
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    return [line.split() for line in console.export_text().splitlines()][1:]


def test_a_domain_is_the_mean_of_its_tasks_and_accuracy_is_no_success() -> None:
    assert lines(
        result("metaworld/reach", (10.0, 20.0), successes=(True, True), top=30.0),
        result("metaworld/push", (0.0,), successes=(False,), top=30.0),
        result("mujoco/hopper", (1.5,), top=3.0),
        result("vqa/easy-vqa", (1.0, 1.0, 1.0, 0.0), successes=(True, True, True, False)),
    ) == [
        ["metaworld", "2", "50%", "0.25", "-"],
        ["mujoco", "1", "-", "0.50", "-"],
        ["vqa", "1", "-", "-", "75%"],
    ]


def test_one_domain_needs_no_table() -> None:
    assert lines(result("mujoco/hopper", (1.0,)), result("mujoco/ant", (1.0,))) == []
