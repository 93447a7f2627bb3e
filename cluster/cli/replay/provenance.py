"""`gato replay provenance`: where stored episodes came from, and what was done to them on the
way."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.cli.options import JsonLines, OfTask, Where, command_group, console
from cluster.cli.replay.rows import rows_of
from cluster.monitor.format import count_text, literal
from cluster.monitor.table import print_table
from cluster.runs.replay_location import find_place, opened
from replay.storage.changes import FIELD, ChangeTally, changes_of, tally_of
from replay.storage.header import Header

ORIGINS = ("file", "env_id", "engine", "env_kwargs", "conventions", "teacher")
"""Of an episode's info: what it was made by."""
DONE = ("converted", "allowed", "noted", "frames", "actions", "ended", "begins")
"""Of an episode's info: what was done to it, or assumed of it, in words."""


app = command_group()


@app.command("provenance")
def provenance_command(
    what: Where = None,
    task: OfTask = None,
    each: Annotated[bool, typer.Option("--each", help="A line for every episode.")] = False,
    as_json: JsonLines = False,
) -> None:
    """Show where stored episodes came from and how they were changed.

    Example: [bold]gato replay provenance hopper_expert-v2[/bold]
    """
    provenance(what, task=task, each=each, as_json=as_json, console=console)


@dataclass(slots=True, kw_only=True)
class Group:
    """Episodes of one origin to which the same was done."""

    task: str
    source: str
    origin: dict[str, str]
    done: dict[str, str]
    headers: list[Header] = field(default_factory=list[Header])

    @property
    def steps(self) -> int:
        return sum(header.steps for header in self.headers)

    @property
    def changes(self) -> ChangeTally:
        return tally_of(self.headers)


def groups_of(headers: Sequence[Header]) -> list[Group]:
    """Episodes by task, source, origin and treatment, in the order in which they came."""
    groups: dict[tuple[str, ...], Group] = {}
    for header in headers:
        origin = {name: header.info[name] for name in ORIGINS if name in header.info}
        done = {
            name: header.info[name] for name in DONE if name in header.info and name != "begins"
        }
        key = (header.task, header.source, json.dumps(origin), json.dumps(done))
        group = groups.setdefault(
            key, Group(task=header.task, source=header.source, origin=origin, done=done)
        )
        group.headers.append(header)
    return list(groups.values())


def provenance(
    what: str | None, *, task: str | None, each: bool, as_json: bool, console: Console
) -> None:
    """Show the origins of the episodes of a run, a data set or a folder; with `each` a line for
    every episode."""
    place = find_place(what)
    with opened(place) as stores:
        headers = [header for _, header in rows_of(stores, task=task)]
    if as_json:
        for plain in (
            map(_plain_episode, headers) if each else map(_plain_group, groups_of(headers))
        ):
            sys.stdout.write(json.dumps(plain) + "\n")
        return
    if each:
        _show_each(headers, console)
    else:
        for group in groups_of(headers):
            _show(group, console)
    console.print(f"[dim]{literal(place.label)}: {len(headers):,} episodes[/dim]", highlight=False)


def _show(group: Group, console: Console) -> None:
    console.print(
        f"[bold]{literal(group.task)}[/bold] from [bold]{literal(group.source)}[/bold]:"
        f" {count_text(len(group.headers))} episodes, {count_text(group.steps)} steps",
        highlight=False,
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in (*group.origin.items(), *group.done.items()):
        grid.add_row(f"  {name}", literal(text))
    for name, says in group.changes.lines():
        grid.add_row(f"  {name}", literal(says))
    if not group.done and not group.changes.lines():
        grid.add_row("  changes", "none: as it was played")
    console.print(grid, highlight=False)


def _show_each(headers: Sequence[Header], console: Console) -> None:
    lines = [
        (header.key, header.task, header.source, header.info.get("env_id", "-"), _done_text(header))
        for header in headers
    ]
    titles = ("key", "task", "source", "environment", "what was done")
    if lines:
        print_table(titles, lines, console, left=titles, clipped=("what was done", "key", "source"))


def _done_text(header: Header) -> str:
    said = [f"{name}: {says}" for name, says in tally_of([header]).lines()]
    said += [f"{name}: {header.info[name]}" for name in DONE if name in header.info]
    return "; ".join(said) or "nothing"


def _plain_group(group: Group) -> dict[str, object]:
    return {
        "task": group.task,
        "source": group.source,
        "origin": group.origin,
        "done": group.done,
        "episodes": len(group.headers),
        "steps": group.steps,
        "changes": [list(line) for line in group.changes.lines()],
    }


def _plain_episode(header: Header) -> dict[str, object]:
    changes = changes_of(header.info)
    clipped = changes.clipped
    return {
        "key": header.key,
        "task": header.task,
        "source": header.source,
        "steps": header.steps,
        "origin": {name: header.info[name] for name in ORIGINS if name in header.info},
        "done": {name: header.info[name] for name in DONE if name in header.info},
        "cut_from": changes.cut_from or None,
        "split_from": changes.split_from or None,
        "scaled": changes.is_scaled,
        "clipped": (
            {
                "values": clipped.values,
                "outside": clipped.outside,
                "furthest": clipped.furthest,
            }
            if clipped
            else None
        ),
        "other": {k: v for k, v in header.info.items() if k not in (*ORIGINS, *DONE, FIELD)},
    }
