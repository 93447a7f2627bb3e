"""Tables of pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same names, as a table."""
    names = list(rows[0])
    lines = [" | ".join(names), "|".join(["--:"] * len(names))]
    lines += [" | ".join(f"{row[name]}" for name in names) for row in rows]
    return "\n".join(f"| {line} |" if " | " in line else f"|{line}|" for line in lines)
