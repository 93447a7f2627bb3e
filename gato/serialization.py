"""Frozen dataclasses as plain JSON values, and back, guided by their type annotations."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

NOT_FINITE = ("nan", "inf", "-inf")
"""JSON has no such numbers: they are written as text."""


NOUNS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


class _FieldError(ValueError):
    """A value that does not fit, with the path of its field, such as `actors.num_envs`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples, mappings and numbers as what JSON can hold.

    Raises:
        TypeError: The value, or a part of it, is of another kind.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: to_plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [to_plain(item) for item in value]
    raise TypeError(f"expected plain data, got {type(value).__name__}: {value!r}")


def from_plain(kind: Any, value: Any, *, ignore_unknown: bool = False) -> Any:
    """The inverse of `to_plain`.

    Args:
        kind: The type to build: a dataclass, a NamedTuple, a builtin, or an annotation made of them.
        value: What `to_plain` returned, or a person wrote.
        ignore_unknown: Drop fields that a dataclass does not have, as a reader of records that a
            newer version wrote must.

    Raises:
        ValueError: The value does not fit; the text names the field and what was expected.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        kinds = [k for k in arguments if k is not type(None)]
        for kind in kinds[:-1]:
            with suppress(ValueError):
                return from_plain(kind, value, ignore_unknown=ignore_unknown)
        return from_plain(kinds[-1], value, ignore_unknown=ignore_unknown)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"expected one of {', '.join(map(repr, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, got {value!r}")
        return tuple(
            from_plain(arguments[0], item, ignore_unknown=ignore_unknown) for item in value
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping of names to values, got {value!r}")
        return {key: _named(key, arguments[1], item, ignore_unknown) for key, item in value.items()}
    if not isinstance(kind, type):
        return value
    if is_dataclass(kind):
        return _from_fields(kind, value, ignore_unknown)
    if issubclass(kind, tuple):  # a NamedTuple, which is written as a list
        if not isinstance(value, list) or len(value) != len(hints := _hints(kind)):
            raise ValueError(f"expected a list as {kind.__name__}, got {value!r}")
        return kind(
            *(from_plain(hint, item) for hint, item in zip(hints.values(), value, strict=True))
        )
    if issubclass(kind, Enum):
        return kind(value)
    if kind is float and value in NOT_FINITE:
        return float(value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"expected {NOUNS.get(kind.__name__, kind.__name__)}, got {value!r}")
    return float(value) if kind is float else value


def _from_fields(kind: type, value: Any, ignore_unknown: bool) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a group of settings ({kind.__name__}), got {value!r}")
    hints = _hints(kind)
    unknown = [name for name in value if name not in hints]
    if unknown and not ignore_unknown:
        raise ValueError(
            f"{kind.__name__} has no setting {unknown[0]!r}; it has {', '.join(sorted(hints))}"
        )
    given = {
        name: _named(name, hints[name], item, ignore_unknown)
        for name, item in value.items()
        if name in hints
    }
    try:
        return kind(**given)
    except TypeError as problem:  # fields without a default that are not given
        missing = [part.name for part in fields(kind) if part.name not in given]
        raise ValueError(f"{kind.__name__} lacks one of {', '.join(missing)}") from problem


def _named(name: str, kind: Any, value: Any, ignore_unknown: bool) -> Any:
    try:
        return from_plain(kind, value, ignore_unknown=ignore_unknown)
    except _FieldError as problem:
        raise _FieldError(f"{name}.{problem.path}", problem.problem) from problem
    except ValueError as problem:
        raise _FieldError(name, str(problem)) from problem


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [part.name for part in fields(kind)] if is_dataclass(kind) else list(hints)
    return {name: hints[name] for name in names}

