"""What a setting is drawn from: `log:1e-4:3e-3`, `uniform:0:0.5`, `int:1:8`, `choice:64,128`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

Value = bool | int | float | str | None
"""A value of one setting."""
KINDS = {
    "log": "log:LOW:HIGH",
    "uniform": "uniform:LOW:HIGH",
    "int": "int:LOW:HIGH",
    "choice": "choice:A,B,...",
}
DIGITS = 4
"""Significant digits of a drawn number, so that a person can type it."""
HOW = "write it as " + ", ".join(f"PATH={form}" for form in KINDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    is_log: bool = False
    """Whether the logarithm is drawn uniformly."""
    is_whole: bool = False

    def draw(self, rng: np.random.Generator) -> Value:
        """One value."""
        if self.is_log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        elif self.is_whole:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        else:
            drawn = float(rng.uniform(self.low, self.high))
        return self.nearest(drawn)

    def nearest(self, value: Value) -> Value:
        """The value of the range that is nearest: PBT multiplies, which may leave the range."""
        assert isinstance(value, int | float)
        if self.is_whole:
            return round(min(max(value, self.low), self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    @property
    def text(self) -> str:
        """As it is written."""
        kind = "log" if self.is_log else "int" if self.is_whole else "uniform"
        return f"{kind}:{_exact(self.low)}:{_exact(self.high)}"


def _exact(number: float) -> str:
    """A number as text that is read back as the same number."""
    return f"{number:.0f}" if float(number).is_integer() else repr(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    def draw(self, rng: np.random.Generator) -> Value:
        """One value."""
        return self.values[int(rng.integers(len(self.values)))]

    def nearest(self, value: Value) -> Value:
        """The value itself: PBT picks a neighbour in the list."""
        return value

    @property
    def text(self) -> str:
        """As it is written."""
        said = (v if isinstance(v, str) else json.dumps(v) for v in self.values)
        return f"choice:{','.join(said)}"


Distribution = Range | Choice


def parse_entry(entry: str) -> tuple[str, Distribution]:
    """Path and distribution of `PATH=DISTRIBUTION`. Raises ValueError if it is not one."""
    path, separator, text = entry.partition("=")
    if not separator or not path:
        raise ValueError(f"--over {entry!r} names no setting and what it is drawn from; {HOW}")
    return path, parse(path, text)


def parse(path: str, text: str) -> Distribution:
    """The distribution in `text`.

    Raises:
        ValueError: It is none; the text names the setting, what is wrong and the form.
    """
    kind, separator, rest = text.partition(":")
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{path}: unknown distribution {kind!r}; {hint}{HOW}")
    if kind == "choice":
        return of_values(path, [_value(word) for word in rest.split(",")] if separator else [])
    return _range(path, kind, text, rest.split(":") if separator else [])


def of_values(path: str, values: Sequence[object]) -> Choice:
    """One of a list of values. Raises ValueError if there are fewer than two, or one is no plain
    value."""
    for value in values:
        if not isinstance(value, bool | int | float | str | None):
            raise ValueError(
                f"{path}: {value!r} is not one value; a choice has numbers, texts, true, false and"
                " null"
            )
    if len(values) < 2:
        raise ValueError(
            f"{path}: a choice needs two values or more, got {len(values)}; write it as"
            f" {path}={KINDS['choice']}"
        )
    texts = [json.dumps(value) for value in values]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: {twice} is given twice; name each value once")
    return Choice(values=tuple(values))  # pyright: ignore[reportArgumentType] (checked above)


def fitted(distribution: Distribution, now: object) -> Distribution:
    """The distribution of a setting that has the value `now`: whole numbers where that is one.
    Raises ValueError if there is none in the range."""
    if isinstance(distribution, Range) and isinstance(now, int) and not isinstance(now, bool):
        low, high = math.ceil(distribution.low), math.floor(distribution.high)
        if low > high:
            raise ValueError(
                f"{distribution.text} holds no whole number, which the setting is; give a wider"
                " range"
            )
        return replace(distribution, low=low, high=high, is_whole=True)
    return distribution


def _value(word: str) -> Value:
    try:
        return json.loads(word)
    except (json.JSONDecodeError, RecursionError):
        return word


def _range(path: str, kind: str, text: str, bounds: Sequence[str]) -> Range:
    form = f"write it as {path}={KINDS[kind]}"
    try:
        low, high = map(float, bounds)
    except ValueError:
        raise ValueError(f"{path}: {text!r} does not have two numbers; {form}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"{path}: {text!r} has no values: LOW must be below HIGH, both finite; {form}"
        )
    if kind == "log" and low <= 0:
        raise ValueError(f"{path}: {text!r} begins at {low:g}, and a logarithm at above 0; {form}")
    is_whole = kind == "int"
    if is_whole and not (low.is_integer() and high.is_integer()):
        raise ValueError(f"{path}: {text!r} does not go from one whole number to another; {form}")
    return Range(low=low, high=high, is_log=kind == "log", is_whole=is_whole)
