"""Workers, problems and events in the picture of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from cluster.journal.records import Event
from cluster.monitor.alerts import standing_alerts
from cluster.monitor.format import (
    broken,
    count_text,
    duration_text,
    natural,
    percent_text,
    printable,
)
from cluster.monitor.summary import Summary, WorkerState
from cluster.monitor.terminal.names import short_name
from cluster.monitor.terminal.size import Size
from gato.metrics import ReplayStats

MIN_NAME_COLUMNS = 10
MOST_TEXT = 200
"""Characters of an event; a table of episodes' names would push all else off the screen."""
ALARMING = ("died", "fail", "refused", "restarted", "no answer", "lost", "problem", "no progress")


def worker_table(
    workers: Mapping[str, WorkerState], num_gone: int, size: Size, *, now_s: float
) -> Table:
    """A line a worker, as many as there is room for; names that are too long take several."""
    any_refused = any(worker.refused for worker in workers.values())
    has_nodes = any(worker.latest.node for worker in workers.values())
    names = ("worker", *(["node"] if has_nodes else []), "does", "task")
    optional = (("keeps", any(w.latest.kept for w in workers.values())), ("refused", any_refused))
    numbers = ("plays", "env/s", "waits", *(title for title, is_shown in optional if is_shown))
    shown = sorted(workers, key=natural)[: size.max_workers]
    rows = [_worker_cells(name, workers[name], size, now_s) for name in shown]
    gap = 2 if size.is_wide else 1
    widest = _name_columns(rows, names, numbers, size.columns, gap)
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for title in names:
        table.add_column(title, overflow="fold")
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        cells = [Text(broken(row[title].plain, widest)) for title in names]
        table.add_row(*cells, *(row[title] for title in numbers))
    more = [f"and {len(workers) - len(shown)} more"] if len(workers) > len(shown) else []
    more += [f"{num_gone} not heard of lately"] if num_gone else []
    if more:
        table.caption, table.caption_justify = Text(", ".join(more), style="dim"), "left"
    return table


def _worker_cells(name: str, worker: WorkerState, size: Size, now_s: float) -> dict[str, Text]:
    newest, assignment_s = worker.newest, worker.assignment_s(now_s)
    does = printable(newest.role)
    if assignment_s is not None and size.is_wide:
        does += f" for {duration_text(assignment_s)}"
    plays = Text(str(newest.version) if newest.version else "teacher")
    if worker.age_versions:
        plays.append(f" (-{worker.age_versions})", style="yellow")
    waited = worker.wait_s / worker.worked_s if worker.worked_s > 0 else 0.0
    num_refused = sum(worker.refused.values())
    return {
        "worker": Text(printable(name)),
        "node": Text(printable(worker.latest.node)),
        "does": Text(does),
        "task": Text(printable(newest.task if size.is_wide else short_name(newest.task))),
        "plays": plays,
        "env/s": Text(count_text(worker.env_steps_per_s())),
        "waits": Text(percent_text(waited)),
        "keeps": Text(str(worker.latest.kept), style="yellow" if worker.latest.kept else "dim"),
        "refused": Text(str(num_refused), style="yellow" if num_refused else "dim"),
    }


def _name_columns(
    rows: Sequence[Mapping[str, Text]], names: Sequence[str], numbers: Sequence[str],
    columns: int, gap: int,
) -> int:  # fmt: skip
    """How long a name may be, so that the table has at most so many columns."""

    def widest(title: str) -> int:
        return max([len(title), *(row[title].cell_len for row in rows)])

    room = columns - gap * (len(names) + len(numbers)) - sum(map(widest, numbers))
    allowed = max(map(widest, names))
    while allowed > MIN_NAME_COLUMNS and sum(min(widest(n), allowed) for n in names) > room:
        allowed -= 1
    return allowed


def note_table(summary: Summary, size: Size, now_s: float | None = None) -> Table | None:
    """Alerts, failed evaluations, what tokens lose and refused episodes as they stand, then the
    last events; None if there is nothing to say."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for alert in standing_alerts(summary, summary.last_s if now_s is None else now_s):
        at = time.strftime("%H:%M:%S", time.localtime(alert.time_s))
        text = _one_line(f"{alert.kind}: {alert.text}")
        table.add_row(at, Text("ALERT", style="bold red"), text)
    for name, task in summary.tasks.items():
        if task.last_failure:
            text = f"{name}, {task.num_failed} so far: {task.last_failure}"
            table.add_row("", Text("evaluation failed", style="red"), _one_line(text))
        for warning in task.warnings:
            table.add_row("", Text("values lost", style="yellow"), _one_line(f"{name}: {warning}"))
    if summary.replay is not None:
        for line, is_much in unread_text(summary.replay):
            table.add_row(
                "", Text("not read", style="yellow" if is_much else "dim"), _one_line(line)
            )
    if summary.replay is not None and summary.replay.refused:
        reasons = ", ".join(
            f"{count} x {reason}" for reason, count in summary.replay.refused.items()
        )
        table.add_row("", Text("episodes rejected", style="yellow"), _one_line(reasons))
    for event in summary.events[-size.max_events :]:
        at = time.strftime("%H:%M:%S", time.localtime(event.time_s))
        alarming = any(word in event.kind for word in ALARMING)
        table.add_row(
            at,
            Text(printable(event.kind), style="yellow" if alarming else ""),
            _one_line(_short(event)),
        )
    return table if table.row_count else None


def _short(event: Event) -> str:
    """A problem without the end of its text, such as a list of all episodes of a batch."""
    if event.kind != "problem" or len(event.text) <= MOST_TEXT:
        return event.text
    begin = event.text[:MOST_TEXT]
    return f"{begin.rpartition(' ')[0] or begin} ... (all of it: gato watch --once --json)"


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
