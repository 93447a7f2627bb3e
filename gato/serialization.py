"""Frozen dataclasses as what JSON can hold, and back, led by their types."""

from __future__ import annotations

import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """The inverse of `to_plain`, led by the type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [k for k in arguments if k is not type(None)]
        for kind in kinds[:-1]:
            with suppress(ValueError):
                return from_plain(kind, value)
        return from_plain(kinds[-1], value)
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{value!r} is no group of settings of {kind.__name__}; set one of them, as in"
                " PATH.NAME=VALUE"
            )
        hints = get_type_hints(kind)
        unknown = set(value) - set(hints)
        if unknown:
            raise ValueError(
                f"{kind.__name__} has no setting {sorted(unknown)[0]!r}; it has"
                f" {', '.join(sorted(hints))}"
            )
        return kind(**{name: _setting(name, hints[name], item) for name, item in value.items()})
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} must be a list")
        return tuple(from_plain(arguments[0], item) for item in value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    accepted = (int, float) if kind is float else kind
    if isinstance(kind, type) and (
        not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool)
    ):
        raise ValueError(f"{value!r} must be of kind {kind.__name__}")
    return float(value) if kind is float else value


def _setting(name: str, kind: Any, value: Any) -> Any:
    try:
        return from_plain(kind, value)
    except ValueError as problem:
        raise ValueError(f"{name}: {problem}") from problem
