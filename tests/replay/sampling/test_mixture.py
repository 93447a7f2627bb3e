"""The mix: windows stay in their episode, prompts come from another, and a number always names the
same batch."""

import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.array_spec import ArraySpec, Kind
from gato.episode import AGENT
from gato.sequence import PLACE_ACTION, Batch
from gato.tokenizer import encode
from replay.config import ReplayConfig
from replay.sampling.config import MixConfig, TaskMix
from replay.sampling.demonstrations import Demonstrations
from replay.sampling.mixture import Mixture
from replay.storage.store import EpisodeStore
from tests.replay.episodes import (
    COUNTER,
    LAYOUT,
    PICTURES,
    TASKS,
    config,
    counter_episode,
    flip_a_bit,
    picture_episode,
)


def make(
    tmp_path: Path, replay: ReplayConfig, *, episodes: int = 5, steps: int = 10
) -> tuple[EpisodeStore, Mixture]:
    store = EpisodeStore(tmp_path, capacity_bytes=replay.capacity_bytes)
    for number in range(episodes):
        store.add(counter_episode(number, steps), tokens=1)
    return store, Mixture(store, TASKS, LAYOUT, replay.mix, seed=3, teacher_returns={})


def demonstrations(store: EpisodeStore, replay: ReplayConfig) -> Demonstrations:
    return Demonstrations(store, TASKS, LAYOUT, replay.mix, seed=3, teacher_returns={})


def windows_of(batch: Batch) -> list[list[tuple[int, int]]]:
    """(episode, step) of each step of each packed window of counter episodes."""
    out: list[list[tuple[int, int]]] = []
    for ids, segment in zip(batch.ids, batch.segment, strict=True):
        for part in range(1, segment.max() + 1):
            tokens = ids[segment == part].reshape(-1, 4)  # episode, step, separator, action
            assert (tokens[:, 1] == tokens[:, 3]).all()
            out.append([(int(row[0]), int(row[1])) for row in tokens])
    return out


def test_a_window_never_crosses_the_end_of_an_episode(tmp_path: Path) -> None:
    _, mix = make(tmp_path, config(window_steps=3), steps=7)
    for index in range(20):
        batch = mix.sample(index)
        assert batch is not None
        for window in windows_of(batch):
            assert len({episode for episode, _ in window}) == 1
            assert [step for _, step in window] == list(
                range(window[0][1], window[0][1] + len(window))
            )


def test_rows_are_filled_with_as_many_windows_as_fit(tmp_path: Path) -> None:
    _, mix = make(tmp_path, config(window_steps=2, row_tokens=43))
    batch = mix.sample(0)
    assert batch is not None
    assert (batch.segment.max(axis=1) == 5).all()
    assert ((batch.segment > 0).sum(axis=1) == 40).all()


def test_every_step_is_about_equally_likely(tmp_path: Path) -> None:
    _, mix = make(tmp_path, config(window_steps=1, rows=50), steps=4)
    counts: Counter[tuple[int, int]] = Counter()
    for index in range(16):
        batch = mix.sample(index)
        assert batch is not None
        counts.update(window[0] for window in windows_of(batch))
    assert len(counts) == 20
    assert max(counts.values()) < 1.4 * min(counts.values())


def test_a_number_names_the_same_batch_also_after_a_restart(tmp_path: Path) -> None:
    replay = config(prompt_fraction=0.5)
    store, mix = make(tmp_path, replay)
    first, other = mix.sample(11), mix.sample(12)
    store.close()
    again = Mixture(
        EpisodeStore(tmp_path, capacity_bytes=1 << 26),
        TASKS,
        LAYOUT,
        replay.mix,
        seed=3,
        teacher_returns={},
    ).sample(11)
    assert first is not None
    assert again is not None
    assert other is not None
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    assert (first.ids != other.ids).any()


