"""Stored episodes by task and source, and each of them as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from replay.storage.header import Header
from replay.storage.store import EpisodeStore

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


def plain_row(shard: int, header: Header) -> dict[str, object]:
    return {
        "number": header.number,
        "shard": shard,
        "key": header.key,
        "task": header.task,
        "source": header.source,
        "steps": header.steps,
        "return": header.episode_return,
        "terminated": header.terminated,
        "truncated": header.truncated,
        "version": header.version.number if header.version else None,
        "seed": header.seed,
        "tokens": header.tokens,
        "bytes": header.stored_bytes,
    }
