"""The parts of the picture of a run: learner, replay and players; tasks; workers; what went wrong
and what happened."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.monitor.format import (
    bytes_text,
    clip,
    count_text,
    duration_text,
    natural,
    number_text,
    percent_text,
    printable,
    sparkline,
    spread_text,
)
from cluster.monitor.scores import MEASURES, TaskState
from cluster.monitor.summary import Summary, WorkerState
from gato.metrics import ReplayStats

MAX_WORKERS = 8
MAX_EVENTS = 4
SILENT_S = 30.0
"""A learner that has not reported for this long is named."""
MIN_SPARK_COLUMNS = 8
MAX_SPARK_COLUMNS = 60
USUAL_SPARK_COLUMNS = 24
"""More only where a history is longer."""
MIN_NAME_COLUMNS = 10
ALARMING = ("died", "fail", "refused", "restarted", "no answer", "lost", "problem", "no progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What there is to draw on."""

    columns: int
    ascii_only: bool
    max_workers: int = MAX_WORKERS
    """Lines for workers."""

    @property
    def is_wide(self) -> bool:
        return self.columns >= 106

    def joined(self, parts: Sequence[str]) -> str:
        return (", " if self.ascii_only else " · ").join(parts)


def head_panel(summary: Summary, now_s: float, size: Size) -> Table:
    """Learner, replay and players: a line each, with a bar where something fills up."""
    bar_columns = 20 if size.is_wide else 10
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(style="bold", no_wrap=True, width=7)
    grid.add_column(width=bar_columns)
    grid.add_column(justify="right", no_wrap=True, width=4)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    learned = _learner_share(summary)
    grid.add_row(
        "learner",
        _bar(learned, bar_columns),
        _share_text(learned),
        _learner_line(summary, now_s, size),
    )
    replay = summary.replay
    if replay is None:
        grid.add_row("replay", _bar(None, bar_columns), "", Text("no episode yet", style="dim"))
    else:
        fill = replay.fill if replay.capacity_bytes else 0.0
        says = [
            f"{count_text(sum(replay.episodes.values()))} episodes",
            f"{count_text(replay.steps)} steps",
        ]
        says.append(f"{bytes_text(replay.stored_bytes)} of {bytes_text(replay.capacity_bytes)}")
        grid.add_row("replay", _bar(fill, bar_columns), _share_text(fill), size.joined(says))
        if waits := who_waits(summary):
            grid.add_row("", "", "", Text(waits, style="yellow" if replay.paused else "dim"))
    rows = Table.grid(expand=True)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    rows.add_row(grid)
    rows.add_row(_players_line(summary, now_s, size))
    return rows


def who_waits(summary: Summary) -> str:
    """Who is held back by replay, in one line; nothing where nobody is."""
    replay = summary.replay
    if replay is None or (replay.who_waits.startswith("nobody") and not replay.paused):
        return ""
    return printable(replay.who_waits)


def _learner_share(summary: Summary) -> float | None:
    learner = summary.learner
    return (
        learner.step / learner.num_updates if learner is not None and learner.num_updates else None
    )


def _learner_line(summary: Summary, now_s: float, size: Size) -> Text:
    learner = summary.learner
    if learner is None:
        return Text("no update yet", style="dim")
    says = [
        f"{count_text(learner.step)}/{count_text(learner.num_updates)}",
        f"loss {number_text(learner.loss.value)}",
    ]
    tokens, waits = (
        count_text(summary.learner_rate("tokens")),
        percent_text(summary.learner_rate("wait_s")),
    )
    if size.is_wide:
        says += [f"{tokens} tokens/s", f"waits for data {waits}"]
        says.append(f"publishes {percent_text(summary.learner_rate('blocked_s'))}")
    else:
        says += [f"{tokens} tok/s", f"waits {waits}"]
    line = Text(size.joined(says))
    silent_s = now_s - summary.learner_s
    if silent_s > SILENT_S and summary.state == "running" and learner.step < learner.num_updates:
        return Text(f"silent for {duration_text(silent_s)}, ", style="yellow").append_text(line)
    return line


def _players_line(summary: Summary, now_s: float, size: Size) -> Text:
    workers = summary.current_workers(now_s)
    says = [f"{len(workers)} worker{'' if len(workers) == 1 else 's'}"]
    if workers:
        says.append(f"{count_text(summary.env_steps_per_s(now_s))} env steps/s")
    behind = summary.oldest_weights_played(now_s)
    line = Text.assemble(("players", "bold"), " ", size.joined(says))
    if behind is not None:
        versions, age_s = behind
        late_s = f"{age_s:.1f} s" if age_s < 10 else duration_text(age_s)
        late = f"{versions} version{'' if versions == 1 else 's'} ({late_s}) behind"
        line.append(
            size.joined(["", "weights: the newest" if versions == 0 else f"weights: {late}"])
        )
    return line


