"""`gato watch`, `gato status` and `gato runs`: look at runs."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.cli.options import RedisUrl, RunName, command_group, console
from cluster.control import run_control
from cluster.control.run_control import summary_of
from cluster.control.run_journal import journal_of, own_summary
from cluster.monitor.format import NONE, literal, printable
from cluster.monitor.scores import read_scales
from cluster.monitor.watch import render, watch_live
from cluster.runs.folder import RunFolder, find_run, list_runs, runs_root

app = command_group()


@app.command()
def watch(
    run: RunName = None,
    once: Annotated[bool, typer.Option("--once", help="Print the status once.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="As one JSON object; with --once.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Serve the run's page for a browser, until Ctrl-C.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Of the page, on loopback. Default: a free one."),
    ] = None,
    redis: RedisUrl = None,
) -> None:
    """Watch a run's evaluation returns, live. Ctrl-C ends the watching, not the run.

    Example: [bold]gato watch demo --once --json[/bold]
    """
    if as_json and not once:
        raise ValueError("--json prints one status; add --once")
    if port is not None and not web:
        raise ValueError("--port is of the page; add --web")
    if web:
        if once or redis is not None:
            raise ValueError("--web serves a page; leave out --once, --json and --redis")
        serve_page(run, port)
        return
    if as_json:
        sys.stdout.write(json.dumps(summary_of(run, redis_url=redis).to_json()) + "\n")
    else:
        show(run, once=once, redis_url=redis, console=console)


@app.command()
def status(run: RunName = None, redis: RedisUrl = None) -> None:
    """Print the status of a run once.

    Example: [bold]gato status[/bold]
    """
    show(run, once=True, redis_url=redis, console=console)


@app.command()
def runs() -> None:
    """List the runs here.

    Example: [bold]gato runs[/bold]
    """
    print_runs(console)


def serve_page(run: str | None, port: int | None) -> None:
    """Serve the page of a run until Ctrl-C; where the run itself does so, say where."""
    from cluster.control.page import live_page

    folder = find_run(run)
    page = live_page(folder) if port is None else None
    if page is not None:
        console.print(f"run {literal(folder.name)} has its page at {page}", highlight=False)
        return
    from cluster.web.serve import serve

    serve(
        folder,
        port=port or 0,
        when_ready=lambda url: console.print(
            f"page: {url} (Ctrl-C ends it, not the run; its token for changes:"
            f" {literal(folder.path)}/page/token)",
            highlight=False,
            soft_wrap=True,
        ),
    )


def show(run: str | None, *, once: bool, redis_url: str | None, console: Console) -> None:
    """Print the status of a run, once or until it ends."""
    folder = find_run(run)
    home = folder.home
    if home is not None and not home.is_here and (once or not folder.info().is_active):
        console.print(render(run_control.summary_of(run, redis_url=redis_url), now_s=time.time()))
        return
    if once or not folder.info().is_active:
        console.print(render(own_summary(folder, redis_url), now_s=time.time()))
        return
    with journal_of(folder, redis_url) as journal:
        scales = read_scales(folder.path)
        watch_live(journal, run=folder.name, scales=scales, console=console, until_ended=True)


def print_runs(console: Console) -> None:
    """Print all runs, the newest first."""
    table = Table("run", "state", "tasks", "started", box=None, header_style="bold")
    for info in list_runs():
        try:
            started = time.strftime("%Y-%m-%d %H:%M", time.localtime(info.created_s))
        except (ValueError, OverflowError, OSError):  # the file may say any number
            started = NONE
        is_local = RunFolder(runs_root(), info.name).home is None
        fix = f" (gato resume {info.name})" if info.state == "dead" and is_local else ""
        cells = (info.name, info.state + fix, _tasks_text(info.name), started)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(
        table
        if table.row_count
        else f"no runs in {literal(runs_root())}; begin with: gato start demo"
    )


def _tasks_text(name: str) -> str:
    try:
        return ", ".join(RunFolder(runs_root(), name).config().tasks)
    except (ValueError, OSError):
        return NONE  # the run is listed, its settings are damaged
