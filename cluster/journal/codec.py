"""Records as JSON text, one an entry of the journal's stream."""

from __future__ import annotations

import json

from cluster.journal.records import RECORDS, Record
from gato.serialization import from_plain, to_plain


def encode(record: Record, *, time_s: float) -> str:
    """`record` as JSON with its kind and its wall-clock time."""
    return json.dumps(
        {"type": type(record).__name__, "time_s": time_s, "record": to_plain(record)},
        allow_nan=False,
    )


def decode(text: str) -> tuple[float, Record] | None:
    """Wall-clock time and record, or None if this version cannot read it.

    Fields that this version does not know are dropped: a newer writer may add some.
    """
    try:
        entry = json.loads(text)
        kind = RECORDS[entry["type"]]
        return float(entry["time_s"]), from_plain(kind, entry["record"], ignore_unknown=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
