"""`gato replay peek`: one episode, its columns, its first steps, and some frames as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Shaped
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.cli.options import Where, command_group, console
from cluster.cli.replay.rows import plain_row
from cluster.monitor.contact_sheet import save_sheet, shown_steps
from cluster.monitor.format import literal, number_text, printable
from cluster.monitor.table import print_table
from cluster.runs.replay_location import find_episode, find_place, opened
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.store import EpisodeStore

FIRST_STEPS = 8
"""Shown of rewards and actions."""
app = command_group()


@app.command("peek")
def peek_command(
    episode: Annotated[
        str,
        typer.Argument(
            help="An episode's key or number; SHARD/NUMBER if there are several shards."
        ),
    ],
    what: Where = None,
    frames: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture of some of its frames.")
    ] = None,
) -> None:
    """Show one episode.

    Example: [bold]gato replay peek 17 demo --frames pong.png[/bold]
    """
    peek(episode, what, frames=frames, console=console)


def peek(name: str, what: str | None, *, frames: Path | None, console: Console) -> None:
    """One episode: its header, its columns, its first steps, and some frames as a picture."""
    place = find_place(what)
    with opened(place) as stores:
        store, header = find_episode(stores, name)
        shard = stores.index(store)
        # first, so that what is wrong with it is not said after a page of numbers
        if frames is not None:
            _save_frames(store, header, frames, console)
        if header.number in store.damaged:
            console.print(
                f"[red]taken out:[/red] {literal(store.damaged[header.number])}", highlight=False
            )
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        plain = plain_row(shard, header) | {"version": header.version, "schema": header.schema}
        for field, value in plain.items():
            grid.add_row(
                field,
                Text(
                    f"{value:,}"
                    if isinstance(value, int) and not isinstance(value, bool)
                    else printable(value)
                ),
            )
        for field, value in header.info.items():
            grid.add_row(Text(printable(f"info {field}")), Text(printable(value)))
        console.print(grid)
        console.print()
        firsts = _print_columns(store, header, console)
        console.print()
        for column, values in firsts.items():
            dots = " ..." if header.steps > len(values) else ""
            console.print(
                f"[bold]{literal(column)}[/bold]  {_values_text(values)}{dots}", highlight=False
            )


def _print_columns(
    store: EpisodeStore, header: Header, console: Console
) -> dict[str, Shaped[np.ndarray, "T ..."]]:
    """A line a column; the first rewards and actions are given back."""
    titles = ("column", "dtype", "shape", "min", "mean", "max")
    lines: list[list[str]] = []
    firsts: dict[str, Shaped[np.ndarray, "T ..."]] = {}
    problems: list[str] = []
    for column, (dtype, shape) in header.columns.items():
        try:
            values = store.column(header, column, 0, header.steps)
        except (DamagedEpisode, EpisodeGone) as problem:
            values = None
            problems.append(str(problem))
        cells = ["damaged", "", ""]
        if values is not None:
            cells = [
                number_text(float(value))
                for value in (values.min(), values.mean(dtype=np.float64), values.max())
            ]
            if column in ("rewards", "actions", "labels"):
                firsts[column] = values[:FIRST_STEPS]
        shown = f"{header.steps:,} x {list(shape)}" if shape else f"{header.steps:,}"
        lines.append([column, np.dtype(dtype).name, shown, *cells])
    print_table(titles, lines, console, left=titles[:3])
    for problem in problems:
        console.print(f"[red]{literal(problem)}[/red]", highlight=False)
    return firsts


def _values_text(values: Shaped[np.ndarray, "T ..."]) -> str:
    """Steps one after another: numbers, or short lists of them."""

    def of_step(step: np.ndarray | np.generic) -> str:
        flat = [f"{value:.3g}" for value in np.ravel(step).tolist()]
        return (
            flat[0]
            if not step.shape
            else "(" + " ".join(flat[:6]) + (" .." if len(flat) > 6 else "") + ")"
        )

    return "  ".join(of_step(step) for step in values)


def _save_frames(store: EpisodeStore, header: Header, file: Path, console: Console) -> None:
    """Write the contact sheet of the episode's first image."""
    images = [
        name
        for name, (dtype, shape) in header.columns.items()
        if np.dtype(dtype) == np.uint8 and len(shape) == 3
    ]
    if not images:
        raise ValueError(
            f"episode {header.key} of {header.task} has no images: its columns are"
            f" {', '.join(header.columns)}"
        )
    steps = shown_steps(header.steps)
    try:
        frames = np.concatenate([store.column(header, images[0], step, step + 1) for step in steps])
    except (DamagedEpisode, EpisodeGone) as problem:
        raise ValueError(str(problem)) from problem
    save_sheet(file, frames, steps)
    console.print(
        f"{len(steps)} frames of {literal(images[0])} in {literal(file)}", highlight=False
    )
