"""Text: raw bytes in episodes, ids in sequences, targets if something is before them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gato.acting.config import ActingConfig
from gato.acting.policy import Policy
from gato.array_spec import ArraySpec, Kind
from gato.episode import BadEpisode, Episode, check_episode
from gato.network.model import TensorBatch, next_token_loss
from gato.packing import RowWriter
from gato.sequence import FIRST_PLACE, PLACE_ACTION, PLACE_SEPARATOR, StepLayout, Window
from gato.text import bytes_to_text, encode_texts, text_to_bytes
from gato.tokenizer import TokenLayout
from replay.storage.record import record_from_bytes
from tests.gato.models import TALK, WordEncoder, random_observations, small_model
from tests.replay.episodes import to_bytes, unpack

LAYOUT = TokenLayout(num_text_ids=1024, text=WordEncoder())
STEPS = StepLayout(TALK, LAYOUT)


def talk(orders: list[str], answers: list[str], *, prompt_steps: int = 0) -> Window:
    num = len(orders)
    observations = random_observations(TALK, num, np.random.default_rng(0))
    observations |= {"order": text_to_bytes(orders, 20), "answer": text_to_bytes(answers, 20)}
    return Window(
        observations=observations, actions=np.zeros((num, 3), np.int64), prompt_steps=prompt_steps
    )


@pytest.mark.parametrize("text", ["", "go", "grün — 右", "x" * 20])
def test_a_text_is_kept_as_it_was(text: str) -> None:
    assert bytes_to_text(text_to_bytes([text], 20)[0]) == text


def test_a_text_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match=r"21 bytes.*room for 20"):
        text_to_bytes(["ä" * 10 + "x"], 20)
    with pytest.raises(ValueError, match="NUL"):
        text_to_bytes(["a\0b"], 20)


def test_a_step_is_text_then_patches_then_tensors_then_separator_then_action() -> None:
    window = talk(["go left"], ["yes"])
    (ids,) = STEPS.step_ids(window.observations, window.actions)
    # Keys in lexicographic order within each modality: answer before order.
    assert ids[:5].tolist() == [4, 0, 0, 3, 5]
    assert STEPS.patch_at_m.tolist() == [5, 6]
    assert (ids[7:9] >= LAYOUT.first_bin).all()
    assert ids[9] == LAYOUT.separator
    assert (
        STEPS.place_S.tolist()
        == [FIRST_PLACE + i for i in range(9)] + [PLACE_SEPARATOR] + [PLACE_ACTION] * 3
    )
    assert STEPS.tokens_per_step == len(ids) == 13


def test_a_text_is_cut_or_padded_to_its_tokens() -> None:
    rows = text_to_bytes(["a bb ccc dddd", "a", "", "a bb ccc dddd"], 20)
    ids = encode_texts(rows, WordEncoder(), 3)
    assert ids.tolist() == [[2, 3, 4], [2, 0, 0], [0, 0, 0], [2, 3, 4]]


def test_text_and_actions_are_targets_and_padding_is_not() -> None:
    writer = RowWriter(num_rows=1, row_tokens=40)
    window = talk(["go left", "stop", ""], ["yes", "no no no", ""])
    writer.write_row(0, task_index=0, steps=STEPS, windows=[window])
    is_target = writer.batch().is_target[0, :39].reshape(3, 13)
    assert is_target[:, 10:].all()
    assert not is_target[:, 5:10].any()
    assert is_target[1, :5].tolist() == [True, True, True, True, False]
    assert not is_target[2, :5].any()
    # The first token of a window has nothing before it that it could be told from.
    assert is_target[0, :5].tolist() == [False, False, False, True, True]


def test_the_first_token_of_each_packed_window_is_no_target() -> None:
    writer = RowWriter(num_rows=1, row_tokens=40)
    windows = [talk(["go"], ["yes"]), talk(["go", "go"], ["yes", "yes"], prompt_steps=1)]
    writer.write_row(0, task_index=0, steps=STEPS, windows=windows)
    assert writer.batch().is_target[0, [0, 13, 26]].tolist() == [False, False, True]


def test_the_loss_of_a_text_token_is_of_that_token_and_the_same_packed_and_alone() -> None:
    model = small_model(64)
    windows = [talk(["go left", "stop"], ["yes", "no no"]), talk(["stop"], ["no"])]

    def losses(windows: list[Window]) -> torch.Tensor:
        writer = RowWriter(num_rows=1, row_tokens=40)
        writer.write_row(0, task_index=0, steps=STEPS, windows=windows)
        with torch.inference_mode():
            return next_token_loss(model, TensorBatch.of(writer.batch())).losses

    packed = losses(windows)
    # answers: "yes" (first of its window: none), "no no", "no" (none); orders: 2 + 1 + 1; actions:
    # 3 a step
    assert len(packed) == 2 + 2 + 1 + 1 + 3 * 3
    torch.testing.assert_close(
        packed, torch.cat([losses(windows[:1]), losses(windows[1:])]), atol=1e-5, rtol=0
    )
    assert (
        packed[:2] - losses([talk(["stop it", "stop"], ["yes", "no no"])])[:2]
    ).abs().max() > 1e-3


def test_acting_on_text_sees_what_training_saw() -> None:
    model = small_model(64)
    window = talk(["go left", "stop"], ["yes", "no no"])

    class Recorder(Policy):
        seen: list[torch.Tensor]

        def _choose(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.seen.append(logits)
            return super()._choose(logits)

    policy = Recorder(model, TALK, ActingConfig(window_steps=2), text=WordEncoder())
    state = policy.start(1)
    actions = []
    for t in range(2):
        policy.seen = []
        actions.append(
            policy.act(
                state, {key: values[t : t + 1] for key, values in window.observations.items()}
            )[0]
        )
    assert TALK.action.problem_with(np.stack(actions), "action") is None
    writer = RowWriter(num_rows=1, row_tokens=40)
    writer.write_row(
        0, task_index=0, steps=STEPS, windows=[replace(window, actions=np.stack(actions))]
    )
    with torch.inference_mode():
        hidden = model(TensorBatch.of(writer.batch()))[0]
        # the MultiDiscrete's own number of values for each
        for element, count in enumerate([2, 5, 3]):
            expected = model.logits(hidden[13 + 9 + element], 0, count)
            torch.testing.assert_close(policy.seen[element][0], expected, atol=1e-4, rtol=0)


def test_text_without_an_encoder_or_with_one_too_large_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"test/talk shows text .'answer'. but there is no encoder"
    ):
        StepLayout(TALK, TokenLayout())
    with pytest.raises(ValueError, match="no encoder"):
        Policy(small_model(64), TALK, ActingConfig())
    large = WordEncoder()
    large.vocab_size = 1025
    with pytest.raises(ValueError, match="1025 ids, the layout room for 1024"):
        TokenLayout(num_text_ids=1024, text=large)


def test_ids_beyond_the_encoders_own_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ids \[101\], expected them in \[0, 100\)"):
        encode_texts(text_to_bytes(["x" * 100], 100), WordEncoder(), 3)


def test_an_episode_carries_text_through_its_record_and_bad_text_is_refused() -> None:
    window = talk(["go left", "stop"], ["grün", ""])
    episode = Episode(
        key="k", task=TALK.name, source="agent", observations=window.observations,
        actions=window.actions,
        rewards=np.zeros(2, np.float32), terminated=True, truncated=False, seed=0,
    )  # fmt: skip
    back = unpack(record_from_bytes(to_bytes(episode)))
    check_episode(back, TALK)
    assert bytes_to_text(back.observations["answer"][0]) == "grün"
    for damage, message in [(b"\xff", "answer is not UTF-8"), (b"a\0b", "answer holds a NUL")]:
        broken = window.observations["answer"].copy()
        broken[1, : len(damage)] = np.frombuffer(damage, np.uint8)
        with pytest.raises(BadEpisode, match=message):
            check_episode(
                replace(episode, observations={**window.observations, "answer": broken}), TALK
            )


@pytest.mark.parametrize(
    "make",
    [
        lambda: ArraySpec(kind=Kind.TEXT, shape=(4, 4), max_tokens=3),
        lambda: ArraySpec(kind=Kind.TEXT, shape=(4,)),
        lambda: replace(TALK, action=ArraySpec(kind=Kind.TEXT, shape=(4,), max_tokens=3)),
    ],
)
def test_a_text_that_cannot_be_is_refused(make) -> None:
    with pytest.raises(ValueError, match=r"max_tokens|text as action"):
        make()
