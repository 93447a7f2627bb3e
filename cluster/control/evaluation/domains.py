"""What an evaluation came to in each domain: success, normalised return, accuracy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rich.table import Table

from cluster.control.evaluation.report import EvaluationReport, TaskResult
from cluster.monitor.format import literal, number_text
from gato.task import RECORDED


def domains_table(report: EvaluationReport) -> Table | None:
    """A row for each domain, whose tasks count alike; None if there is only one."""
    by_domain: dict[str, list[TaskResult]] = {}
    for name, result in report.tasks.items():
        by_domain.setdefault(re.split("[/:]", name)[0], []).append(result)
    if len(by_domain) < 2:
        return None
    table = Table("domain", "tasks", "success", "of teacher", "accuracy", box=None)
    table.header_style = "bold"
    for domain, results in by_domain.items():
        is_recorded = domain in RECORDED
        rate = _mean([result.success_rate for result in results])
        shown = "-" if rate is None else f"{rate:.0%}"
        score = None if is_recorded else _mean([result.normalised() for result in results])
        table.add_row(
            literal(domain),
            str(len(results)),
            "-" if is_recorded else shown,
            number_text(score),
            shown if is_recorded else "-",
        )
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
