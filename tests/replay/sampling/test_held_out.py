"""Held-out records: never drawn, shown as left out, and always the same ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode
from gato.packing import RowWriter
from gato.sequence import StepLayout, Window
from gato.task import VQA, References, Task
from gato.text import ByteEncoder, bytes_to_text, text_to_bytes
from gato.tokenizer import TokenLayout
from replay.sampling.config import MixConfig
from replay.sampling.held_out import held_out, joined
from replay.sampling.left_out import left_out_of
from replay.sampling.mixture import Mixture
from replay.storage.store import EpisodeStore

TASK = Task(
    name="vqa/test",
    env_id="",
    family=VQA,
    observations={
        "image": ArraySpec(kind=Kind.IMAGE, shape=(48, 48, 3)),
        "question": ArraySpec(kind=Kind.TEXT, shape=(32,), max_tokens=12),
    },
    action=ArraySpec(kind=Kind.TEXT, shape=(16,), max_tokens=6),
    references=References(random=0.0, expert=1.0, source="made"),
    max_steps=100,
)
LAYOUT = TokenLayout(num_text_ids=1024, text=ByteEncoder())
MIX = MixConfig(rows=4, row_tokens=70)


def asked(number: int, source: str) -> Episode:
    """Three questions on one image, whose answers name the episode."""
    image = np.full((1, 48, 48, 3), number, np.uint8)
    return Episode(
        key=f"questions:test:0:{number}",
        task=TASK.name,
        source=source,
        observations={
            "image": np.repeat(image, 3, axis=0),
            "question": text_to_bytes([f"what {number} {i}?" for i in range(3)], 32),
        },
        actions=text_to_bytes([f"{number}.{i}" for i in range(3)], 16),
        rewards=np.full(3, 1 / 3, np.float32),
        terminated=True,
        truncated=False,
        seed=0,
    )


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 28)
    for number in range(8):
        store.add(asked(number, "held-out:t" if number % 4 == 1 else "file:t"), tokens=1)
    return store


def answers(window: Window | None) -> list[str]:
    assert window is not None
    return [bytes_to_text(row) for row in window.actions]


def test_held_out_records_are_never_drawn_and_all_others_are(store: EpisodeStore) -> None:
    mixture = Mixture(store, {TASK.name: TASK}, LAYOUT, MIX, seed=0, teacher_returns={})
    drawn: set[str] = set()
    for index in range(60):
        batch = mixture.sample(index)
        assert batch is not None
        drawn |= set(batch.episode_keys)
    assert drawn == {f"questions:test:0:{n}" for n in (0, 2, 3, 4, 6, 7)}
    left = left_out_of([store], MIX, {TASK.name: TASK}, {})[TASK.name]
    assert {reason: amount.episodes for reason, amount in left.items()} == {
        "held out for evaluations": 2
    }
    assert store.index.demonstration_steps([TASK.name]) == {TASK.name: 18}


def test_held_out_records_are_all_there_once_and_always_the_same(store: EpisodeStore) -> None:
    first = answers(held_out(store, TASK.name, 100))
    assert sorted(first) == ["1.0", "1.1", "1.2", "5.0", "5.1", "5.2"]
    assert answers(held_out(store, TASK.name, 100)) == first
    assert answers(held_out(store, TASK.name, 4)) == first[:4]
    assert held_out(store, "vqa/other", 4) is None
    window = held_out(store, TASK.name, 100)
    assert window is not None
    for image, answer in zip(window.observations["image"], answers(window), strict=True):
        assert (image == int(answer[0])).all()


def test_parts_of_shards_are_joined() -> None:
    assert joined([None, None]) is None
    one = Window(observations={}, actions=np.zeros((2, 4), np.uint8))
    both = joined([one, None, one])
    assert both is not None
    assert both.actions.shape == (4, 4)


@pytest.mark.parametrize("loss_on_questions", [False, True])
def test_a_batch_of_records_is_what_the_row_writer_makes(
    store: EpisodeStore, loss_on_questions: bool
) -> None:
    mix = MixConfig(rows=3, row_tokens=70, prompt_fraction=1.0, loss_on_questions=loss_on_questions)
    mixture = Mixture(store, {TASK.name: TASK}, LAYOUT, mix, seed=0, teacher_returns={})
    batch = mixture.sample(0)
    assert batch is not None
    steps = StepLayout(TASK, LAYOUT, loss_on_questions=loss_on_questions)
    size = steps.tokens_per_step
    rows = RowWriter(num_rows=3, row_tokens=70)
    windows: list[list[Window]] = []
    for row in range(3):
        windows.append([])
        for at in range(0, batch.segment[row].max() * size, size):
            answer = bytes(batch.ids[row, at + size - 6 : at + size].tolist()).rstrip(b"\0")
            number, step = map(int, answer.decode().split("."))
            episode = asked(number, "file:t")
            windows[-1].append(
                Window(
                    observations={k: v[step : step + 1] for k, v in episode.observations.items()},
                    actions=episode.actions[step : step + 1],
                )
            )
    rows.write_rows(range(3), task_index=0, steps=steps, windows=windows)
    wanted = rows.batch().arrays()
    for name, values in batch.arrays().items():
        np.testing.assert_array_equal(values, wanted[name], err_msg=name)
    assert batch.segment.max() == 2  # each window is one record, and none is prompted
