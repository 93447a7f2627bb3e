"""The counts of one array in bounded memory: values of a continuous one, lengths of a text.

Shape letters: T steps, n elements of one step, k distinct values, b bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from gato.array_spec import ArraySpec
from gato.compatibility.entry import MANY_VALUES, EntryCoverage
from gato.scaling import bins, scale
from gato.text import bytes_to_text

MOST_ELEMENTS = 4096
"""Elements of one array that are measured; of a larger one, so many at even distances."""
CHUNK_VALUES = 1 << 20
MOST_TEXTS = 4096
"""Distinct texts that are encoded to see whether they fit; later ones are not measured."""


class NumberCounts:
    """The counts of one continuous array."""

    def __init__(self, spec: ArraySpec, num_bins: int) -> None:
        self._spec = spec
        self._num_bins = num_bins
        size = spec.size
        self.elements: Integer[np.ndarray, " n"] = (
            np.arange(size)
            if size <= MOST_ELEMENTS
            else np.linspace(0, size - 1, MOST_ELEMENTS).astype(np.int64)
        )
        count = len(self.elements)
        self.num_values = 0
        self.clipped: Integer[np.ndarray, " n"] = np.zeros(count, np.int64)
        self.least: Float[np.ndarray, " n"] = np.full(count, np.inf)
        self.most: Float[np.ndarray, " n"] = np.full(count, -np.inf)
        self.tokens: Bool[np.ndarray, "n b"] = np.zeros((count, num_bins), np.bool_)
        self.values: list[Float[np.ndarray, " k"]] = [np.empty(0, np.float32)] * count

    def observe(self, values: Shaped[np.ndarray, "T ..."]) -> None:
        rows = max(1, CHUNK_VALUES // self._spec.size)
        flat = values.reshape(len(values), self._spec.size)
        for start in range(0, len(flat), rows):
            self._observe(flat[start : start + rows].astype(np.float32))

    def _observe(self, x: Float[np.ndarray, "T n"]) -> None:
        # Values that are not finite are rejected elsewhere; here they count as clipped.
        finite = np.isfinite(x)
        x = x if finite.all() else np.where(finite, x, np.float32(np.finfo(np.float32).max))
        y = scale(x, self._spec)[:, self.elements]
        x = x[:, self.elements]
        # Rounding may pass a bound: only what is more than a bin beyond the last one is clipped.
        self.clipped += (np.abs(y) > 1.0 + 2.0 / self._num_bins).sum(axis=0)
        self.num_values += len(x)
        self.least = np.minimum(self.least, x.min(axis=0))
        self.most = np.maximum(self.most, x.max(axis=0))
        self.tokens[np.arange(x.shape[1]), bins(y, self._num_bins)] = True
        for column, known in enumerate(self.values):
            if len(known) < MANY_VALUES:
                self.values[column] = np.unique(np.concatenate([known, x[:, column]]))[:MANY_VALUES]

    def add(self, other: NumberCounts) -> None:
        self.num_values += other.num_values
        self.clipped += other.clipped
        self.least = np.minimum(self.least, other.least)
        self.most = np.maximum(self.most, other.most)
        self.tokens |= other.tokens
        self.values = [
            np.unique(np.concatenate(pair))[:MANY_VALUES]
            for pair in zip(self.values, other.values, strict=True)
        ]

    def entries(self, name: str) -> list[EntryCoverage]:
        if not self.num_values:
            return []
        bounded = self._spec.bounded
        return [
            EntryCoverage(
                name=_entry_name(name, self._spec.shape, int(element)),
                num_values=self.num_values,
                num_clipped=int(self.clipped[place]),
                least=float(self.least[place]),
                most=float(self.most[place]),
                distinct_values=len(self.values[place]),
                distinct_tokens=int(self.tokens[place].sum()),
                is_bounded=bool(bounded[element]),
            )
            for place, element in enumerate(self.elements)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "num_values": self.num_values,
            "clipped": self.clipped.tolist(),
            "least": self.least.tolist() if self.num_values else None,
            "most": self.most.tolist() if self.num_values else None,
            "tokens": [row.tobytes().hex() for row in np.packbits(self.tokens, axis=1)],
            "values": [values.tolist() for values in self.values],
        }

    def load(self, plain: Mapping[str, Any]) -> None:
        count, width = self.tokens.shape
        packed = [np.frombuffer(bytes.fromhex(row), np.uint8) for row in plain["tokens"]]
        if len(packed) != count or len(packed[0]) != math.ceil(width / 8):
            raise ValueError(
                f"a stored coverage has {len(packed)} elements, the array {count}, or other bins;"
                " measure it again"
            )
        self.tokens = np.unpackbits(np.stack(packed), axis=1)[:, :width].astype(np.bool_)
        self.num_values = int(plain["num_values"])
        self.clipped = np.array(plain["clipped"], np.int64)
        if self.num_values:
            self.least, self.most = np.array(plain["least"]), np.array(plain["most"])
        self.values = [np.array(values, np.float32) for values in plain["values"]]


def _entry_name(name: str, shape: tuple[int, ...], element: int) -> str:
    if not shape:
        return name
    return f"{name}[{','.join(str(int(place)) for place in np.unravel_index(element, shape))}]"


class TextCounts:
    """The counts of one text: the lengths of what its encoder makes of it."""

    def __init__(self, spec: ArraySpec, encode: Callable[[str], list[int]] | None) -> None:
        self._spec = spec
        self._encode = encode
        self._lengths: dict[bytes, int] = {}
        self.num_values = 0
        self.clipped = 0
        self.least, self.most = math.inf, -math.inf

    def observe(self, values: Shaped[np.ndarray, "T ..."]) -> None:
        if self._encode is None:
            return
        distinct, counts = np.unique(values, axis=0, return_counts=True)
        for row, count in zip(distinct, counts.tolist(), strict=True):
            length = self._lengths.get(row.tobytes())
            if length is None:
                if len(self._lengths) >= MOST_TEXTS:
                    continue
                length = self._lengths[row.tobytes()] = len(self._encode(bytes_to_text(row)))
            self.num_values += count
            self.clipped += count * (length > self._spec.num_tokens)
            self.least, self.most = min(self.least, length), max(self.most, length)

    def add(self, other: TextCounts) -> None:
        self.num_values, self.clipped = (
            self.num_values + other.num_values,
            self.clipped + other.clipped,
        )
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def entries(self, name: str) -> list[EntryCoverage]:
        if not self.num_values:
            return []
        return [
            EntryCoverage(
                name=name,
                num_values=self.num_values,
                num_clipped=self.clipped,
                least=float(self.least),
                most=float(self.most),
                distinct_values=len(self._lengths),
                distinct_tokens=0,
                is_bounded=True,
            )
        ]

    def to_json(self) -> dict[str, Any]:
        seen = self.num_values > 0
        return {
            "num_values": self.num_values, "clipped": self.clipped,
            "least": self.least if seen else None, "most": self.most if seen else None,
        }  # fmt: skip

    def load(self, plain: Mapping[str, Any]) -> None:
        self.num_values, self.clipped = int(plain["num_values"]), int(plain["clipped"])
        if self.num_values:
            self.least, self.most = plain["least"], plain["most"]
