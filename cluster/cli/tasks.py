"""`gato tasks`: every task of the catalogue, with its tokens, limits, teacher and references."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.text import Text

from actors.envs.packages import OUTSIDE_ID, PACKAGES
from actors.tasks.catalog import TASKS
from actors.teachers.resolve import teacher_of
from cluster.cli.options import AsJson, command_group, console
from cluster.monitor.format import number_text, printable
from gato.sequence import StepLayout
from gato.task import Task
from gato.text import ByteEncoder
from gato.tokenizer import TokenLayout

app = command_group()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is said of one task."""

    task: str
    tokens_per_step: int
    max_steps: int
    teacher: str
    """Its kind; empty if none ships."""
    teacher_return: float | None
    teacher_success: float | None
    """Share of episodes that the teacher solves, where the environment says so."""
    random: float | None
    expert: float | None
    human: float | None
    source: str
    """Of the references."""
    extra: str
    """The extra that installs its package; empty if it is always there."""
    needs_python: bool
    """Whether its environment needs an interpreter of its own (`actors.env_python`)."""


def domain_of(name: str) -> str:
    """`metaworld` of `metaworld/reach`."""
    return name.partition("/")[0]


def domains() -> list[str]:
    """The domains of the catalogue, in its order."""
    return list(dict.fromkeys(map(domain_of, TASKS)))


def rows(domain: str | None = None) -> list[Row]:
    """A row for each task of a domain, or of all.

    Raises:
        ValueError: if there is no such domain.
    """
    if domain is not None and domain not in domains():
        raise ValueError(f"there is no domain {domain!r}; there are {', '.join(domains())}")
    return [_row(task) for name, task in TASKS.items() if domain in (None, domain_of(name))]


def _row(task: Task) -> Row:
    teacher = teacher_of(task)
    references = task.references
    return Row(
        task=task.name,
        tokens_per_step=StepLayout(task, TokenLayout(text=ByteEncoder())).tokens_per_step,
        max_steps=task.max_steps,
        teacher=teacher.kind if teacher else "",
        teacher_return=teacher.record.get("return_mean") if teacher else None,
        teacher_success=teacher.record.get("success") if teacher else None,
        random=references.random if references else None,
        expert=references.expert if references else None,
        human=references.human if references else None,
        source=references.source if references else "",
        extra=task.family if task.family in PACKAGES else "",
        needs_python=task.env_id.endswith(OUTSIDE_ID),
    )


@app.command()
def tasks(
    domain: Annotated[
        str | None, typer.Option(help="Only these, such as metaworld; default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks, with their tokens a step, teachers and references.

    Example: [bold]gato tasks --domain metaworld[/bold]
    """
    found = rows(domain)
    if as_json:
        sys.stdout.write(json.dumps([asdict(row) for row in found]) + "\n")
    else:
        _print(found)


TITLES = ("task", "tokens", "steps", "teacher", "its return", "random", "expert", "human")
TEXT_COLUMNS = ("task", "teacher")


def _lines(found: Sequence[Row]) -> list[str]:
    """The titles, then a line a task: columns as wide as they need, so that no name is cut."""
    lines: list[tuple[str, ...]] = [TITLES]
    for row in found:
        solves = "" if row.teacher_success is None else f" ({row.teacher_success:.0%})"
        lines.append(
            (
                printable(row.task),
                str(row.tokens_per_step),
                f"{row.max_steps:,}",
                row.teacher or "-",
                number_text(row.teacher_return) + solves,
                *(number_text(value) for value in (row.random, row.expert, row.human)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if title in TEXT_COLUMNS else cell.rjust(width)
            for cell, width, title in zip(line, widths, TITLES, strict=True)
        )
        for line in lines
    ]


def _print(found: Sequence[Row]) -> None:
    # Not as a table of rich's, which takes a quarter of a second for 325 tasks.
    title, *lines = _lines(found)
    console.print(Text(title, style="bold"), soft_wrap=True)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    extras = sorted({row.extra for row in found} - {""})
    for extra in extras:
        console.print(
            f"{extra}: pip install -e '.[{extra}]' -c constraints.txt in the project's folder",
            highlight=False,
            markup=False,
        )
    if elsewhere := sorted({domain_of(row.task) for row in found if row.needs_python}):
        console.print(
            f"{', '.join(elsewhere)}: packages for Python 3.10 and numpy 1, in an interpreter of"
            " their own: --set actors.env_python=PATH (docs/environments.md)",
            highlight=False,
            markup=False,
        )
    console.print(
        f"{len(found)} tasks; tokens of one step; of teachers in brackets the share of episodes"
        " that they solve. Any environment of Gymnasium is a task as well, by its id, and so are"
        " recorded data: vqa/NAME, captions/NAME, text/NAME, lerobot/NAME (gato import).",
        highlight=False,
    )
