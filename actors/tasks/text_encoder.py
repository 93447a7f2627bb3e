"""Text to ids: by a SentencePiece model, which is a file that the user gives (paper section 2.1),
or byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece

from gato.text import ByteEncoder, TextEncoder

BYTES = "bytes"
"""What a run's setting `text` says where no file is given."""


class SentencePieceEncoder:
    """A SentencePiece model as `gato.text.TextEncoder`; pickled, it is the file's bytes.

    layout = TokenLayout(text=SentencePieceEncoder.from_file(Path("words.model")))
    """

    def __init__(self, model: bytes) -> None:
        """ValueError where these bytes are no SentencePiece model."""
        try:
            self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as problem:
            raise ValueError(f"not a SentencePiece model: {problem}") from problem
        self._model = model

    @staticmethod
    def from_file(path: Path) -> SentencePieceEncoder:
        """The model of a file. ValueError where it cannot be read or is none."""
        try:
            return SentencePieceEncoder(path.read_bytes())
        except (OSError, ValueError) as problem:
            raise ValueError(
                f"no SentencePiece model in {path}: {problem}; give the .model file that"
                " `spm_train` wrote"
            ) from problem

    def __reduce__(self) -> tuple[type[SentencePieceEncoder], tuple[bytes]]:
        return SentencePieceEncoder, (self._model,)

    @property
    def vocab_size(self) -> int:
        return int(self._processor.vocab_size())

    @property
    def pad_id(self) -> int:
        """The model's padding piece; most have none, and then the unknown piece, from which nothing
        is to be learned."""
        pad = int(self._processor.pad_id())
        return pad if pad >= 0 else int(self._processor.unk_id())

    def encode(self, text: str) -> list[int]:
        return [int(piece) for piece in self._processor.encode(text)]


def text_encoder(text: str, folder: Path | None = None) -> TextEncoder:
    """The encoder that a run's setting `text` names: `bytes`, or a SentencePiece model's file,
    sought in `folder`."""
    if text == BYTES:
        return ByteEncoder()
    return SentencePieceEncoder.from_file((folder or Path()) / text)
