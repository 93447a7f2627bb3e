"""The command `gato`: which module holds each command, and how an error is printed."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.cli.lazy import LazyGroup
from cluster.monitor.format import literal


class Commands(LazyGroup):
    """The commands of `gato`."""

    MODULES = {  # noqa: RUF012 (a table of the class)
        "start": "cluster.cli.start",
        "resume": "cluster.cli.start",
        "watch": "cluster.cli.watch",
        "status": "cluster.cli.watch",
        "runs": "cluster.cli.watch",
        "compare": "cluster.cli.numbers.compare",
        "logs": "cluster.cli.logs",
        "stop": "cluster.cli.steer",
        "scale": "cluster.cli.steer",
        "roles": "cluster.cli.steer",
        "cluster": "cluster.cli.cluster",
        "config": "cluster.cli.config",
        "evaluate": "cluster.cli.evaluate",
        "ask": "cluster.cli.ask",
        "export": "cluster.cli.export",
        "export-metrics": "cluster.cli.numbers.follow",
        "follow": "cluster.cli.numbers.follow",
        "report": "cluster.cli.numbers.report",
        "serve": "cluster.cli.serve",
        "import": "cluster.cli.data",
        "record": "cluster.cli.data",
        "tasks": "cluster.cli.tasks",
        "check": "cluster.cli.check",
        "debug-step": "cluster.cli.debug_step",
        "teach": "cluster.cli.teach",
        "sweep": "cluster.cli.sweep.main",
        "doctor": "cluster.cli.doctor.doctor",
        "replay": "cluster.cli.replay.main",
    }
    HELP = {  # noqa: RUF012
        "start": (
            "Start a run and watch it. Ctrl-C stops it and keeps everything; on a cluster it only"
            " stops watching."
        ),
        "resume": "Continue a stopped run from its last checkpoint, with all its episodes.",
        "watch": "Watch a run's evaluation returns, live. Ctrl-C stops watching, not the run.",
        "status": "Print the status of a run once.",
        "runs": "List the runs here.",
        "compare": "Compare runs: those with equal settings are averaged over their seeds.",
        "logs": (
            "Show the log of a part of a run, on whichever machine it runs, even after it died."
        ),
        "stop": "Stop a run: the learner saves, the workers end. `gato resume` continues it.",
        "scale": "Change the number of actor workers of an active run.",
        "roles": "Change how an active run divides its workers' time among roles.",
        "cluster": "Start a Ray cluster, join one, and look at its machines.",
        "config": "Print the settings of a run.",
        "evaluate": "Play the last checkpoint of a run and print its returns.",
        "ask": "Ask the last checkpoint of a run about an image, and print its answer.",
        "export": ("Write a trained policy as one file, which acts with torch and numpy alone."),
        "export-metrics": "Write all series of a run, evaluations and others, as CSV or Parquet.",
        "follow": (
            "Follow a run, active or ended, and hand its numbers and alerts to other programs."
        ),
        "report": "Write a report of a run as one HTML file, with its pictures and clips in it.",
        "serve": "Serve a trained policy over HTTP; clients of one task share a forward pass.",
        "import": "Import demonstrations from a file, to train on with `gato start --data`.",
        "record": (
            "Record demonstrations of a task's teacher, to train on with `gato start --data`."
        ),
        "tasks": "List the tasks, with their tokens a step, teachers and references.",
        "check": "Check that a task's environment keeps the contract of environments.",
        "debug-step": (
            "Repeat a step whose loss or gradient was not finite, and say of which task and"
            " parameter."
        ),
        "teach": "Train a teacher for a robot, of MuJoCo or DM Control, with RLlib.",
        "sweep": "Search over settings of a run, with short trainings on stored episodes.",
        "doctor": "Try every package that gato needs or can use.",
        "replay": "Inspect and maintain stored episodes: of a run, a data set, or a folder.",
    }
    GROUPS = frozenset({"cluster", "config", "replay", "sweep"})


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from cluster.nodes.project_version import project_version

        sys.stdout.write(f"gato-ray {project_version()}\n")
        raise typer.Exit


@app.callback()
def gato(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Train one Gato on many games and many robots, and watch it play."""


def main() -> None:
    """Run the command. A user's mistake is printed in one line; the exit status is 2."""
    try:
        app(standalone_mode=True)
    except (ValueError, OSError) as problem:
        Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(
            f"[bold red]error:[/bold red] {literal(' '.join(_said(problem).split()))}"
        )
        raise SystemExit(2) from None


def _said(problem: ValueError | OSError) -> str:
    if isinstance(problem, OSError) and problem.errno == errno.ENAMETOOLONG:
        name = max(Path(str(problem.filename)).parts, key=len)
        return (
            f"there is no run, file or folder {name[:32] + '...'!r}: a name of {len(name)} letters"
            " is too long for any; gato runs lists the runs"
        )
    return str(problem)


if __name__ == "__main__":
    main()
