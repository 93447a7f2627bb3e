"""The settings of a run by their paths, to see what differs between runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from cluster.runs.folder import RunFolder
from gato.serialization import to_plain


def flat_settings(folder: RunFolder) -> dict[str, Any]:
    """Every setting by its path, such as learner.max_rate; lists as one value."""
    flat: dict[str, Any] = {}
    _flatten(to_plain(folder.config()), "", flat)
    return flat


def _flatten(value: Any, path: str, flat: dict[str, Any]) -> None:
    if not isinstance(value, Mapping) or not value:
        flat[path] = value
        return
    for name, item in cast(Mapping[str, Any], value).items():
        _flatten(item, f"{path}.{name}" if path else name, flat)
