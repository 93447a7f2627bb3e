"""Composing: the same batches as `RowWriter` lays, from memory that holds much, little or next to
nothing."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode
from gato.packing import RowWriter
from gato.sequence import Batch, Window
from gato.tokenizer import TokenLayout
from replay.sampling.arena import ABSENT, Arena, gather
from replay.sampling.config import MixConfig, TaskMix
from replay.sampling.mixture import Mixture
from replay.sampling.sample_info import Sample
from replay.storage.store import EpisodeStore
from tests.replay.episodes import COUNTER, LAYOUT, PICTURES, counter_episode, picture_episode

TWO = replace(
    PICTURES,
    name="test/two-pictures",
    observations={
        "a": ArraySpec(kind=Kind.IMAGE, shape=(16, 20, 3)),  # kept whole: too small for chunks
        "b": ArraySpec(kind=Kind.IMAGE, shape=(48, 40, 3)),
        "n": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,)),
    },
)
TASKS = {task.name: task for task in (COUNTER, PICTURES, TWO)}


def two_pictures_episode(number: int, steps: int) -> Episode:
    rng = np.random.default_rng(number)
    return replace(
        picture_episode(number, steps),
        key=f"s{number}",
        task=TWO.name,
        observations={
            "a": rng.integers(0, 256, (steps, 16, 20, 3), dtype=np.uint8),
            "b": rng.integers(0, 256, (steps, 48, 40, 3), dtype=np.uint8),
            "n": rng.normal(size=(steps, 2)).astype(np.float32),
        },
        labels=np.arange(steps, dtype=np.int64)[::-1].copy(),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    store = EpisodeStore(tmp_path_factory.mktemp("store"), capacity_bytes=1 << 26)
    for number in range(6):
        store.add(counter_episode(number, 5 + 7 * number), tokens=1)
        store.add(picture_episode(number, 3 + 5 * number), tokens=1)
        store.add(two_pictures_episode(number, 9 + number), tokens=1)
    return store


def laid_by_the_writer(
    store: EpisodeStore, sample: Sample, mix: Mixture, config: MixConfig, layout: TokenLayout
) -> Batch:
    """The batch of the same windows, read one by one and laid by the writer that says what a batch
    is."""
    by_key = {header.key: header for header in store.episodes.values()}
    writer = RowWriter(
        num_rows=config.rows, row_tokens=config.row_tokens, loss_on_prompt=config.loss_on_prompt
    )
    info, told = sample.info, sample.batch.ids[:, 0] != layout.separator

    def read(
        key: str, start: int, length: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        episode = store.episode(by_key[key])
        steps = slice(start, start + length)
        actions = episode.actions if episode.labels is None else episode.labels
        returns = np.cumsum(episode.rewards[::-1], dtype=np.float64)[::-1]
        return (
            {k: v[steps] for k, v in episode.observations.items()},
            actions[steps],
            returns[steps],
        )

    rows: dict[int, list[Window]] = {}
    for w, row in enumerate(info.row.tolist()):
        seen, actions, returns = read(info.key[w], int(info.start[w]), int(info.length[w]))
        before = int(info.prompt_length[w])
        if before:
            p_seen, p_actions, p_returns = read(
                info.prompt_key[w], int(info.prompt_start[w]), before
            )
            seen = {k: np.concatenate([p_seen[k], v]) for k, v in seen.items()}
            actions, returns = (
                np.concatenate([p_actions, actions]),
                np.concatenate([p_returns, returns]),
            )
        window = Window(
            observations=seen,
            actions=actions,
            prompt_steps=before,
            returns=returns if layout.return_place is not None and told[row] else None,
        )
        rows.setdefault(row, []).append(window)
    for index, steps in enumerate(mix.layouts.values()):
        mine = [row for row in sorted(rows) if sample.batch.task_index[row] == index]
        writer.write_rows(mine, task_index=index, steps=steps, windows=[rows[row] for row in mine])
    return writer.batch()


@pytest.mark.parametrize("cache_bytes", [1 << 26, 1 << 17, 1 << 10])
@pytest.mark.parametrize("window_steps", [None, 1, 3])
@pytest.mark.parametrize(
    ("prompt_fraction", "loss_on_prompt"), [(0.0, True), (0.4, True), (1.0, False)]
)
@pytest.mark.parametrize("conditioned", [False, True])
def test_a_composed_batch_is_the_one_that_the_row_writer_lays(
    store: EpisodeStore,
    cache_bytes: int,
    window_steps: int | None,
    prompt_fraction: float,
    loss_on_prompt: bool,
    conditioned: bool,
) -> None:
    layout = replace(LAYOUT, return_place=99) if conditioned else LAYOUT
    config = MixConfig(
        rows=11,
        row_tokens=130,
        prompt_fraction=prompt_fraction,
        prompt_steps=2 if window_steps else None,
        loss_on_prompt=loss_on_prompt,
        min_expert_fraction=None,
        return_fraction=0.5,
        tasks={name: TaskMix(window_steps=window_steps) for name in TASKS},
    )
    mix = Mixture(store, TASKS, layout, config, seed=1, teacher_returns={}, cache_bytes=cache_bytes)
    for index in range(4):
        sample = mix.sample_with_info(index)
        assert sample is not None
        expected = laid_by_the_writer(store, sample, mix, config, layout)
        for name, array in expected.arrays().items():
            np.testing.assert_array_equal(sample.batch.arrays()[name], array, err_msg=name)
            assert sample.batch.arrays()[name].dtype == array.dtype, name


def rows_of(key: Hashable, count: int, width: int) -> np.ndarray:
    return np.random.default_rng(hash(key) % 2**32).integers(0, 256, (count, width), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([3, 7, 16]), st.integers(1, 40)), max_size=80
    )
)
def test_what_an_arena_still_has_is_what_was_put(puts: list[tuple[int, int, int]]) -> None:
    arena = Arena(1500)
    put: OrderedDict[Hashable, np.ndarray] = OrderedDict()
    for name, width, count in puts:
        key = (name, width, count)
        rows = rows_of(key, count, width)
        arena.put(key, rows)
        put[key] = rows
        for other, expected in put.items():
            place = arena.place(other)
            if place != ABSENT:
                np.testing.assert_array_equal(
                    arena.rows(expected.shape[1])[place : place + len(expected)], expected
                )
        assert arena.place(key) != ABSENT or 2 * rows.nbytes > 1500


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_gathered_rows_are_those_of_the_pieces_whatever_is_warm(data: st.DataObject) -> None:
    arena = Arena(600)
    lengths = [data.draw(st.integers(1, 30)) for _ in range(6)]

    def load(key: int) -> np.ndarray:
        return rows_of(key, lengths[key], 5)

    for _ in range(4):
        pieces: list[tuple[int, int, int]] = []
        for key in data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=8)):
            start = data.draw(st.integers(0, lengths[key] - 1))
            pieces.append((key, start, data.draw(st.integers(1, lengths[key] - start))))
        keys, starts, counts = zip(*pieces, strict=True)
        got = gather(arena, keys, np.array(starts), np.array(counts), 5, load)
        expected = [
            rows_of(key, lengths[key], 5)[start : start + length] for key, start, length in pieces
        ]
        np.testing.assert_array_equal(got, np.concatenate(expected))


def test_nothing_is_read_twice_while_there_is_room(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore(Path(folder), capacity_bytes=1 << 26)
        for number in range(4):
            store.add(picture_episode(number), tokens=1)
        config = MixConfig(rows=16, row_tokens=130, prompt_fraction=0.0)
        mix = Mixture(store, {PICTURES.name: PICTURES}, LAYOUT, config, seed=1, teacher_returns={})
        for index in range(30):
            assert mix.sample(index) is not None
        first = mix.sample(3)
        store.close()  # from here on nothing can be read
        again = mix.sample(3)
        assert first is not None
        assert again is not None
        np.testing.assert_array_equal(first.patches, again.patches)
