"""What an evaluation came to in each domain: success, normalised return, accuracy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from cluster.control.evaluation.report import EvaluationReport
from cluster.monitor.format import literal, number_text
from gato.task import RECORDED


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainScore:
    """Means over a domain's tasks, which count alike; None where no task has such a number."""

    domain: str
    num_tasks: int
    success: float | None
    """Share of solved episodes."""
    normalised: float | None
    """0 is a random policy's return, 1 the teacher's."""
    accuracy: float | None
    """Share of exact answers, of recorded domains such as vqa."""

    def cells(self) -> tuple[str, str, str, str, str]:
        """Domain, tasks, success, return, accuracy, as they are printed."""
        percent = ["-" if of is None else f"{of:.0%}" for of in (self.success, self.accuracy)]
        return (
            self.domain, str(self.num_tasks), percent[0], number_text(self.normalised), percent[1],
        )  # fmt: skip


def domain_scores(
    scores: Mapping[str, tuple[float | None, float | None]],
) -> list[DomainScore]:
    """One for each domain, in order. `scores`: success and normalised return of each task."""
    by_domain: dict[str, list[tuple[float | None, float | None]]] = {}
    for name, score in scores.items():
        by_domain.setdefault(re.split("[/:]", name)[0], []).append(score)
    found = []
    for domain, of in by_domain.items():
        is_recorded = domain in RECORDED
        success = _mean([success for success, _ in of])
        found.append(
            DomainScore(
                domain=domain,
                num_tasks=len(of),
                success=None if is_recorded else success,
                normalised=None if is_recorded else _mean([score for _, score in of]),
                accuracy=success if is_recorded else None,
            )
        )
    return found


def domains_table(report: EvaluationReport) -> Table | None:
    """A row for each domain; None if there is only one."""
    found = domain_scores(
        {name: (of.success_rate, of.normalised()) for name, of in report.tasks.items()}
    )
    if len(found) < 2:
        return None
    table = Table("domain", "tasks", "success", "of teacher", "accuracy", box=None)
    table.header_style = "bold"
    for score in found:
        domain, *cells = score.cells()
        table.add_row(literal(domain), *cells)
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
