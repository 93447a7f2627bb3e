"""Names of tasks where columns are few."""

from __future__ import annotations

from collections.abc import Sequence


def short_names(names: Sequence[str]) -> dict[str, str]:
    """By name: without what is before the last slash, and without options that all tasks share."""
    options = {name.partition("?")[2] for name in names}
    shared = len(names) > 1 and len(options) == 1
    return {name: short_name(name, with_options=not shared) for name in names}


def short_name(name: str, *, with_options: bool = True) -> str:
    """The name of one task, whose options may have slashes of their own."""
    base, question, query = name.partition("?")
    return base.rpartition("/")[2] + (f"{question}{query}" if with_options else "")
