"""`gato replay`: which module holds each of its commands."""

from __future__ import annotations

import typer

from cluster.cli.lazy import LazyGroup


class ReplayCommands(LazyGroup):
    """The commands of `gato replay`."""

    MODULES = {  # noqa: RUF012 (a table of the class)
        "ls": "cluster.cli.replay.inspect",
        "stats": "cluster.cli.replay.inspect",
        "peek": "cluster.cli.replay.peek",
        "provenance": "cluster.cli.replay.provenance",
        "verify": "cluster.cli.replay.maintain",
        "compact": "cluster.cli.replay.maintain",
        "export": "cluster.cli.replay.export",
        "pause": "cluster.cli.replay.limiter",
        "resume": "cluster.cli.replay.limiter",
        "limit": "cluster.cli.replay.limiter",
    }
    HELP = {  # noqa: RUF012
        "ls": "List episodes, the newest last.",
        "stats": "Show what is stored, by task and source, and its size.",
        "peek": "Show one episode.",
        "provenance": "Show where stored episodes came from and how they were changed.",
        "verify": "Read everything and name what is damaged; exit status 1 if anything is.",
        "compact": (
            "Free the disk space of evicted and damaged episodes. The run must not be active."
        ),
        "export": "Write episodes of one task as a Minari data set.",
        "pause": "Switch the rate limiter off, as for an offline fill, until `gato replay resume`.",
        "resume": "Switch the rate limiter on again; what came in meanwhile does not count.",
        "limit": "Change the rate limiter of an active run.",
    }


app = typer.Typer(cls=ReplayCommands, no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def replay() -> None:
    """Inspect and maintain stored episodes: of a run, a data set, or a folder."""
