"""The table of tasks in the picture of a run, and the mean over them."""

from __future__ import annotations

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from cluster.monitor.format import (
    broken,
    count_text,
    number_text,
    printable,
    sparkline,
    spread_text,
    unbroken_columns,
)
from cluster.monitor.scores import MEASURES, TaskState, mean_success
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.names import short_names
from cluster.monitor.terminal.size import Size

MIN_SPARK_COLUMNS = 8
MAX_SPARK_COLUMNS = 60
USUAL_SPARK_COLUMNS = 24
"""More only if a history is longer."""
MIN_NAME_COLUMNS, UNBROKEN_COLUMNS = 10, 14
"""The least for names, and for those with parts that are longer."""
TITLES = (
    "task", "return", "norm", "history", "success", "ver", "step", "eps", "env/s", "teacher",
    "random", "failed",
)  # fmt: skip
DISPENSABLE = ("random", "failed", "env/s", "ver", "teacher", "eps", "history", "step")
"""Columns that are left out where there is no room, the first of them first."""


def task_table(summary: Summary, now_s: float, size: Size) -> Table:
    """A line a task. The history takes the columns that the others leave; where there is no room
    for all columns, the least important are left out, and long names take several lines."""
    names = summary.task_names()
    rates = summary.env_steps_per_s_of_tasks(now_s)
    labels = {name: name for name in names} if size.is_wide else short_names(names)
    rows = [_task_cells(summary, name, labels[name], rates.get(name), size) for name in names]
    widths = {
        title: max([len(title), *(cell_len(row[title].plain) for row in rows)]) for title in TITLES
    }
    if not size.is_wide:
        del widths["random"], widths["failed"]
    if not summary.success_rates():
        del widths["success"]
    longest = max([USUAL_SPARK_COLUMNS, *(len(summary.history(name)) for name in names)])
    for_parts = max((unbroken_columns(row["task"].plain) for row in rows), default=0)
    for_name = min(widths["task"], max(MIN_NAME_COLUMNS, min(for_parts, UNBROKEN_COLUMNS)))
    _fit(widths, size, longest=longest, least_for_name=for_name)
    table = Table(
        box=None, padding=(0, _gap(size), 0, 0), pad_edge=False, header_style="bold",
        collapse_padding=True,
    )  # fmt: skip
    for title, width in widths.items():
        justify = "left" if title in ("task", "history") else "right"
        style = {"history": "cyan", "teacher": "dim", "random": "dim"}.get(title, "")
        table.add_column(title, justify=justify, no_wrap=True, width=width, style=style)
    for name, cells in zip(names, rows, strict=True):
        cells["task"] = Text(broken(cells["task"].plain, widths["task"]), style=cells["task"].style)
        if "history" in widths:
            cells["history"] = Text(_history_text(summary, name, widths["history"], size))
        table.add_row(*(cells[title] for title in widths))
    return table


def _fit(widths: dict[str, int], size: Size, *, longest: int, least_for_name: int) -> None:
    """Give the name and the history what the numbers leave, which are never cut; without room,
    take columns out. `longest`: as many columns as the history may take."""

    def spare() -> int:
        """What the history may take if the name has no more than it must have."""
        others = sum(width for title, width in widths.items() if title not in ("task", "history"))
        gaps = _gap(size) * (len(widths) - 1)
        return size.columns - others - gaps - least_for_name

    for title in DISPENSABLE:
        if spare() < (MIN_SPARK_COLUMNS if "history" in widths else 0):
            widths.pop(title, None)
    if "history" not in widths:
        widths["task"] = min(widths["task"], max(1, spare() + least_for_name))
        return
    wanted = widths["task"] - least_for_name
    more = max(0, min(spare() - MIN_SPARK_COLUMNS, wanted))
    widths["task"] = least_for_name + more
    widths["history"] = max(MIN_SPARK_COLUMNS, min(spare() - more, longest, MAX_SPARK_COLUMNS))


def _gap(size: Size) -> int:
    return 2 if size.is_wide else 1


def aggregate_line(summary: Summary, size: Size) -> Text | None:
    """The interquartile mean over the tasks, by each measure that two or more have, and the mean
    success rate; None where there is neither."""
    says: list[str] = []
    for by in MEASURES:
        over = summary.aggregate(by)
        if over is not None and over.num_tasks > 1:
            says.append(f"{over.text()} of the {by}'s")
    parts = [f"IQM {says[0]}", *says[1:]] if says else []
    rates = summary.success_rates()
    mean = mean_success(rates)
    if mean is not None and len(rates) > 1:
        parts.append(f"success {mean:.0%} over {len(rates)} tasks")
    if not parts:
        return None
    line = Text(size.flowed(parts, size.columns))
    line.highlight_words(["IQM", "success"], "bold")
    return line


def _task_cells(
    summary: Summary, name: str, label: str, rate: float | None, size: Size
) -> dict[str, Text]:
    task, scale = summary.tasks.get(name, TaskState()), summary.scales.get(name)
    version, score = task.newest or (None, None)
    value = summary.normalised(name, score) if score else None
    returned = Text("failed", style="red") if task.last_failure else Text("waiting", style="dim")
    if score is not None:
        returned = Text(
            spread_text(score.returns.mean, score.returns.std, ascii_only=size.ascii_only)
        )
    solved = score.success_rate if score is not None else None
    return {
        "task": Text(printable(label), style="red" if task.last_failure else ""),
        "return": returned,
        "norm": Text("-" if value is None else f"{value:.2f}", style=_score_style(value)),
        "history": Text(),
        "success": Text("-" if solved is None else f"{solved:.0%}"),
        "ver": Text(str(version) if version else "-"),
        "step": Text(count_text(score.learner_step) if score else "-"),
        "eps": Text(str(score.returns.count) if score else "-"),
        "env/s": Text(count_text(rate) if rate else "-"),
        "teacher": Text(number_text(scale.teacher_return if scale else None)),
        "random": Text(number_text(scale.random_return if scale else None)),
        "failed": Text(str(task.num_failed), style="red" if task.num_failed else "dim"),
    }


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
