"""`gato replay ls` and `stats`: what is in a store, while a run writes to it or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from actors.tasks.catalog import TASKS
from cluster.cli.options import (
    AsJson,
    JsonLines,
    OfSource,
    OfTask,
    Where,
    command_group,
    console,
)
from cluster.cli.replay.rows import plain_row, rows_of
from cluster.monitor.format import bytes_text, count_text, literal, number_text, percent_text
from cluster.monitor.scores import read_scales
from cluster.monitor.table import print_table
from cluster.runs.data.dataset_import import UNTOLD_MIX, unread_lines
from cluster.runs.replay_location import Place, find_place, opened
from gato.task import Task
from replay.sampling.config import MixConfig
from replay.sampling.left_out import left_out_of
from replay.storage.header import Header
from replay.storage.stats import Contents, Tally, contents_of

Order = Literal["number", "steps", "return"]
app = command_group()


@app.command("ls")
def ls_command(
    what: Where = None,
    task: OfTask = None,
    source: OfSource = None,
    limit: Annotated[int, typer.Option(min=0, help="Show the last N episodes; 0: all.")] = 20,
    sort: Annotated[Order, typer.Option(help="What they are ordered by.")] = "number",
    as_json: JsonLines = False,
) -> None:
    """List episodes, the newest last.

    Example: [bold]gato replay ls demo --task pong --sort return[/bold]
    """
    ls(what, task=task, source=source, limit=limit, order=sort, as_json=as_json, console=console)


@app.command("stats")
def stats_command(what: Where = None, as_json: AsJson = False) -> None:
    """Show what is stored, by task and source, and its size.

    Example: [bold]gato replay stats demo[/bold]
    """
    stats(what, as_json=as_json, console=console)


def ls(
    what: str | None,
    *,
    task: str | None,
    source: str | None,
    limit: int,
    order: Order,
    as_json: bool,
    console: Console,
) -> None:
    """A line an episode; the newest, longest or best are last, and are those that a limit
    leaves."""
    place = find_place(what)
    with opened(place) as stores:
        rows = rows_of(stores, task=task, source=source)
    if order != "number":
        rows.sort(key=lambda row: row[1].steps if order == "steps" else row[1].episode_return)
    shown = rows[-limit:] if limit else rows
    if as_json:
        for shard, header in shown:
            sys.stdout.write(json.dumps(plain_row(shard, header)) + "\n")
        return
    titles = ("number", "task", "source", "steps", "return", "version", "bytes", "ends", "key")
    lines = [
        (
            _place(shard, header, len(place.folders)),
            header.task,
            header.source,
            f"{header.steps:,}",
            number_text(header.episode_return),
            str(header.version.number) if header.version else "-",
            bytes_text(header.stored_bytes),
            _ends(header),
            header.key,
        )
        for shard, header in shown
    ]
    if lines:
        print_table(
            titles,
            lines,
            console,
            left=("task", "source", "ends", "key"),
            clipped=("key", "source", "task"),
        )
    more = f" of {len(rows):,}; --limit 0 shows all" if len(shown) < len(rows) else ""
    by = {"number": "newest", "steps": "longest", "return": "best"}[order]
    said = f"{_count(len(shown), 'episode')}{more}, the {by} last" if shown else "no episodes"
    console.print(f"[dim]{literal(place.label)}: {said}[/dim]", highlight=False, soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _ends(header: Header) -> str:
    return "term" if header.terminated else "trunc" if header.truncated else "-"


def _place(shard: int, header: Header, num_shards: int) -> str:
    return f"{shard}/{header.number}" if num_shards > 1 else str(header.number)


def stats(what: str | None, *, as_json: bool, console: Console) -> None:
    """Episodes, steps and returns by task and source; bytes; tokens; what was seen and what is
    damaged."""
    place = find_place(what)
    with opened(place) as stores:
        contents = contents_of(stores)
        unread = left_out_of(stores, *_mix_of(place))
    if as_json:
        plain = {
            task: {reason: asdict(amount) for reason, amount in found.items()}
            for task, found in unread.items()
        }
        sys.stdout.write(json.dumps(_plain_contents(contents, place) | {"left_out": plain}) + "\n")
        return
    if contents.tallies:
        _print_tallies(contents, console)
        console.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, says in _facts(contents, place):
        grid.add_row(name, says)
    counts = {task: tally.episodes for task, tally in contents.by_task().items()}
    for number, line in enumerate(unread_lines(unread, counts)):
        grid.add_row("" if number else "not read", literal(line))
    if not unread:
        grid.add_row("not read", "nothing: all that is stored is read")
    console.print(grid, highlight=False)


def _mix_of(place: Place) -> tuple[MixConfig, Mapping[str, Task], Mapping[str, float]]:
    """What decides what is read: the run's mix, or the usual one; the tasks whose references are
    known; teachers' returns."""
    mix = place.config.mix if place.config is not None else UNTOLD_MIX
    scales = read_scales(place.run.path) if place.run is not None else {}
    return mix, TASKS, {name: scale.teacher_return for name, scale in scales.items()}


