"""The page of the reference that lists every task, from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.cli.tasks import Row, domains, rows
from cluster.monitor.format import number_text
from docs.markdown import cell

TITLES = ("task", "tokens a step", "steps", "teacher", "its return", "random", "expert", "human")


def tasks_page() -> str:
    """docs/reference/tasks.md."""
    lines = [
        "# Every task",
        "",
        (
            "As `gato tasks` prints them. Tokens are those of one step; steps the longest episode;"
            " in brackets the share of episodes that the teacher solves. Options behind a name"
            " (`?frames=4`) and environments of your own: [Tasks](../tasks.md)."
        ),
        "",
    ]
    for domain in domains():
        lines += _section(domain)
    return "\n".join(lines) + "\n"


def _section(domain: str) -> Iterator[str]:
    found = rows(domain)
    yield f"## {domain}"
    yield ""
    if extra := found[0].extra:
        yield f"Needs `pip install -e '.[{extra}]' -c constraints.txt` in the project's folder."
        yield ""
    if found[0].needs_python:
        yield "Needs an interpreter of its own ([Environments](../environments.md))."
        yield ""
    yield from (f"{cell(source)}.  " for source in dict.fromkeys(r.source for r in found) if source)
    yield ""
    yield f"| {' | '.join(TITLES)} |"
    yield "|---|" + "---:|" * 2 + "---|" + "---:|" * 4
    yield from (f"| {' | '.join(_cells(row))} |" for row in found)
    yield ""


def _cells(row: Row) -> list[str]:
    solves = "" if row.teacher_success is None else f" ({row.teacher_success:.0%})"
    return [
        f"`{row.task}`",
        str(row.tokens_per_step),
        f"{row.max_steps:,}",
        row.teacher or "-",
        number_text(row.teacher_return) + solves,
        *(number_text(value) for value in (row.random, row.expert, row.human)),
    ]
