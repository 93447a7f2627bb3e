"""`gato watch`, `gato status` and `gato runs`: look at runs."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from cluster.cli.options import JsonLines, RedisUrl, RunName, command_group, console
from cluster.monitor.alerts import standing_alerts
from cluster.monitor.format import NONE, bytes_text, count_text, literal
from cluster.monitor.scores import read_scales
from cluster.monitor.table import print_table
from cluster.runs.folder import find_run, runs_root
from cluster.runs.overview import Order, Overview, overviews

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
    """Watch a run's evaluation returns, live. Ctrl-C stops watching, not the run.

    Example: [bold]gato watch demo --once --json[/bold]
    """
    from cluster.control.run_control import summary_of

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
        summary = summary_of(run, redis_url=redis)
        alerts = [asdict(alert) for alert in standing_alerts(summary, time.time())]
        sys.stdout.write(json.dumps(summary.to_json() | {"alerts": alerts}) + "\n")
    else:
        show(run, once=once, redis_url=redis, console=console)


@app.command()
def status(run: RunName = None, redis: RedisUrl = None) -> None:
    """Print the status of a run once.

    Example: [bold]gato status[/bold]
    """
    show(run, once=True, redis_url=redis, console=console)


@app.command()
def runs(
    sort: Annotated[
        Order, typer.Option(help="The newest, best or largest first; names by the alphabet.")
    ] = "started",
    as_json: JsonLines = False,
) -> None:
    """List the runs here.

    Example: [bold]gato runs --sort iqm[/bold]
    """
    print_runs(console, order=sort, as_json=as_json)


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
    from cluster.control import run_control
    from cluster.control.run_journal import journal_of, own_summary
    from cluster.monitor.terminal.watch import render, watch_live

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
        watch_live(
            journal,
            run=folder.name,
            scales=scales,
            console=console,
            until_ended=True,
            is_dead=lambda: home is None and folder.info().state == "dead",
        )


def print_runs(console: Console, *, order: Order = "started", as_json: bool = False) -> None:
    """Print all runs with their steps, scores and sizes."""
    root = runs_root()
    found = overviews(root, order)
    if as_json:
        for run in found:
            sys.stdout.write(json.dumps(asdict(run)) + "\n")
        return
    if not found:
        console.print(f"no runs in {literal(root)}; begin with: gato start demo")
        return
    print_table(
        ("run", "state", "step", "IQM", "size", "started", "tasks"),
        [_run_cells(run) for run in found],
        console,
        left=("run", "state", "started", "tasks"),
        clipped=("tasks", "run"),
    )
    for run in found:
        if run.state == "dead" and run.is_local:
            console.print(
                f"{literal(run.name)} is dead: gato resume {literal(run.name)}", highlight=False
            )


def _run_cells(run: Overview) -> tuple[str, ...]:
    try:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created_s))
    except (ValueError, OverflowError, OSError):  # the file may say any number
        started = NONE
    step = NONE if run.step is None else count_text(run.step)
    of = f"/{count_text(run.num_updates)}" if run.num_updates else ""
    return (
        run.name,
        run.state,
        step + of,
        NONE if run.iqm is None else f"{run.iqm:.2f}",
        bytes_text(run.disk_bytes),
        started,
        ", ".join(run.tasks) or NONE,
    )