def test_prompts_are_of_another_episode_of_the_same_source_and_half_from_its_end(
    tmp_path: Path,
) -> None:
    replay = config(rows=40, window_steps=2, prompt_fraction=0.25, prompt_steps=2, row_tokens=24)
    store, mix = make(tmp_path, replay, episodes=6, steps=30)
    for number in range(6, 9):
        store.add(counter_episode(number, 30, source="teacher:other"), tokens=1)
    prompted = at_end = rows = 0
    for index in range(60):
        batch = mix.sample(index)
        assert batch is not None
        rows += 40
        for window in windows_of(batch):
            if len(window) == 4:
                prompted += 1
                (prompt_episode, prompt_step), (target_episode, _) = window[0], window[2]
                assert prompt_episode != target_episode
                assert (prompt_episode < 6) == (target_episode < 6)
                at_end += prompt_step == 28
    assert prompted / rows == pytest.approx(0.25, abs=0.03)
    assert at_end / prompted == pytest.approx(0.5 + 0.5 / 29, abs=0.06)


def test_the_only_episode_of_a_source_prompts_itself_without_overlap(tmp_path: Path) -> None:
    replay = config(window_steps=2, prompt_fraction=1.0, prompt_steps=2)
    _, mix = make(tmp_path, replay, episodes=1)
    batch = mix.sample(0)
    assert batch is not None
    for window in windows_of(batch):
        assert len(set(window)) == len(window)


def test_short_episodes_leave_no_room_in_a_row(tmp_path: Path) -> None:
    _, mix = make(tmp_path, config(window_steps=None, row_tokens=43, prompt_fraction=0.25), steps=3)
    for index in range(10):
        batch = mix.sample(index)
        assert batch is not None
        assert ((batch.segment > 0).sum(axis=1) >= 36).all()
        for window in windows_of(batch):
            assert len({episode for episode, _ in window}) <= 2  # of a prompt and of its window


def test_a_mix_that_saw_episodes_come_and_go_reads_the_same_as_a_new_one(tmp_path: Path) -> None:
    replay = config(prompt_fraction=0.5)
    store = EpisodeStore(tmp_path, capacity_bytes=6000)  # four of them
    mix = Mixture(store, TASKS, LAYOUT, replay.mix, seed=3, teacher_returns={})
    store.add(counter_episode(0), tokens=1)
    for number in range(1, 12):
        assert store.add(counter_episode(number, source=AGENT), tokens=1) is not None
        if number % 3 == 0:
            store.quarantine(store.episodes[number], "for the test")
        seen, fresh = (
            mix.sample(number),
            Mixture(store, TASKS, LAYOUT, replay.mix, seed=3, teacher_returns={}).sample(number),
        )
        assert seen is not None
        assert fresh is not None
        for name, array in seen.arrays().items():
            np.testing.assert_array_equal(array, fresh.arrays()[name])
    assert min(store.episodes) == 0
    assert store.episodes.keys() < set(range(12)) - {3, 6, 9}  # some were evicted
    assert 3 not in store.damaged  # what is damaged goes first


def test_a_damaged_episode_is_taken_out_for_good_and_the_batch_is_drawn_from_the_rest(
    tmp_path: Path,
) -> None:
    replay = config(prompt_fraction=0.5)
    store, _ = make(tmp_path, replay)
    store.close()
    flip_a_bit(tmp_path, number=2)
    batches: list[Batch] = []
    for known in ([], [2]):  # the second opening knows before anything is read
        store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
        assert list(store.damaged) == known
        mix = Mixture(store, TASKS, LAYOUT, replay.mix, seed=3, teacher_returns={})
        for index in range(3):
            batch = mix.sample(index)
            assert batch is not None
            assert 2 not in {episode for window in windows_of(batch) for episode, _ in window}
        assert batch is not None
        batches.append(batch)
        assert list(store.damaged) == [2]
        store.close()
    np.testing.assert_array_equal(batches[0].ids, batches[1].ids)


def test_a_damaged_demonstration_prompts_nobody(tmp_path: Path) -> None:
    store, _ = make(tmp_path, config(), episodes=2)
    store.close()
    for number in range(2):
        flip_a_bit(tmp_path, number=number)
    store, _ = make(tmp_path, config(), episodes=2)
    assert demonstrations(store, config()).window(COUNTER.name, 3) is None
    assert sorted(store.damaged) == [0, 1]


