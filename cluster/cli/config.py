"""`gato config show`: the settings of a run, a preset or a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import config_names
from cluster.runs.config import RunConfig
from cluster.runs.config_file import config_to_yaml, read_config
from cluster.runs.config_text import is_config_file
from cluster.runs.folder import find_run, runs_root
from cluster.runs.presets import RUNS, find_run_config

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def config() -> None:
    """Print the settings of a run."""


@app.command()
def show(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|PRESET|FILE",
            help="A run, a preset, or a config file. Default: the newest run.",
            autocompletion=config_names,
        ),
    ] = None,
) -> None:
    """Print every setting as YAML, which `gato start FILE.yaml` starts again.

    Example: [bold]gato config show demo > mine.yaml[/bold]
    """
    sys.stdout.write(config_to_yaml(_config_of(what)))


def _config_of(what: str | None) -> RunConfig:
    if what is not None and is_config_file(what):
        return read_config(Path(what))
    if what is None or (runs_root() / what / "run.json").is_file():
        return find_run(what).config()
    return find_run_config(what) if what in RUNS else find_run(what).config()
