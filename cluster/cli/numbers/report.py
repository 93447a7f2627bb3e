"""`gato report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import command_group, console, run_names
from cluster.monitor.format import bytes_text, literal

app = command_group()


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run's name.", autocompletion=run_names)],
    to: Annotated[Path, typer.Argument(metavar="FILE.html", help="The new file.")],
) -> None:
    """Write a report of a run as one HTML file, with its pictures and clips in it.

    Example: [bold]gato report demo demo.html[/bold]
    """
    from cluster.exporters.report import report_of
    from cluster.runs.folder import find_run

    if to.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{to} must end in .html")
    page = report_of(find_run(run))
    try:
        to.expanduser().write_text(page, encoding="utf-8")
    except OSError as problem:
        raise ValueError(
            f"cannot write {to} ({problem.strerror}); name a file in a folder that is there"
        ) from problem
    console.print(f"{literal(to)}: {bytes_text(len(page))}", highlight=False, soft_wrap=True)