def test_a_prompt_for_acting_is_the_beginning_of_a_good_demonstration(tmp_path: Path) -> None:
    every = replace(config(), mix=replace(config().mix, min_expert_fraction=None))
    store, _ = make(tmp_path, every, episodes=0)
    for number in range(8):
        store.add(
            counter_episode(number, reward=float(number), source=f"teacher:{number % 2}"), tokens=1
        )
    store.add(counter_episode(8, reward=99.0, source=AGENT), tokens=1)
    seen: set[int] = set()
    shown = demonstrations(store, every)
    for draw in range(20):
        window = shown.window(COUNTER.name, 3, draw=draw)
        assert window is not None
        assert window.observations["state"][:, 1].tolist() == [0, 1, 2]
        seen.add(int(window.observations["state"][0, 0]))
    assert seen == {4, 5, 6, 7}
    window = shown.window(COUNTER.name, 3, source="teacher:1")
    assert window is not None
    assert window.observations["state"][0, 0] in (5, 7)
    with pytest.raises(ValueError, match="test/counter"):
        shown.window("test/nobody", 3)


@pytest.mark.parametrize("teacher_return", [0.0, -3.0])
def test_a_teacher_that_is_no_better_than_chance_does_not_measure_the_agent(
    tmp_path: Path, teacher_return: float
) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(counter_episode(1, source=AGENT, reward=-0.5), tokens=1)
    mix = Mixture(
        store, TASKS, LAYOUT, config().mix, seed=0, teacher_returns={COUNTER.name: teacher_return}
    )
    assert mix.sample(0) is None


def test_tasks_are_drawn_by_weight(tmp_path: Path) -> None:
    store, mix = make(tmp_path, config(rows=100, window_steps=1, weights=(3.0, 1.0)))
    store.add(picture_episode(0), tokens=1)
    share = np.mean(
        [np.mean(batch.task_index == 0) for index in range(20) if (batch := mix.sample(index))]
    )
    assert share == pytest.approx(0.75, abs=0.04)