def task_table(summary: Summary, now_s: float, size: Size) -> Table:
    """A line a task. The history takes the columns that the others leave."""
    titles = ["task", "return", "norm", "history", "ver", "step", "eps", "env/s", "teacher"]
    if size.is_wide:
        titles += ["random", "failed"]
    rows = [_task_cells(summary, name, now_s, size) for name in summary.task_names()]
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
    """The interquartile mean over the tasks, by each measure that two or more have; None where
    there is none."""
    says: list[str] = []
    for by in MEASURES:
        over = summary.aggregate(by)
        if over is not None and over.num_tasks > 1:
            says.append(f"{over.iqm:.2f} [{over.low:.2f}, {over.high:.2f}] of the {by}'s")
    if not says:
        return None
    return Text.assemble(("IQM ", "bold"), size.joined(says), overflow="ellipsis", no_wrap=True)


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


def worker_table(workers: Mapping[str, WorkerState], num_gone: int, size: Size) -> Table:
    """A line a worker, as many as there is room for."""
    any_refused = any(worker.refused for worker in workers.values())
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("worker", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("does", no_wrap=True)
    table.add_column(
        "task", no_wrap=True, overflow="ellipsis", max_width=40 if size.is_wide else 20
    )
    for title in ("plays", "env/s", "waits", *(["refused"] if any_refused else [])):
        table.add_column(title, justify="right", no_wrap=True)
    shown = sorted(workers, key=natural)[: size.max_workers]
    for name in shown:
        worker = workers[name]
        latest = worker.latest
        plays = Text(str(latest.version) if latest.version else "teacher")
        if worker.age_versions:
            plays.append(f" (-{worker.age_versions})", style="yellow")
        waited = worker.wait_s / worker.worked_s if worker.worked_s > 0 else 0.0
        label = latest.task if size.is_wide else latest.task.rpartition("/")[2]
        cells: list[RenderableType] = [Text(printable(said)) for said in (name, latest.role, label)]
        cells.append(plays)
        cells += [count_text(worker.env_steps_per_s()), percent_text(waited)]
        if any_refused:
            num_refused = sum(worker.refused.values())
            cells.append(Text(str(num_refused), style="yellow" if num_refused else "dim"))
        table.add_row(*cells)
    more = [f"and {len(workers) - len(shown)} more"] if len(workers) > len(shown) else []
    more += [f"{num_gone} not heard of lately"] if num_gone else []
    if more:
        table.add_row(Text(", ".join(more), style="dim", overflow="fold"))
    return table


def note_table(summary: Summary, size: Size) -> Table | None:
    """Failed evaluations, what tokens lose and refused episodes as they stand, then the last
    events; None if there is nothing to say."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=not size.is_wide, overflow="ellipsis", ratio=1)
    for name, task in summary.tasks.items():
        if task.last_failure:
            text = f"{name}, {task.num_failed} so far: {task.last_failure}"
            table.add_row("", Text("evaluation failed", style="red"), _one_line(text))
        for warning in task.warnings:
            table.add_row(
                "", Text("tokens lose values", style="yellow"), _one_line(f"{name}: {warning}")
            )
    if summary.replay is not None:
        for line, is_much in unread_text(summary.replay):
            table.add_row(
                "", Text("not read", style="yellow" if is_much else "dim"), _one_line(line)
            )
    if summary.replay is not None and summary.replay.refused:
        reasons = ", ".join(
            f"{count} x {reason}" for reason, count in summary.replay.refused.items()
        )
        table.add_row("", Text("episodes refused", style="yellow"), _one_line(reasons))
    for event in summary.events[-MAX_EVENTS:]:
        at = time.strftime("%H:%M:%S", time.localtime(event.time_s))
        alarming = any(word in event.kind for word in ALARMING)
        table.add_row(
            at,
            Text(printable(event.kind), style="yellow" if alarming else ""),
            _one_line(event.text),
        )
    return table if table.row_count else None


def unread_text(replay: ReplayStats) -> list[tuple[str, bool]]:
    """What is stored but not read, a line for each task, and whether it is more than half of the
    task's episodes."""
    lines: list[tuple[str, bool]] = []
    for task, reasons in replay.left_out.items():
        count, total = (
            sum(amount.episodes for amount in reasons.values()),
            replay.episodes.get(task, 0),
        )
        why = ", ".join(
            f"{count_text(amount.episodes)} ({count_text(amount.steps)} steps) {reason}"
            for reason, amount in reasons.items()
        )
        lines.append((f"{task}: of {count_text(total)} episodes {why}", 2 * count > total))
    if replay.evicted:
        lines.append((f"{count_text(replay.evicted)} episodes made room for others", False))
    return lines


def _one_line(text: str) -> Text:
    return Text(printable(" ".join(text.split())))


def _bar(share: float | None, columns: int) -> ProgressBar:
    return ProgressBar(
        total=1.0, completed=min(max(share or 0.0, 0.0), 1.0), width=columns, complete_style="cyan"
    )


def _share_text(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


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