def _print_tallies(contents: Contents, console: Console) -> None:
    titles = ("task", "source", "episodes", "steps", "least", "mean", "best return", "bytes")
    lines: list[list[str]] = []
    for task, total in contents.by_task().items():
        sources = contents.tallies[task]
        if len(sources) > 1:
            lines.append([task, "all", *_tally_cells(total)])
        for source, tally in sorted(sources.items()):
            lines.append(["" if len(sources) > 1 else task, source, *_tally_cells(tally)])
    print_table(titles, lines, console, left=("task", "source"), clipped=("source", "task"))


def _tally_cells(tally: Tally) -> list[str]:
    returns = (tally.return_min, tally.return_mean, tally.return_max)
    counts = (count_text(tally.episodes), count_text(tally.steps))
    return [*counts, *map(number_text, returns), bytes_text(tally.stored_bytes)]


def _facts(contents: Contents, place: Place) -> list[tuple[str, str]]:
    """Name and words of what is not of one task."""
    capacity_bytes = place.capacity_bytes
    of = (
        f" of {bytes_text(capacity_bytes)} ({percent_text(contents.stored_bytes / capacity_bytes)})"
        if capacity_bytes
        else ""
    )
    num_shards = f"{len(place.folders)} shards" if len(place.folders) > 1 else "one shard"
    if contents.num_shards != len(place.folders):
        num_shards += (
            f", [red]but the store was made of {contents.num_shards}: folders are missing[/red]"
        )
    durability = f", durability {place.config.durability}" if place.config is not None else ""
    schemas = ", ".join(map(str, sorted(contents.schemas))) or "-"
    facts = [
        ("store", f"{literal(place.label)}: {num_shards}, schema {schemas}{durability}"),
        (
            "stored",
            (
                f"{bytes_text(contents.stored_bytes)}{of}; files take"
                f" {bytes_text(contents.file_bytes)} of the disk"
            ),
        ),
        (
            "tokens",
            (
                f"{count_text(contents.inserted_tokens)} inserted,"
                f" {count_text(contents.read_tokens)} read"
            ),
        ),
        (
            "seen",
            (
                f"{_count(contents.num_streams, 'stream')} of keys in"
                f" {_count(contents.num_intervals, 'interval')}"
            ),
        ),
    ]
    if contents.num_whole_keys:
        facts.append(
            (
                "",
                (
                    f"{contents.num_whole_keys:,} whole keys of schema 1; gato replay compact makes"
                    " intervals of them"
                ),
            )
        )
    facts += [
        ("", f"[red]damaged:[/red] stream {literal(repr(stream))}")
        for stream in contents.damaged_streams
    ]
    if not contents.damaged:
        facts.append(("damaged", "none known; gato replay verify reads everything"))
    for number, (name, reason) in enumerate(contents.damaged.items()):
        facts.append(
            ("" if number else "damaged", f"[red]episode {literal(name)}:[/red] {literal(reason)}")
        )
    return facts


def _plain_contents(contents: Contents, place: Place) -> dict[str, object]:
    def plain(tally: Tally) -> dict[str, object]:
        return {
            "episodes": tally.episodes,
            "steps": tally.steps,
            "return_min": tally.return_min,
            "return_mean": tally.return_mean,
            "return_max": tally.return_max,
            "bytes": tally.stored_bytes,
        }

    totals = contents.by_task()
    return {
        "store": place.label,
        "tasks": {
            task: (
                plain(totals[task])
                | {"sources": {source: plain(tally) for source, tally in sorted(sources.items())}}
            )
            for task, sources in sorted(contents.tallies.items())
        },
        "stored_bytes": contents.stored_bytes,
        "file_bytes": contents.file_bytes,
        "capacity_bytes": place.capacity_bytes,
        "inserted_tokens": contents.inserted_tokens,
        "read_tokens": contents.read_tokens,
        "damaged": contents.damaged,
        "damaged_streams": contents.damaged_streams,
        "streams": contents.num_streams,
        "intervals": contents.num_intervals,
        "whole_keys": contents.num_whole_keys,
        "schemas": sorted(contents.schemas),
        "num_shards": contents.num_shards,
        "durability": place.config.durability if place.config is not None else None,
    }
