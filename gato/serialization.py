"""Frozen dataclasses as plain JSON values, and back, guided by their type annotations."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Build = Callable[[Any], Any]

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
        kind: The type to build: a dataclass, a NamedTuple, a builtin, or an annotation of them.
        value: What `to_plain` returned, or a person wrote.
        ignore_unknown: Drop fields that a dataclass does not have, as a reader of records that a
            newer version wrote must.

    Raises:
        ValueError: The value does not fit; the text names the field and what was expected.
    """
    return _builder(kind, ignore_unknown)(value)


@cache
def _builder(kind: Any, ignore_unknown: bool) -> Build:
    """What builds values of one type. Kept: looking into annotations takes longer than building."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        builds = [_builder(k, ignore_unknown) for k in arguments if k is not type(None)]
        return _union(builds, accepts_none=type(None) in arguments)
    if origin is Literal:
        return _literal(arguments)
    if origin is tuple:
        length = None if ... in arguments else len(arguments)
        return _tuple(_builder(arguments[0], ignore_unknown), length)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_builder(arguments[1], ignore_unknown))
    if not isinstance(kind, type):
        return lambda value: value
    if is_dataclass(kind):
        return _dataclass(kind, ignore_unknown)
    if issubclass(kind, tuple):  # a NamedTuple, which is written as a list
        return _named_tuple(kind, [_builder(k, ignore_unknown) for k in _hints(kind).values()])
    return kind if issubclass(kind, Enum) else _scalar(kind)


def _union(builds: Sequence[Build], *, accepts_none: bool) -> Build:
    def build(value: Any) -> Any:
        if value is None and accepts_none:
            return None
        for attempt in builds[:-1]:
            with suppress(ValueError):
                return attempt(value)
        return builds[-1](value)

    return build


def _literal(accepted: tuple[Any, ...]) -> Build:
    def build(value: Any) -> Any:
        if value not in accepted:
            raise ValueError(f"expected one of {', '.join(map(repr, accepted))}, got {value!r}")
        return value

    return build


def _tuple(item: Build, length: int | None) -> Build:
    """`length`: None for any."""

    def build(value: Any) -> Any:
        if not isinstance(value, list) or length not in (None, len(value)):
            numbers = "" if length is None else f" of {length}"
            raise ValueError(f"expected a list{numbers}, got {value!r}")
        return tuple(map(item, value))

    return build


def _mapping(item: Build) -> Build:
    def build(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping of names to values, got {value!r}")
        return {str(key): _named(str(key), item, each) for key, each in value.items()}

    return build


def _dataclass(kind: type, ignore_unknown: bool) -> Build:
    builds = {name: _builder(hint, ignore_unknown) for name, hint in _hints(kind).items()}

    def build(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a group of settings ({kind.__name__}), got {value!r}")
        given: dict[str, Any] = {}
        for name, item in value.items():
            if name in builds:
                given[name] = _named(name, builds[name], item)
            elif not ignore_unknown:
                known = ", ".join(sorted(builds))
                raise ValueError(f"{kind.__name__} has no setting {name!r}; it has {known}")
        try:
            return kind(**given)
        except TypeError as problem:  # fields without a default that are not given
            missing = [name for name in builds if name not in given]
            raise ValueError(f"{kind.__name__} lacks one of {', '.join(missing)}") from problem

    return build


def _named_tuple(kind: type, builds: Sequence[Build]) -> Build:
    def build(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(builds):
            raise ValueError(f"expected a list of {len(builds)} ({kind.__name__}), got {value!r}")
        return kind(*(each(item) for each, item in zip(builds, value, strict=True)))

    return build


def _scalar(kind: type) -> Build:
    accepted = (int, float) if kind is float else kind

    def build(value: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            if kind is float and value in NOT_FINITE:
                return float(value)
            raise ValueError(f"expected {NOUNS.get(kind.__name__, kind.__name__)}, got {value!r}")
        return _float(value) if kind is float else value

    return build


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("expected a number, got one with too many digits") from None


def _named(name: str, build: Build, value: Any) -> Any:
    try:
        return build(value)
    except _FieldError as problem:
        raise _FieldError(f"{name}.{problem.path}", problem.problem) from problem
    except ValueError as problem:
        raise _FieldError(name, str(problem)) from problem


def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [part.name for part in fields(kind)] if is_dataclass(kind) else list(hints)
    return {name: hints[name] for name in names}
