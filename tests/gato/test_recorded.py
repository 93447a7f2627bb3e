"""Recorded text as sequences: an image, then a question, then its answer; the loss is on the
answer, and acting writes what the whole row predicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gato.acting.config import ActingConfig
from gato.acting.likelihood import measured_bytes, text_bits
from gato.acting.policy import Policy
from gato.array_spec import ArraySpec, Kind
from gato.network.model import TensorBatch
from gato.packing import RowWriter
from gato.sequence import FIRST_PLACE, PLACE_ACTION, PLACE_SEPARATOR, StepLayout, Window
from gato.task import TEXT, VQA, Task
from gato.text import ByteEncoder, bytes_to_text, text_to_bytes, written
from gato.tokenizer import TokenLayout
from tests.gato.models import small_model

LAYOUT = TokenLayout(num_text_ids=1024, text=ByteEncoder())
QUESTIONS = Task(
    name="vqa/test",
    env_id="",
    family=VQA,
    observations={
        "image": ArraySpec(kind=Kind.IMAGE, shape=(16, 32, 3)),
        "question": ArraySpec(kind=Kind.TEXT, shape=(20,), max_tokens=8),
    },
    action=ArraySpec(kind=Kind.TEXT, shape=(20,), max_tokens=5),
    max_steps=100,
)
PASSAGES = replace(QUESTIONS, name="text/test", family=TEXT, observations={})


def shown(*questions: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(questions))
    return {
        "image": rng.integers(0, 256, (len(questions), 16, 32, 3)).astype(np.uint8),
        "question": text_to_bytes(questions, 20),
    }


def test_an_image_comes_first_then_its_question_then_the_answer() -> None:
    steps = StepLayout(QUESTIONS, LAYOUT)
    ids = steps.step_ids(shown("ab?"), text_to_bytes(["no"], 20))[0].tolist()
    assert ids == [0, 0, *b"ab?", *[0] * 5, LAYOUT.separator, *b"no", 0, 0, 0]
    places = [*range(FIRST_PLACE, FIRST_PLACE + 10), PLACE_SEPARATOR, *[PLACE_ACTION] * 5]
    assert steps.place_S.tolist() == places
    assert steps.patch_at_m.tolist() == [0, 1]


@pytest.mark.parametrize("loss_on_questions", [False, True])
def test_the_loss_is_on_the_answer_and_its_end_and_on_questions_if_asked(
    loss_on_questions: bool,
) -> None:
    steps = StepLayout(QUESTIONS, LAYOUT, loss_on_questions=loss_on_questions)
    observations, answers = shown("ab?", "abcdefghij"), text_to_bytes(["no", "yesterday"], 20)
    rows = RowWriter(num_rows=2, row_tokens=16)
    for row in range(2):
        one = {name: values[row : row + 1] for name, values in observations.items()}
        window = Window(observations=one, actions=answers[row : row + 1])
        rows.write_row(row, task_index=0, steps=steps, windows=[window])
    is_target = rows.batch().is_target
    asked = [loss_on_questions] * 3 + [False] * 5
    # "no" and its end; "yesterday" is cut to five bytes and has no end.
    assert is_target[0].tolist() == [False, False, *asked, False, True, True, True, False, False]
    assert is_target[1, 2:10].tolist() == [loss_on_questions] * 8
    assert is_target[1, 11:].all()


def test_a_passage_is_predicted_from_the_separator_before_it() -> None:
    steps = StepLayout(PASSAGES, LAYOUT)
    ids = steps.step_ids({}, text_to_bytes(["abc", "d"], 20))
    assert ids.tolist() == [
        [LAYOUT.separator, *b"abc", 0, 0],
        [LAYOUT.separator, *b"d", 0, 0, 0, 0],
    ]
    assert steps.is_target(ids).tolist() == [
        [False, True, True, True, True, False],
        [False, True, True, False, False, False],
    ]


def test_text_is_no_action_of_an_environment() -> None:
    with pytest.raises(ValueError, match=r"text as action, which no environment takes"):
        replace(QUESTIONS, family="gymnasium")
    with pytest.raises(ValueError, match="shows nothing"):
        replace(
            PASSAGES, action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=2), family="vqa"
        )
    with pytest.raises(ValueError, match=r"writes text but there is no encoder"):
        StepLayout(PASSAGES, replace(LAYOUT, text=None))


def predicted(model: torch.nn.Module, observations: dict[str, np.ndarray]) -> list[str]:
    """What whole rows predict, one more token in each pass."""
    steps, texts = StepLayout(QUESTIONS, LAYOUT), [b""] * len(observations["question"])
    empty = text_to_bytes([""] * len(texts), 20)
    first = steps.tokens_per_step - steps.num_action_tokens
    for at in range(steps.num_action_tokens):
        rows = RowWriter(num_rows=len(texts), row_tokens=steps.tokens_per_step)
        for index in range(len(texts)):
            one = {name: values[index : index + 1] for name, values in observations.items()}
            window = Window(observations=one, actions=empty[index : index + 1])
            rows.write_row(index, task_index=0, steps=steps, windows=[window])
        batch = rows.batch()
        # The tokens so far, also those that are not UTF-8 by themselves.
        for index, text in enumerate(texts):
            batch.ids[index, first : first + len(text)] = list(text)
        hidden = model(TensorBatch.of(batch))
        chosen = model.logits(hidden[:, first + at - 1], 0, 256).argmax(-1)  # pyright: ignore
        texts = [text + bytes([int(token)]) for text, token in zip(texts, chosen, strict=True)]
    encoder = ByteEncoder()
    return [
        bytes_to_text(written(np.frombuffer(text, np.uint8).astype(np.int64), encoder, 20))
        for text in texts
    ]


def test_acting_writes_what_the_whole_row_predicts() -> None:
    model, observations = small_model(32), shown("ab?", "is it red?", "x")
    policy = Policy(model, QUESTIONS, ActingConfig(), text=ByteEncoder())
    state = policy.start(3)
    with torch.inference_mode():
        wanted = predicted(model, observations)
    first = policy.act(state, observations)
    assert [bytes_to_text(row) for row in first] == wanted
    # Another question after it is answered as if it were the first.
    state.reset(np.ones(3, np.bool_))
    assert (policy.act(state, observations) == first).all()


def test_bits_are_those_of_the_answer_and_its_end_alone() -> None:
    model, observations = small_model(32), shown("ab?", "abcdefghij")
    steps, texts = StepLayout(QUESTIONS, LAYOUT), text_to_bytes(["no", "yesterday"], 20)
    rows = RowWriter(num_rows=2, row_tokens=steps.tokens_per_step)
    windows = [
        [Window(observations={k: v[i : i + 1] for k, v in observations.items()},
                actions=texts[i : i + 1])]
        for i in range(2)
    ]  # fmt: skip
    rows.write_rows([0, 1], task_index=0, steps=steps, windows=windows)
    batch = TensorBatch.of(rows.batch())
    with torch.inference_mode():
        log_p = model.logits(model(batch)).float().log_softmax(-1) / np.log(2)
    wanted = [
        -sum(float(log_p[0, 10 + i, token]) for i, token in enumerate([*b"no", 0])),
        -sum(float(log_p[1, 10 + i, token]) for i, token in enumerate(b"yeste")),
    ]
    np.testing.assert_allclose(text_bits(model, steps, observations, texts), wanted, rtol=1e-4)
    assert measured_bytes(steps, texts).tolist() == [2, 5]
    cut = text_to_bytes(["aaaaéb", "aaa€", "é"], 20)  # 5 tokens, which end inside a character
    assert measured_bytes(steps, cut).tolist() == [5, 5, 2]


def test_what_a_model_writes_is_always_text() -> None:
    encoder = ByteEncoder()
    for ids in ([104, 105, 0, 7], [255, 254], [0], [195, 165] * 9):
        row = written(np.array(ids), encoder, 8)
        assert len(bytes_to_text(row).encode()) <= 8
    assert bytes_to_text(written(np.array([104, 105, 0, 7]), encoder, 8)) == "hi"
