"""Records as JSON text, one an entry of the journal's stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from cluster.journal.records import RECORDS, Record
from gato.serialization import from_plain, to_plain

AnyRecord = TypeVar("AnyRecord")


def encode(record: object, *, time_s: float) -> str:
    """`record` as JSON with its kind and its wall-clock time."""
    return json.dumps(
        {"type": type(record).__name__, "time_s": time_s, "record": to_plain(record)},
        allow_nan=False,
    )


def decode(text: str) -> tuple[float, Record] | None:
    """Wall-clock time and record of a run, or None if this version cannot read it."""
    return decode_as(text, RECORDS)


def decode_as(text: str, kinds: Mapping[str, type[AnyRecord]]) -> tuple[float, AnyRecord] | None:
    """Wall-clock time and record of one of these kinds, or None if it is of none of them.

    Fields that this version does not know are dropped: a newer writer may add some.
    """
    try:
        entry: Any = json.loads(text)
        kind = kinds[entry["type"]]
        return float(entry["time_s"]), from_plain(kind, entry["record"], ignore_unknown=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
