"""Fetches a journal that only Redis has into the run's folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cluster.journal.epoch_file import write_epoch
from cluster.journal.segment_writer import SegmentWriter
from cluster.journal.stream import keys_of

if TYPE_CHECKING:
    import redis


def adopt(client: redis.Redis, run_id: str, folder: Path) -> int:
    """Write all records of the stream, and the last epoch, to `folder`, which has none so far.

    Returns:
        How many there were.
    """
    keys = keys_of(run_id)
    draft = folder.with_name(f"{folder.name}.draft")  # so that half of them is never taken for all
    shutil.rmtree(draft, ignore_errors=True)
    with SegmentWriter(draft) as lines:
        after = "-"
        while rows := cast(
            list[tuple[str, dict[str, str]]],
            client.xrange(keys.stream, after, "+", count=1000),
        ):
            for _, row in rows:
                lines.append(row.get("entry", "").replace("\n", " "))
            after = f"({rows[-1][0]}"
        lines.sync()
        count = lines.last
    epoch = cast(str | None, client.get(keys.epoch))
    write_epoch(draft, int(epoch or 0))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return count
