"""Arguments and options that several commands share, what a shell is offered for their values, and
the console that they print to."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

console = Console(emoji=False)  # a name may hold :text: between colons


def run_names(incomplete: str) -> list[str]:
    """Runs here, by folder; only names that `gato` takes, for a shell reads what is printed."""
    from cluster.runs.folder import runs_root
    from cluster.runs.folder_name import NAME

    names = (file.parent.name for file in runs_root().glob("*/run.json"))
    return sorted(name for name in names if NAME.fullmatch(name) and name.startswith(incomplete))


def replay_names(incomplete: str) -> list[str]:
    """Runs and data sets here."""
    from cluster.runs.folder import runs_root
    from cluster.runs.folder_name import NAME

    names = (file.parent.name for file in runs_root().glob("data/*/about.json"))
    sets = sorted(name for name in names if NAME.fullmatch(name) and name.startswith(incomplete))
    return [*run_names(incomplete), *sets]


def preset_names(incomplete: str) -> list[str]:
    """The presets of `gato start`."""
    from cluster.runs.presets import RUNS

    return [name for name in RUNS if name.startswith(incomplete)]


def config_names(incomplete: str) -> list[str]:
    """Runs here, and presets."""
    return [*run_names(incomplete), *preset_names(incomplete)]


def task_names(incomplete: str) -> list[str]:
    """Tasks of the catalogue, by their whole names or by what follows the slash."""
    from actors.tasks.catalog import TASKS

    whole = [name for name in TASKS if name.startswith(incomplete)]
    short = dict.fromkeys(name.rpartition("/")[2] for name in TASKS)
    return whole or [name for name in short if name.startswith(incomplete)]


RunName = Annotated[
    str | None,
    typer.Argument(
        help="Name of a run. Default: the newest active run, else the newest run.",
        autocompletion=run_names,
    ),
]
ActiveRun = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="An active run. Default: the newest.", autocompletion=run_names
    ),
]
SweepName = Annotated[
    str | None, typer.Argument(metavar="SWEEP", help="A sweep's name. Default: the newest.")
]
Where = Annotated[
    str | None,
    typer.Argument(
        metavar="WHAT",
        help="A run's name, a data set's, or a folder. Default: the newest run.",
        autocompletion=replay_names,
    ),
]
OfTask = Annotated[
    str | None,
    typer.Option("--task", help="Only episodes of this task.", autocompletion=task_names),
]
OfSource = Annotated[
    str | None,
    typer.Option("--source", help="Only this source: agent, teacher, file, or a full source name."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option("--redis", metavar="URL", help="A Redis to use instead of the run's own."),
]
ResumeRedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL|own",
        help="Redis server to resume with; own: the run's own. Default: the previous one.",
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="FOLDER|URL",
        help="Copy the run to this place (s3://bucket/gato), to resume if its home is lost.",
    ),
]
ResumeStorage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="FOLDER|URL|off",
        help="Copy the run there from now on; off: nowhere. Default: as before.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="A running Ray cluster; auto: the one that this machine is in. Default: a local one.",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")]
Attach = Annotated[
    bool,
    typer.Option("--attach", help="On a cluster: Ctrl-C stops the run, not only the watching."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def command_group() -> typer.Typer:
    """The Typer application of a module that `cluster.cli.main` loads."""
    return typer.Typer(rich_markup_mode="rich", add_completion=False)
