"""The table of tasks in the picture of a run, and the mean over them."""

from __future__ import annotations

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from cluster.monitor.format import (
    clip,
    count_text,
    number_text,
    printable,
    sparkline,
    spread_text,
)
from cluster.monitor.scores import MEASURES, TaskState, mean_success
from cluster.monitor.size import Size
from cluster.monitor.summary import Summary

MIN_SPARK_COLUMNS = 8
MAX_SPARK_COLUMNS = 60
USUAL_SPARK_COLUMNS = 24
"""More only if a history is longer."""
MIN_NAME_COLUMNS = 10


def task_table(summary: Summary, now_s: float, size: Size) -> Table:
    """A line a task. The history takes the columns that the others leave."""
    titles = ["task", "return", "norm", "history", "ver", "step", "eps", "env/s", "teacher"]
    if size.is_wide:
        titles += ["random", "failed"]
    rates = summary.success_rates()
    titles += ["success"] if rates else []
    rows = [_task_cells(summary, name, now_s, size) for name in summary.task_names()]
    if rates:
        for name, cells in zip(summary.task_names(), rows, strict=True):
            cells.append(Text(f"{rates[name]:.0%}" if name in rates else "-"))
    widths = [
        max(len(title), *(cell_len(row[i].plain) for row in rows), 0)
        for i, title in enumerate(titles)
    ]
    spare = size.columns - sum(widths) + widths[3] - (2 if size.is_wide else 1) * (len(titles) - 1)
    if spare < MIN_SPARK_COLUMNS:
        cut = min(MIN_SPARK_COLUMNS - spare, max(0, widths[0] - MIN_NAME_COLUMNS))
        widths[0] -= cut
        spare += cut
    longest = max(
        [USUAL_SPARK_COLUMNS, *(len(summary.history(name)) for name in summary.task_names())]
    )
    widths[3] = max(MIN_SPARK_COLUMNS, min(spare, longest, MAX_SPARK_COLUMNS))
    table = Table(
        box=None,
        padding=(0, 2 if size.is_wide else 1, 0, 0),
        pad_edge=False,
        header_style="bold",
        collapse_padding=True,
    )
    for title, width in zip(titles, widths, strict=True):
        justify = "left" if title in ("task", "history") else "right"
        style = {"history": "cyan", "teacher": "dim", "random": "dim"}.get(title, "")
        table.add_column(title, justify=justify, no_wrap=True, width=width, style=style)
    for name, cells in zip(summary.task_names(), rows, strict=True):
        cells[0] = Text(
            clip(cells[0].plain, widths[0], ascii_only=size.ascii_only), style=cells[0].style
        )
        cells[3] = Text(_history_text(summary, name, widths[3], size))
        table.add_row(*cells)
    return table


def aggregate_line(summary: Summary, size: Size) -> Text | None:
    """The interquartile mean over the tasks, by each measure that two or more have, and the mean
    success rate; None where there is neither."""
    says: list[str] = []
    for by in MEASURES:
        over = summary.aggregate(by)
        if over is not None and over.num_tasks > 1:
            says.append(f"{over.iqm:.2f} [{over.low:.2f}, {over.high:.2f}] of the {by}'s")
    parts: list[str | tuple[str, str]] = [("IQM ", "bold"), size.joined(says)] if says else []
    rates = summary.success_rates()
    mean = mean_success(rates)
    if mean is not None and len(rates) > 1:
        gap = "  " if says else ""
        parts += [(f"{gap}success ", "bold"), f"{mean:.0%} over {len(rates)} tasks"]
    if not parts:
        return None
    return Text.assemble(*parts, overflow="ellipsis", no_wrap=True)


def _task_cells(summary: Summary, name: str, now_s: float, size: Size) -> list[Text]:
    task, scale = summary.tasks.get(name, TaskState()), summary.scales.get(name)
    version, score = task.newest or (None, None)
    value = summary.normalised(name, score) if score else None
    returned = Text("failed", style="red") if task.last_failure else Text("waiting", style="dim")
    if score is not None:
        returned = Text(
            spread_text(score.returns.mean, score.returns.std, ascii_only=size.ascii_only)
        )
    rate = summary.env_steps_per_s(now_s, name)
    label = printable(name if size.is_wide else name.rpartition("/")[2])
    cells = [
        Text(label, style="red" if task.last_failure else ""),
        returned,
        Text("-" if value is None else f"{value:.2f}", style=_score_style(value)),
        Text(),
        Text(str(version) if version else "-"),
        Text(count_text(score.learner_step) if score else "-"),
        Text(str(score.returns.count) if score else "-"),
        Text(count_text(rate) if rate else "-"),
        Text(number_text(scale.teacher_return if scale else None)),
    ]
    if size.is_wide:
        cells.append(Text(number_text(scale.random_return if scale else None)))
        cells.append(Text(str(task.num_failed), style="red" if task.num_failed else "dim"))
    return cells


def _history_text(summary: Summary, name: str, columns: int, size: Size) -> str:
    values = [value for _, value in summary.history(name)]
    # With a scale the empty block is a random policy and the full one the teacher, so that tasks
    # compare.
    low, high = (
        (0.0, 1.0)
        if name in summary.scales
        else (min(values, default=0.0), max(values, default=0.0))
    )
    return sparkline(values, columns=columns, low=low, high=high, ascii_only=size.ascii_only)


def _score_style(value: float | None) -> str:
    if value is None:
        return "dim"
    return (
        "bold green"
        if value >= 0.9
        else "green"
        if value >= 0.5
        else "yellow"
        if value >= 0.1
        else "red"
    )
