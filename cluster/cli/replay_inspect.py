"""`gato replay ls`, `stats` and `peek`: what is in a store, while a run writes to it or not."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actors.tasks.catalog import TASKS
from cluster.monitor.format import (
    bytes_text,
    count_text,
    literal,
    number_text,
    percent_text,
    printable,
)
from cluster.monitor.table import print_table
from cluster.runs.dataset_import import UNTOLD_MIX, unread_lines
from cluster.runs.replay_location import Place, find_episode, find_place, opened
from gato.serialization import from_plain
from gato.task import Task
from replay.sampling.config import MixConfig
from replay.sampling.left_out import left_out_of
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode, Header
from replay.storage.stats import Contents, Tally, contents_of
from replay.storage.store import EpisodeStore

Order = Literal["number", "steps", "return"]
FIRST_STEPS = 8
"""Shown of rewards and actions."""
Row = tuple[int, Header]
"""Shard and header."""


def rows_of(
    stores: Sequence[EpisodeStore], *, task: str | None = None, source: str | None = None
) -> list[Row]:
    """Episodes of a task and a source, in the order they came. ValueError where there are none of
    that name."""
    rows = [
        (shard, header) for shard, store in enumerate(stores) for header in store.episodes.values()
    ]
    tasks, sources = Counter(h.task for _, h in rows), Counter(h.source for _, h in rows)
    wanted_tasks = _matching(task, tasks, "task", "/")
    wanted_sources = _matching(source, sources, "source", ":")
    chosen = [
        row for row in rows if row[1].task in wanted_tasks and row[1].source in wanted_sources
    ]
    return sorted(chosen, key=lambda row: (row[1].number, row[0]))


def _matching(said: str | None, known: Iterable[str], what: str, mark: str) -> set[str]:
    """Names that are what was said, or have it as their first or last word."""
    names = set(known)
    if said is None:
        return names
    found = {name for name in names if said in (name, name.split(mark)[0], name.split(mark)[-1])}
    if not found:
        near = get_close_matches(said, sorted(names), n=1, cutoff=0.4)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"there are: {', '.join(sorted(names)) or 'none'}"
        )
        raise ValueError(f"no episode of {what} {said!r}; {hint}")
    return found


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _ends(header: Header) -> str:
    return "term" if header.terminated else "trunc" if header.truncated else "-"


def _place(shard: int, header: Header, num_shards: int) -> str:
    return f"{shard}/{header.number}" if num_shards > 1 else str(header.number)


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
            sys.stdout.write(json.dumps(_plain(shard, header)) + "\n")
        return
    titles = ("number", "task", "source", "steps", "return", "version", "bytes", "ends", "key")
    lines = [
        (
            _place(shard, header, len(place.folders)), header.task, header.source, f"{header.steps:,}",
            number_text(header.episode_return), str(header.version.number) if header.version else "-",
            bytes_text(header.stored_bytes), _ends(header), header.key,
        )
        for shard, header in shown
    ]  # fmt: skip
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


def _plain(shard: int, header: Header) -> dict[str, object]:
    return {
        "number": header.number, "shard": shard, "key": header.key, "task": header.task, "source": header.source,
        "steps": header.steps, "return": header.episode_return, "terminated": header.terminated,
        "truncated": header.truncated, "version": header.version.number if header.version else None,
        "seed": header.seed, "tokens": header.tokens, "bytes": header.stored_bytes,
    }  # fmt: skip


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
    settings = (place.settings or {}).get("mix")
    mix = from_plain(MixConfig, settings) if settings else UNTOLD_MIX
    file = place.run.path / "scales.json" if place.run is not None else None
    scales = json.loads(file.read_text()) if file is not None and file.is_file() else {}
    return mix, TASKS, {name: scale["teacher_return"] for name, scale in scales.items()}


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
    durability = (
        f", durability {literal(place.settings['durability'])}"
        if place.settings and "durability" in place.settings
        else ""
    )
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
            "episodes": tally.episodes, "steps": tally.steps, "return_min": tally.return_min,
            "return_mean": tally.return_mean, "return_max": tally.return_max, "bytes": tally.stored_bytes,
        }  # fmt: skip

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
        "durability": place.settings.get("durability") if place.settings else None,
    }


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
        plain = _plain(shard, header) | {"version": header.version, "schema": header.schema}
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

    def of_step(step: np.ndarray) -> str:
        flat = [f"{value:.3g}" for value in np.ravel(step).tolist()]
        return (
            flat[0]
            if not step.shape
            else "(" + " ".join(flat[:6]) + (" .." if len(flat) > 6 else "") + ")"
        )

    return "  ".join(of_step(step) for step in values)


def _save_frames(store: EpisodeStore, header: Header, file: Path, console: Console) -> None:
    """Write the contact sheet of the episode's first image."""
    from cluster.monitor.contact_sheet import save_sheet, shown_steps

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
