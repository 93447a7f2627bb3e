"""Reading JSON files that a person, or a stopped process, may have damaged: every error names the
file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(file: Path, *, fix: str) -> dict[str, Any]:
    """The JSON object in `file`.

    Args:
        file: Must exist.
        fix: What to do if it is damaged, for the end of the error's sentence.

    Raises:
        DamagedFile: It is not a JSON object; the text names the file, what is wrong and the fix.
        OSError: It cannot be read.
    """
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise damaged(file, problem, fix=fix) from problem
    if not isinstance(found, dict):
        raise damaged(file, f"expected a JSON object, got {type(found).__name__}", fix=fix)
    return found


class DamagedFile(ValueError):
    """A file with unexpected contents. Whoever has another copy may go on with that."""


def damaged(file: Path, problem: object, *, fix: str) -> DamagedFile:
    """The error for a file with unexpected contents; `problem` says what is wrong."""
    said = f"{problem!s}".strip() or type(problem).__name__
    if isinstance(problem, KeyError):
        said = f"{problem} is missing"
    return DamagedFile(f"{file} is damaged ({said}); {fix}")
