"""A SentencePiece model, trained here, as the encoder of text."""

import io
import pickle
import random
from pathlib import Path

import pytest
import sentencepiece

from actors.tasks.text_encoder import (
    SentencePieceEncoder,
    model_path,
    text_encoder,
    unknown_in,
)
from gato.sequence import StepLayout
from gato.text import TextEncoder, text_to_bytes
from gato.tokenizer import TokenLayout, encode
from tests.gato.models import TALK

WORDS = [
    "the",
    "red",
    "blue",
    "green",
    "grey",
    "ball",
    "box",
    "key",
    "door",
    "go",
    "to",
    "left",
    "right",
    "pick",
    "up",
    "put",
    "down",
    "next",
    "behind",
    "open",
]


def train(pad_id: int = -1) -> bytes:
    rng, model = random.Random(0), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(rng.choices(WORDS, k=8)) for _ in range(300)]),
        model_writer=model,
        vocab_size=100,
        hard_vocab_limit=False,
        pad_id=pad_id,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


def test_a_model_of_a_file_gives_the_ids_of_its_pieces(model: bytes, tmp_path: Path) -> None:
    (tmp_path / "words.model").write_bytes(model)
    encoder = SentencePieceEncoder.from_file(tmp_path / "words.model")
    assert isinstance(encoder, TextEncoder)
    ids = encoder.encode("go to the red ball")
    assert 0 < len(ids) < 12
    assert all(0 <= i < encoder.vocab_size <= 32_000 for i in ids)
    assert ids != encoder.encode("go to the blue ball")
    assert (
        sentencepiece.SentencePieceProcessor(model_proto=model).decode(ids) == "go to the red ball"
    )


def test_padding_is_the_models_own_or_the_unknown_piece(model: bytes) -> None:
    assert SentencePieceEncoder(model).pad_id == 0
    assert SentencePieceEncoder(train(pad_id=3)).pad_id == 3


def test_it_goes_to_other_processes_as_its_file(model: bytes) -> None:
    encoder = SentencePieceEncoder(model)
    assert pickle.loads(pickle.dumps(encoder)).encode("open the door") == encoder.encode(
        "open the door"
    )


def test_its_ids_are_the_text_tokens_of_a_step(model: bytes) -> None:
    encoder = SentencePieceEncoder(model)
    layout = TokenLayout(text=encoder)
    assert StepLayout(TALK, layout).num_text_tokens == 5
    ids = encode(text_to_bytes(["go to"], 20), TALK.observations["answer"], layout)
    assert ids[0].tolist() == (encoder.encode("go to") + [0] * 3)[:3]


def test_a_file_that_is_not_a_model_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    for name in ("notes.txt", "missing.model"):
        with pytest.raises(ValueError, match=f"no SentencePiece model in .*{name}.*spm_train"):
            SentencePieceEncoder.from_file(tmp_path / name)


def test_a_model_of_a_package_is_found_by_its_name_and_writes_what_it_reads() -> None:
    pytest.importorskip("mistral_common", reason="the extra mistral is not installed")
    encoder = text_encoder(model_path("mistral"))
    assert encoder.vocab_size == 32_000
    for text in ("what color is the shape?", "größer, 漢字"):
        assert encoder.decode(encoder.encode(text)) == text
    assert unknown_in(encoder, ["漢", "🦜"]) == []
