"""`gato logs`: what the parts of a run have written."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cluster.cli.options import command_group, console, run_names
from cluster.control.part_logs import RunLogs, logs_of
from cluster.monitor.format import duration_text, printable
from cluster.nodes.part_logs import PartLog, Piece
from cluster.runs.folder import RunFolder, find_run

app = command_group()
LOOK_EVERY_S = 1.0
ACTOR = "worker-"


@app.command()
def logs(
    part: Annotated[
        str | None,
        typer.Argument(
            help="supervisor, learner, replay-0, weights, w0 ... Default: list them, and show what"
            " the supervisor says of the run."
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="A run's name. Default: the newest that is active, else the newest.",
            autocompletion=run_names,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written. Ctrl-C ends it.")
    ] = False,
    lines: Annotated[int, typer.Option(min=0, help="The last lines of each process.")] = 50,
) -> None:
    """Show the log of a part of a run, on whichever machine it runs, even after it died.

    Example: [bold]gato logs learner --lines 100[/bold]
    """
    folder = find_run(run)
    wanted = part.removeprefix(ACTOR) if part else None
    with logs_of(folder) as found:
        if wanted is None:
            _list(found)
        pieces = found.read(wanted, lines)
        if wanted is not None and not pieces:
            _require(found, folder, wanted)
        last = _show(pieces, None)
        _say_problems(found)
        try:
            while follow:
                time.sleep(LOOK_EVERY_S)
                last = _show(found.read(wanted, lines), last)
                _say_problems(found)
        except KeyboardInterrupt:
            return


def _list(found: RunLogs) -> None:
    table = Table("part", "node", "pid", "state", "last line", box=None, header_style="bold")
    now_s = time.time()
    for log in found.parts():
        state = "alive" if log.is_alive else "ended"
        age = f"{duration_text(now_s - log.changed_s)} ago"
        cells = (log.part, log.node or "here", str(log.pid), state, age)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table if table.row_count else "no part of this run has left a log")


def _require(found: RunLogs, folder: RunFolder, wanted: str) -> None:
    """Say that a part has written nothing. ValueError if there is no such part."""
    names = list(dict.fromkeys(log.part for log in found.parts()))
    if wanted in names:
        console.print(f"{printable(wanted)} has written nothing", highlight=False, markup=False)
        return
    why = "; ".join(found.problems)
    there = f"there are: {', '.join(names)}" if names else "no part has left a log"
    if wanted == "supervisor" and folder.home is None:
        there = "that of this run writes to the terminal of gato start"
    raise ValueError(
        f"run {folder.name} has no log of {wanted!r}; {there}" + (f" ({why})" if why else "")
    )


def _show(pieces: list[Piece], last: PartLog | None) -> PartLog | None:
    """Print pieces, each under a line that names its process if it is another than the last."""
    for piece in pieces:
        log = piece.log
        if last is None or (last.node, last.pid) != (log.node, log.pid):
            where = f" on {log.node}" if log.node else ""
            what = f"pid {log.pid}" if log.pid else "log.txt"
            ended = ", ended" if log.pid and not log.is_alive else ""
            console.print(Text(printable(f"{log.part}{where}, {what}{ended}"), style="bold"))
        last = log
        for line in piece.text.decode(errors="replace").splitlines():
            sys.stdout.write(f"{printable(line.expandtabs())}\n")
    sys.stdout.flush()
    return last


def _say_problems(found: RunLogs) -> None:
    for problem in found.problems:
        console.print(f"[yellow]note:[/yellow] {printable(problem)}", highlight=False)
    found.problems.clear()
