"""`gato replay export`: write episodes as a Minari data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cluster.cli.options import OfSource, OfTask, Where, command_group, console
from cluster.cli.replay.rows import Row, rows_of
from cluster.monitor.format import literal
from cluster.monitor.progress import Progressing
from cluster.runs.replay_location import Place, find_place, opened
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode
from replay.storage.store import EpisodeStore

if TYPE_CHECKING:
    from gato.episode import Episode

MINARI_ID = "minari:"
"""Before the id of a data set, to export to as to import from."""
app = command_group()


@app.command("export")
def export_command(
    *,
    what: Where = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|minari:ID", help="A new folder, or an id under Minari's own root."
        ),
    ],
    task: OfTask = None,
    source: OfSource = None,
    min_return: Annotated[
        float | None, typer.Option(help="Only episodes with at least this return.")
    ] = None,
) -> None:
    """Write episodes of one task as a Minari data set.

    Example: [bold]gato replay export demo --task hopper --source agent --to hopper-mine-v0[/bold]
    """
    export(what, to=to, task=task, source=source, min_return=min_return, console=console)


def export(
    what: str | None,
    *,
    to: str,
    task: str | None,
    source: str | None,
    min_return: float | None,
    console: Console,
) -> None:
    """Write episodes of one task as a Minari data set: in a folder, or under Minari's own root by
    `minari:ID`."""
    place = find_place(what)
    with opened(place) as stores:
        rows = rows_of(stores, task=task, source=source)
        tasks = sorted({header.task for _, header in rows})
        if len(tasks) > 1:
            raise ValueError(
                f"a Minari data set is of one task, here are {', '.join(tasks)}; choose with --task"
            )
        rows = [row for row in rows if min_return is None or row[1].episode_return >= min_return]
        if not rows:
            raise ValueError(
                f"no episode of {place.label} returns {min_return:g} or more; lower --min-return"
                if tasks
                else f"{place.label} holds no episodes"
            )
        _export(stores, rows, to, place, console)


def _export(
    stores: Sequence[EpisodeStore], rows: Sequence[Row], to: str, place: Place, console: Console
) -> None:
    from actors.envs.provenance import env_spec_of
    from actors.tasks.resolve import resolve_task
    from replay.formats.minari.export import export_minari

    task = resolve_task(rows[0][1].task)
    destination = to.removeprefix(MINARI_ID) if to.startswith(MINARI_ID) else Path(to).expanduser()
    left_out: list[str] = []
    with Progressing(f"exporting {place.label}", total=len(rows), unit="episodes") as progress:
        exported = export_minari(
            progress.track(_episodes(stores, rows, left_out)),
            task,
            destination,
            env_spec=env_spec_of(task),
            description=f"Exported from {place.label} of gato-ray.",
        )
    for reason in left_out:
        console.print(
            f"[yellow]left out:[/yellow] {literal(reason)}", highlight=False, soft_wrap=True
        )
    console.print(
        f"{exported.num_episodes:,} episodes of {literal(task.name)}, {exported.num_steps:,} steps:"
        f" [bold]{literal(exported.dataset_id)}[/bold] in {literal(exported.folder)}",
        highlight=False,
        soft_wrap=True,
    )


def _episodes(
    stores: Sequence[EpisodeStore], rows: Sequence[Row], left_out: list[str]
) -> Iterator[Episode]:
    """One at a time; what is damaged, or evicted meanwhile, is left out."""
    for shard, header in rows:
        try:
            yield stores[shard].episode(header)
        except (DamagedEpisode, EpisodeGone) as problem:
            left_out.append(str(problem))
