"""The head of the picture of a run: learner, replay and players."""

from __future__ import annotations

import math

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.monitor.format import (
    bytes_text,
    count_text,
    duration_text,
    number_text,
    percent_text,
    printable,
)
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.size import Size
from gato.metrics import Mean

SILENT_S = 30.0
"""A learner that has not reported for this long is named."""


def head_panel(summary: Summary, now_s: float, size: Size) -> Table:
    """Learner, replay and players: a line each, with a bar where something fills up."""
    bar_columns = 20 if size.is_wide else 10
    columns = size.columns - 7 - bar_columns - 4 - 3
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(style="bold", no_wrap=True, width=7)
    grid.add_column(width=bar_columns)
    grid.add_column(justify="right", no_wrap=True, width=4)
    grid.add_column(overflow="fold", ratio=1)
    learned = _learner_share(summary)
    grid.add_row(
        "learner",
        _bar(learned, bar_columns),
        _share_text(learned),
        _learner_line(summary, now_s, size, columns),
    )
    if size.is_tall and (more := _learner_details(summary)):
        grid.add_row("", "", "", Text(size.flowed(more, columns), style="dim"))
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
        grid.add_row(
            "replay", _bar(fill, bar_columns), _share_text(fill), size.flowed(says, columns)
        )
        if waits := who_waits(summary):
            grid.add_row("", "", "", Text(waits, style="yellow" if replay.paused else "dim"))
    rows = Table.grid(expand=True)
    rows.add_column(overflow="fold", ratio=1)
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


def _learner_line(summary: Summary, now_s: float, size: Size, columns: int) -> Text:
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
    line = Text(size.flowed(says, columns))
    silent_s = now_s - summary.learner_s
    if silent_s > SILENT_S and summary.state == "running" and learner.step < learner.num_updates:
        return Text(f"silent for {duration_text(silent_s)}\n", style="yellow").append_text(line)
    return line


def _learner_details(summary: Summary) -> list[str]:
    """What the learner's time goes into, accuracy, gradient, MFU and memory, as far as it says."""
    learner = summary.learner
    if learner is None:
        return []
    seconds, says = _seconds(summary), list[str]()
    total_s = math.fsum(seconds.values())
    if total_s > 0:
        says += [f"{name} {percent_text(spent_s / total_s)}" for name, spent_s in seconds.items()]
    accuracy = sum(learner.accuracy_by_task.values(), Mean())
    if accuracy.count:
        says.append(f"accuracy {percent_text(accuracy.value)}")
    says.append(f"gradient {number_text(learner.gradient_norm)}")
    says += [f"{part} {number_text(norm)}" for part, norm in learner.norm_by_part.items()]
    if learner.mfu:
        says.append(f"MFU {percent_text(learner.mfu)}")
    if learner.memory_bytes:
        says.append(f"memory {bytes_text(learner.memory_bytes)}")
    return [printable(said) for said in says]


def _seconds(summary: Summary) -> dict[str, float]:
    """By what it was spent on: the time of the last minute's reports."""
    seconds: dict[str, float] = {}
    for _, report in summary.learner_recent:
        for name, spent_s in report.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + spent_s
    return seconds


def _players_line(summary: Summary, now_s: float, size: Size) -> Text:
    workers = summary.current_workers(now_s)
    says = [f"{len(workers)} worker{'' if len(workers) == 1 else 's'}"]
    if workers:
        says.append(f"{count_text(summary.env_steps_per_s(now_s))} env steps/s")
    elif summary.workers and summary.state == "running":
        # They died, or their machine is away.
        says.append(f"{len(summary.workers)} not heard of for {_silence(summary, now_s)}")
    behind = summary.oldest_weights_played(now_s)
    nodes = sorted({worker.latest.node for worker in workers.values()} - {""})
    if len(nodes) > 1:
        says.append(f"{len(nodes)} nodes")
    if behind is not None:
        versions, age_s = behind
        late_s = f"{age_s:.1f} s" if age_s < 10 else duration_text(age_s)
        late = f"{versions} version{'' if versions == 1 else 's'} ({late_s}) behind"
        says.append("weights: the newest" if versions == 0 else f"weights: {late}")
    says[0] = f"players {says[0]}"
    line = Text(size.flowed(says, size.columns))
    line.stylize("bold", 0, len("players"))
    return line


def _silence(summary: Summary, now_s: float) -> str:
    """How long the last report of a worker is ago."""
    return duration_text(now_s - max(worker.time_s for worker in summary.workers.values()))


def _bar(share: float | None, columns: int) -> ProgressBar:
    return ProgressBar(
        total=1.0, completed=min(max(share or 0.0, 0.0), 1.0), width=columns, complete_style="cyan"
    )


def _share_text(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"
