"""Plain tables: numbers to the right and never cut; where a terminal has no room, names are, the
least important first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.monitor.format import clip, printable

GAP = 2
MIN_NAME_COLUMNS = 8


def print_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    console: Console,
    *,
    left: Sequence[str],
    clipped: Sequence[str] = (),
) -> None:
    """Columns called `left` hold names; of `clipped`, the first gives way first. What is no
    terminal gets everything.

    Cells are shown as they are: without markup, and with control characters as escapes.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(title), *(len(row[i]) for row in rows), 0) for i, title in enumerate(titles)]
    natural = sum(widths) + GAP * (len(titles) - 1)
    excess = natural - console.width if console.is_terminal else 0
    for name in clipped:
        place = titles.index(name)
        cut = min(max(0, excess), max(0, widths[place] - MIN_NAME_COLUMNS))
        widths[place] -= cut
        excess -= cut
    table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
    for title, width in zip(titles, widths, strict=True):
        table.add_column(
            title, justify="left" if title in left else "right", no_wrap=True, width=width
        )
    ascii_only = console.options.ascii_only
    for row in rows:
        table.add_row(
            *(
                Text(clip(cell, width, ascii_only=ascii_only))
                for cell, width in zip(row, widths, strict=True)
            )
        )
    if not console.is_terminal:
        console = Console(file=console.file, width=natural + GAP)  # as wide as it needs to be
    console.print(table, highlight=False)
