"""The history of a page, kept in the run's folder: a journal drops its oldest records, and a long
one takes a while to read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any, cast

from cluster.web.history import History, to_json_text

FILE = "history.json.gz"


def write_history(folder: Path, run_id: str, history: History) -> None:
    """Write it, in one step. Raises OSError if the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f"{FILE}.{os.getpid()}.tmp"
    text = to_json_text({"run": run_id, "history": history.state()})
    draft.write_bytes(gzip.compress(text.encode(), compresslevel=1))
    os.replace(draft, folder / FILE)


def read_history(folder: Path, run_id: str) -> History | None:
    """The history of this run; None if there is none, or none that this version can read."""
    try:
        kept = cast(dict[str, Any], json.loads(gzip.decompress((folder / FILE).read_bytes())))
        return History.load(kept["history"]) if kept["run"] == run_id else None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None  # it is made again from the journal
