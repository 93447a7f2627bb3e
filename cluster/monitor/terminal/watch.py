"""A run in the terminal: its tasks, its learner, its workers and what happened last, drawn again
and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.text import Text

from cluster.journal.journal import JournalReader
from cluster.journal.records import Event
from cluster.journal.redis_client import RedisAway
from cluster.monitor.fold import fold, killed
from cluster.monitor.format import duration_text, printable
from cluster.monitor.scores import Scale
from cluster.monitor.summary import Summary
from cluster.monitor.terminal.notes import note_table, worker_table
from cluster.monitor.terminal.panels import head_panel
from cluster.monitor.terminal.size import MOST_EVENTS, Size
from cluster.monitor.terminal.task_table import aggregate_line, task_table

GIVE_UP_S = 20.0
"""A journal that does not answer for this long is given up."""
ENDED = ("stopped", "finished", "failed")
STATE_STYLES: Mapping[str, str] = {
    "starting": "yellow",
    "running": "green",
    "stopping": "yellow",
    "stopped": "cyan",
    "finished": "cyan",
    "failed": "bold red",
    "dead": "bold red",
}


def render(summary: Summary, *, now_s: float | None = None) -> RenderableType:
    """The run as it stands, for a terminal of 80 columns or more. `now_s` is wall-clock time."""
    return _Watch(summary, summary.last_s if now_s is None else max(now_s, summary.last_s))


def watch_live(
    journal: JournalReader,
    *,
    run: str,
    scales: Mapping[str, Scale],
    console: Console | None = None,
    plain_every_s: float = 10.0,
    until_ended: bool = True,
    clock: Callable[[], float] = time.time,
    give_up: Callable[[], bool] | None = None,
    is_dead: Callable[[], bool] | None = None,
    raises_interrupt: bool = False,
) -> Summary:
    """Draw the run until it has ended (if `until_ended`), `is_dead` says that it was killed,
    `give_up` says so, or Ctrl-C (which is raised, if `raises_interrupt`); the last state seen is
    returned.

    On a terminal the picture moves; elsewhere it is printed every `plain_every_s` seconds.
    """
    console = console or Console()
    summary = Summary(run=run, scales=scales)
    live = (
        Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
    )
    heard_s, printed_s = clock(), -plain_every_s
    try:
        if live is not None:
            live.start()
        while True:
            try:
                # A second at most, because ages move on without news.
                fresh = journal.read(summary.last_id, block_s=1.0)
                heard_s = clock()
            except RedisAway:
                fresh = []
            for entry in fresh:
                summary = fold(summary, *entry)
            now_s = clock()
            if not fresh and summary.state not in ENDED and is_dead is not None and is_dead():
                summary = killed(summary)
            ended = summary.state == "dead" or (
                until_ended and summary.state in ENDED and not fresh
            )
            lost = now_s - heard_s > GIVE_UP_S or (give_up is not None and give_up())
            if live is not None:
                live.update(
                    render(_with_silence(summary, now_s - heard_s), now_s=now_s), refresh=True
                )
            elif ended or lost or now_s - printed_s >= plain_every_s:
                console.print(render(_with_silence(summary, now_s - heard_s), now_s=now_s))
                printed_s = now_s
            if ended or lost:
                return summary
    except KeyboardInterrupt:
        if raises_interrupt:
            raise
        return summary
    finally:
        if live is not None:
            live.stop()


def _with_silence(summary: Summary, silent_s: float) -> Summary:
    """`summary` with a line that says so, where the journal does not answer."""
    if silent_s < 3:
        return summary
    text = (
        f"the journal has not answered for {duration_text(silent_s)}; trying for"
        f" {duration_text(GIVE_UP_S)}"
    )
    return replace(summary, events=(*summary.events, Event(kind="no answer", text=text)))


class _Watch:
    """Chooses what to show once the width is known."""

    def __init__(self, summary: Summary, now_s: float) -> None:
        self._summary = summary
        self._now_s = now_s

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        summary, now_s = self._summary, self._now_s
        rows = console.size.height if console.is_terminal else None
        # inside the frame
        size = Size(columns=options.max_width - 4, ascii_only=options.ascii_only, rows=rows)
        top, workers, notes = self._top(size), self._workers(size), note_table(summary, size, now_s)
        if rows is not None:
            inside = options.update(width=size.columns)

            def height(part: RenderableType | None) -> int:
                return 0 if part is None else 1 + len(console.render_lines(part, inside))

            # What does not fit on the screen would be cut off at its end: let workers make way for
            # events. A line is for the cursor.
            room = rows - 3 - (height(Group(*top)) - 1) - height(notes)
            while height(workers) > room and size.max_workers:
                size = replace(size, max_workers=size.max_workers - 1)
                workers = self._workers(size)
            room -= height(workers)
            while room > 0 and size.max_events < min(MOST_EVENTS, len(summary.events)):
                size = replace(size, max_events=size.max_events + 1)
                more = note_table(summary, size, now_s)
                room -= height(more) - height(notes)
                notes = more if room >= 0 else notes
        parts = list(top)
        for part in (workers, notes):
            parts += ["", part] if part is not None else []
        until_s = summary.last_s if summary.state in (*ENDED, "dead") else now_s
        age = f" {duration_text(until_s - summary.first_s)}" if summary.first_s is not None else ""
        state = Text(f"{summary.state}{age}", style=STATE_STYLES.get(summary.state, ""))
        title = Text.assemble((printable(summary.run), "bold"), "  ", state)
        frame = Panel(
            Group(*parts),
            title=title,
            title_align="left",
            border_style="bright_black",
            padding=(0, 1),
        )
        if not size.ascii_only:
            yield frame
            return
        for segment in console.render(frame, options):  # names and messages may hold any character
            yield Segment(
                segment.text.replace("…", "~").encode("ascii", "replace").decode(), *segment[1:]
            )

    def _top(self, size: Size) -> list[RenderableType]:
        summary, now_s = self._summary, self._now_s
        head, tasks = head_panel(summary, now_s, size), task_table(summary, now_s, size)
        over = aggregate_line(summary, size)
        return [head, "", tasks, *([over] if over is not None else [])]

    def _workers(self, size: Size) -> RenderableType | None:
        current = self._summary.current_workers(self._now_s)
        if not current or not size.max_workers:
            return None
        num_gone = len(self._summary.workers) - len(current)
        return worker_table(current, num_gone, size, now_s=self._now_s)