def test_patches_in_a_batch_belong_to_their_actions(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(picture_episode(0), tokens=1)
    mix = Mixture(
        store,
        TASKS,
        LAYOUT,
        config(window_steps=2, weights=(1.0, 1.0)).mix,
        seed=0,
        teacher_returns={},
    )
    batch = mix.sample(0)
    assert batch is not None
    steps = batch.patches[:, 0, 0, 0].reshape(-1, 9)[:, 0]
    assert batch.ids[batch.place == PLACE_ACTION].tolist()[0] in range(20)
    actions = batch.ids[(batch.place == PLACE_ACTION) & (batch.segment > 0)]
    order = np.argsort(batch.patch_at.reshape(-1, 9)[:, 0])
    np.testing.assert_array_equal(steps[order], actions)


def test_the_agents_own_episodes_are_read_only_if_they_are_good(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(counter_episode(1, 10, source=AGENT, reward=0.5), tokens=1)  # half of the expert
    mix = Mixture(store, TASKS, LAYOUT, config().mix, seed=0, teacher_returns={})
    assert mix.sample(0) is None
    store.add(counter_episode(2, 10, source=AGENT, reward=0.9), tokens=1)
    batch = mix.sample(0)
    assert batch is not None
    assert {episode for window in windows_of(batch) for episode, _ in window} == {2}


def test_of_a_task_without_references_the_agents_own_play_is_read_only_where_all_of_it_is(
    tmp_path: Path,
) -> None:
    tasks = TASKS | {COUNTER.name: replace(COUNTER, references=None)}
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    store.add(counter_episode(1, 10, source=AGENT, reward=9.0), tokens=1)

    def mix(**settings: float | None) -> Mixture:
        return Mixture(
            store,
            tasks,
            LAYOUT,
            replace(config().mix, **settings),
            seed=0,
            teacher_returns={COUNTER.name: 9.0},
        )

    assert mix().sample(0) is None
    assert mix(min_agent_score=None).sample(0) is not None
    with pytest.raises(ValueError, match=r"min_demonstration_score 0\.5 .* has no references"):
        mix(min_demonstration_score=0.5)


def test_a_mix_that_cannot_be_is_refused(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    for tasks, message in [
        ({"nobody": TaskMix()}, "nobody"),
        ({COUNTER.name: TaskMix(window_steps=50)}, "raise row_tokens"),
        ({COUNTER.name: TaskMix(window_steps=10)}, "with its prompt.* set prompt_fraction=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Mixture(
                store,
                TASKS,
                LAYOUT,
                MixConfig(rows=1, row_tokens=40, tasks=tasks),
                seed=0,
                teacher_returns={},
            )
    assert PICTURES.name in TASKS


def batch_digests(folder: Path, *, conditioned: bool) -> dict[str, int]:
    store = EpisodeStore(folder, capacity_bytes=1 << 26)
    for number in range(5):
        store.add(counter_episode(number, 6 + number), tokens=1)
    for number in range(3):
        store.add(picture_episode(number), tokens=1)
    replay = config(rows=8, prompt_fraction=0.5, weights=(1.0, 1.0))
    layout = replace(LAYOUT, return_place=99 if conditioned else None)
    every = replace(replay.mix, min_expert_fraction=None)
    batch = Mixture(store, TASKS, layout, every, seed=5, teacher_returns={}).sample(3)
    assert batch is not None
    return {
        name: zlib.crc32(np.ascontiguousarray(values).tobytes())
        for name, values in batch.arrays().items()
    }


def test_without_returns_a_batch_is_what_it_was_before_there_were_any(tmp_path: Path) -> None:
    before = {
        "ids": 2807292201,
        "place": 21535587,
        "segment": 2529629493,
        "is_target": 758773465,
        "patches": 2223107744,
        "patch_at": 1990345663,
        "patch_intervals": 567662422,
        "patch_leaders": 3687987014,
        "task_index": 3062858237,
    }
    assert batch_digests(tmp_path / "off", conditioned=False) == before
    assert batch_digests(tmp_path / "on", conditioned=True)["ids"] != before["ids"]


def test_each_step_tells_the_sum_of_the_rewards_from_it_to_the_end_or_all_of_a_row_tell_nothing(
    tmp_path: Path,
) -> None:
    layout = replace(LAYOUT, return_place=99)
    store, _ = make(tmp_path, config(), steps=10)  # each step pays 1; the expert's return is 10
    replay = config(rows=40, row_tokens=45, window_steps=2, prompt_fraction=0.5, prompt_steps=2)
    mix = Mixture(
        store, TASKS, layout, replace(replay.mix, return_fraction=0.5), seed=3, teacher_returns={}
    )
    batch = mix.sample(0)
    assert batch is not None
    left = np.arange(10, 0, -1)
    of_step = encode(
        (left / 10).astype(np.float32), ArraySpec(kind=Kind.CONTINUOUS, shape=()), layout
    )[:, 0]
    told_rows: Counter[bool] = Counter()  # by whether the row has prompts
    for ids, segment in zip(batch.ids, batch.segment, strict=True):
        tokens = ids[segment > 0].reshape(-1, 5)  # return, episode, step, separator, action
        told = bool((tokens[:, 0] != layout.separator).all())
        expected = of_step[tokens[:, 2]] if told else np.full(len(tokens), layout.separator)
        np.testing.assert_array_equal(tokens[:, 0], expected)
        told_rows[np.count_nonzero(segment == 1) == 4 * 5] += told
    assert min(told_rows[False], told_rows[True]) >= 5
    assert told_rows.total() < 30
    shown = Demonstrations(store, TASKS, layout, replay.mix, seed=3, teacher_returns={}).window(
        COUNTER.name, 3
    )
    assert shown is not None
    assert shown.returns is not None
    assert shown.returns.tolist() == [10, 9, 8]
    with pytest.raises(ValueError, match="return_fraction"):
        replace(replay.mix, return_fraction=1.5)


def test_a_prompt_has_a_step_at_least() -> None:
    with pytest.raises(ValueError, match="for no prompts set prompt_fraction=0"):
        MixConfig(rows=1, row_tokens=40, prompt_steps=0)
