"""Text: stored as UTF-8 bytes, so that a new tokeniser needs no new data, and encoded as ids when
sequences are built.

Shape letters: T steps, b bytes, k tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8


@runtime_checkable
class TextEncoder(Protocol):
    """Encodes text as ids: usually a SentencePiece model (paper section 2.1;
    `actors.tasks.text_encoder`)."""

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size)."""
        ...

    @property
    def pad_id(self) -> int:
        """The id after a text's end. In what a task shows it is never a target; where a task
        writes text the first one is, because it ends the text."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without padding."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, none of which is padding. Any ids have one: a model may write them."""
        ...


@dataclass(frozen=True, slots=True)
class ByteEncoder:
    """Text as its UTF-8 bytes: an encoder that needs no file, at several times the tokens of a
    SentencePiece model."""

    @property
    def vocab_size(self) -> int:
        return 256

    @property
    def pad_id(self) -> int:
        """NUL, which no text contains."""
        return 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


def plain_text(text: str) -> str:
    """A text as answers are compared: in Unicode's form NFKC, which SentencePiece models write,
    without case, and with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def text_to_bytes(texts: Sequence[str], max_bytes: int) -> UInt8[np.ndarray, "T b"]:
    """Texts as episodes store them: UTF-8, zeros after the end. Raises ValueError if one is too
    long or contains a NUL."""
    out = np.zeros((len(texts), max_bytes), np.uint8)
    for row, text in zip(out, texts, strict=True):
        encoded = text.encode()
        if len(encoded) > max_bytes:
            raise ValueError(
                f"text {text[:40]!r} has {len(encoded)} bytes, its spec room for {max_bytes}; raise"
                " the spec's max_bytes"
            )
        if "\0" in text:
            raise ValueError(
                f"text {text[:40]!r} holds a NUL character, which marks the end of a text;"
                " remove it"
            )
        row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return out


def bytes_to_text(row: UInt8[np.ndarray, " b"]) -> str:
    """The text of one row of `text_to_bytes`."""
    return row.tobytes().rstrip(b"\0").decode()


def text_problem(row: UInt8[np.ndarray, " b"]) -> str | None:
    """Why a row is not a text, or None if it is one."""
    try:
        return "holds a NUL before its end" if "\0" in bytes_to_text(row) else None
    except UnicodeDecodeError as problem:
        return f"is not UTF-8: {problem.reason} at byte {problem.start}"


def encode_texts(
    rows: UInt8[np.ndarray, "T b"], encoder: TextEncoder, max_tokens: int
) -> Integer[np.ndarray, "T {max_tokens}"]:
    """Ids of T texts, each cut to `max_tokens` or padded with `pad_id`. Equal texts are encoded
    once."""
    distinct, which = np.unique(rows, axis=0, return_inverse=True)
    ids = np.full((len(distinct), max_tokens), encoder.pad_id, np.int32)
    for row, text in zip(ids, distinct, strict=True):
        encoded = encoder.encode(bytes_to_text(text))[:max_tokens]
        if encoded and not 0 <= min(encoded) <= max(encoded) < encoder.vocab_size:
            raise ValueError(
                f"the text encoder gave ids {encoded}, expected them in [0, {encoder.vocab_size})"
            )
        row[: len(encoded)] = encoded
    return ids[which.reshape(-1)]


def written(
    ids: Integer[np.ndarray, " k"], encoder: TextEncoder, max_bytes: int
) -> UInt8[np.ndarray, " b"]:
    """The text that a model wrote, up to its first padding, as episodes store it: cut to
    `max_bytes` where it is longer."""
    ended = np.flatnonzero(ids == encoder.pad_id)
    text = encoder.decode(ids[: ended[0] if len(ended) else None].tolist()).replace("\0", "")
    cut = text.encode()[:max_bytes].decode(errors="ignore")
    return text_to_bytes([cut], max_bytes)[0]
