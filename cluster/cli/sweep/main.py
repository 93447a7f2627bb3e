"""`gato sweep`: which module holds each of its commands."""

from __future__ import annotations

import typer

from cluster.cli.lazy import LazyGroup


class SweepCommands(LazyGroup):
    """The commands of `gato sweep`."""

    MODULES = {  # noqa: RUF012 (a table of the class)
        "start": "cluster.cli.sweep.carry_out",
        "resume": "cluster.cli.sweep.carry_out",
        "show": "cluster.cli.sweep.show",
    }
    HELP = {  # noqa: RUF012
        "start": "Carry out a sweep. Ctrl-C ends it, and everything is kept.",
        "resume": (
            "Go on with a sweep that was ended or killed. No trial that is over is trained again."
        ),
        "show": "Print the trials, the best first, and write the best settings and a picture.",
    }


app = typer.Typer(cls=SweepCommands, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def sweep() -> None:
    """Search over settings of a run, with short trainings on stored episodes."""
