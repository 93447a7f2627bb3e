"""Text encoders: a SentencePiece model from a file of the user's (paper section 2.1), or bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gato.text import ByteEncoder, TextEncoder

BYTES = "bytes"
"""The value of a run's setting `text` without a model file."""
NAMED: Mapping[str, tuple[str, str]] = {"mistral": ("mistral_common", "data/tokenizer.model.v1")}
"""Models that packages hold, by name: the package and the file in it. `mistral` has 32,000 pieces,
as many as the paper's, and falls back to bytes."""


class SentencePieceEncoder:
    """A SentencePiece model as a `gato.text.TextEncoder`; its pickle is the bytes of the file.

    layout = TokenLayout(text=SentencePieceEncoder.from_file(Path("words.model")))
    """

    def __init__(self, model: bytes) -> None:
        """Raises ValueError if these bytes are not a SentencePiece model."""
        import sentencepiece

        try:
            self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as problem:
            raise ValueError(f"not a SentencePiece model: {problem}") from problem
        self._model = model

    @staticmethod
    def from_file(path: Path) -> SentencePieceEncoder:
        """Load a model file. Raises ValueError if it cannot be read, or is not a model."""
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
    def unk_id(self) -> int:
        """The id of what the model has no piece for."""
        return int(self._processor.unk_id())

    @property
    def pad_id(self) -> int:
        """The id of the padding piece, or of the unknown piece if the model has none: no loss is
        computed for it."""
        pad = int(self._processor.pad_id())
        return pad if pad >= 0 else int(self._processor.unk_id())

    def encode(self, text: str) -> list[int]:
        return [int(piece) for piece in self._processor.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._processor.decode(list(ids)))


def model_path(text: str) -> str:
    """The file of a text model that a user names: one of `NAMED`, or a path, made absolute. `bytes`
    is no file and stays. Raises ValueError if the package of a name is not installed."""
    if text == BYTES:
        return text
    if text not in NAMED:
        return str(Path(text).absolute())
    package, file = NAMED[text]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"the text model {text} needs the package {package}, which is not installed; pip"
            f" install -e '.[{text}]' -c constraints.txt in the project's folder"
        )
    return str(Path(spec.origin).parent / file)


def unknown_in(encoder: TextEncoder, texts: Sequence[str]) -> list[str]:
    """Those of the texts that the encoder cannot write: it has no piece for a part of them."""
    if not isinstance(encoder, SentencePieceEncoder):
        return []
    return [text for text in texts if encoder.unk_id in encoder.encode(text)]


def text_encoder(text: str, folder: Path | None = None) -> TextEncoder:
    """The encoder of a run's setting `text`: `bytes`, or the file of a SentencePiece model in
    `folder`. Raises ValueError if the file is not a model."""
    if text == BYTES:
        return ByteEncoder()
    return SentencePieceEncoder.from_file((folder or Path()) / text)
