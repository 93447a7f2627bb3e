"""Short text for a terminal: numbers, durations, a history as a line of blocks; and names from
files, made harmless."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from rich.markup import escape

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*#@"
NONE = "-"


def printable(text: object) -> str:
    """`text` with every character that is not printable written as its escape: ESC becomes \\x1b, a
    line's end \\n.

    Names, keys and reasons come from files that anybody may have made. A control character among
    them would move the cursor, clear the screen or set the terminal's title. For `rich.text.Text`
    and plain output, which know no markup.
    """
    said = str(text)
    if said.isprintable():
        return said
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in said)


def literal(text: object) -> str:
    """`printable`, for a string that `Console.print` or a table reads markup from: "[bold]" stays
    these six characters."""
    said = printable(text)
    body = said.rstrip("\\")
    # Backslashes before a tag would escape it, so they are doubled; rich's own `escape` does so for
    # a single one only.
    return escape(body) + 2 * said[len(body) :]


def number_text(value: float | None, *, digits: int = 3) -> str:
    """About `digits` significant digits, whole ones all shown up to 99,999: 0.12, 12.3, 3,210,
    135k."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 99_999.5:
        return count_text(value)
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    places = max(0, digits - 1 - max(0, math.floor(math.log10(size)) if size >= 1 else 0))
    return f"{value:.{places}f}"


def score_text(value: float | None) -> str:
    """A score around 1, to three places: 0.012; others as `number_text`."""
    if value is None or not math.isfinite(value) or abs(value) >= 9.9995:
        return number_text(value)
    return f"{value:.3f}"


def spread_text(mean: float, std: float, *, ascii_only: bool = False) -> str:
    """Mean and standard deviation, both in thousands (or millions) where the mean is: 285 ± 21.5,
    135k ± 9k."""
    plus_minus = "+-" if ascii_only else "±"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(mean) >= 100 * size or (letter == "M" and abs(mean) >= size):
            digits = 1 if letter == "M" else 0
            return f"{mean / size:.{digits}f}{letter} {plus_minus} {std / size:.{digits}f}{letter}"
    return f"{number_text(mean)} {plus_minus} {number_text(std)}"


def count_text(value: float | None) -> str:
    """Whole up to 9,999, then 12.3k, 4.5M, 6.7B."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) < 9999.5:
        return f"{value:,.0f}"
    for size, letter in ((1e3, "k"), (1e6, "M"), (1e9, "B"), (1e12, "T")):
        if abs(value) < 999.5 * size or letter == "T":
            scaled = value / size
            return f"{scaled:.0f}{letter}" if abs(scaled) >= 99.95 else f"{scaled:.1f}{letter}"
    return NONE


def bytes_text(count_bytes: float) -> str:
    """12 B, 3.4 MB, 1.0 GB."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count_bytes >= size:
            return f"{count_bytes / size:.1f} {unit}"
    return f"{count_bytes:.0f} B"


def duration_text(duration_s: float) -> str:
    """45 s, 3 min 05 s, 2 h 07 min."""
    whole_s = max(0, int(duration_s))
    if whole_s < 60:
        return f"{whole_s} s"
    if whole_s < 3600:
        return f"{whole_s // 60} min {whole_s % 60:02d} s"
    return f"{whole_s // 3600} h {whole_s % 3600 // 60:02d} min"


def percent_text(share: float | None) -> str:
    """A share from 0 to 1: 0.4%, 12%."""
    if share is None or not math.isfinite(share):
        return NONE
    percent = 100 * share
    return f"{percent:.1f}%" if 0 < abs(percent) < 9.95 else f"{percent:.0f}%"


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts worker-2 before worker-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def clip(text: str, columns: int, *, ascii_only: bool = False) -> str:
    """`text`, with a mark where it had to be cut to `columns`."""
    mark = "..." if ascii_only else "…"
    return text if len(text) <= columns else text[: max(0, columns - len(mark))] + mark


def sparkline(
    values: Sequence[float], *, columns: int, low: float, high: float, ascii_only: bool = False
) -> str:
    """A block a value, the newest last; more values than `columns` share a block, which shows their
    mean.

    The lowest block stands for `low` and the highest for `high`, or for what lies beyond them.
    """
    if not values:
        return ""
    low, high = min(low, *values), max(high, *values)
    num_blocks = min(len(values), columns)
    edges = [len(values) * place // num_blocks for place in range(num_blocks + 1)]
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    drawn: list[str] = []
    for begin, end in pairwise(edges):
        mean = math.fsum(values[begin:end]) / (end - begin)
        share = (mean - low) / (high - low) if high > low else 0.0
        drawn.append(blocks[min(len(blocks) - 1, int(share * len(blocks)))])
    return "".join(drawn)


def broken(name: str, columns: int) -> str:
    """`name` on as many lines as it needs, broken after - _ / . or :, and elsewhere only where a
    part of it is longer than a line."""
    lines: list[str] = [""]
    for part in _parts(name):
        if lines[-1] and len(lines[-1]) + len(part) > columns:
            lines.append("")
        while len(part) > columns:
            lines[-1], part = part[:columns], part[columns:]
            lines.append("")
        lines[-1] += part
    return "\n".join(line for line in lines if line)


def unbroken_columns(name: str) -> int:
    """What `name` needs so that `broken` breaks none of its parts."""
    return max(map(len, _parts(name)))


def _parts(name: str) -> list[str]:
    """What a name is of; each but the last ends with - _ / . or :."""
    return re.findall(r"[^-_/.:]*[-_/.:]?", name)


def flowed(parts: Sequence[str], columns: int, separator: str) -> str:
    """`parts` with `separator` between them, on as many lines as they need: none is broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(separator) + len(part) <= columns:
            lines[-1] += separator + part
        else:
            lines.append(part)
    return "\n".join(lines)
