"""Tables, selectors, staleness, priorities, sample info, removers: what a replay offers beside
batches of tokens."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.episode import AGENT, RELABELLED, Episode
from gato.version import Version
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TableConfig
from replay.sampling.mixture import Mixture
from replay.sampling.sample_info import Sample
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import (
    COUNTER,
    LAYOUT,
    PICTURES,
    TASKS,
    config,
    counter_episode,
    picture_episode,
)

ONE = {COUNTER.name: COUNTER}


def agent_episode(
    number: int, steps: int = 10, *, version: int | None = None, reward: float = 1.0
) -> Episode:
    episode = counter_episode(number, steps, source=AGENT, reward=reward)
    return replace(episode, version=Version(1, number if version is None else version))


def mixed(
    tmp_path: Path, episodes: list[Episode], tables: dict[str, TableConfig], **settings: object
) -> Mixture:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    for episode in episodes:
        store.add(episode, tokens=1)
    plain: dict[str, object] = {
        "rows": 40,
        "row_tokens": 40,
        "prompt_fraction": 0.0,
        "min_expert_fraction": None,
        "min_agent_score": None,
    }
    made = MixConfig(**(plain | settings), tables=tables)  # type: ignore[arg-type]
    return Mixture(store, ONE, LAYOUT, made, seed=1, teacher_returns={})


def drawn(mix: Mixture, index: int) -> Sample:
    sample = mix.sample_with_info(index)
    assert sample is not None
    return sample


def test_rows_are_shared_among_tables_and_each_shows_its_episodes(tmp_path: Path) -> None:
    episodes = [counter_episode(0), counter_episode(1), agent_episode(2), agent_episode(3)]
    tables = {
        "shown": TableConfig(episodes="demonstrations", share=3.0),
        "own": TableConfig(episodes="agent", share=1.0),
    }
    mix = mixed(tmp_path, episodes, tables)
    counts = Counter(key for index in range(40) for key in drawn(mix, index).info.key)
    assert (counts["k0"] + counts["k1"]) / counts.total() == pytest.approx(0.75, abs=0.04)
    assert set(counts) == {"k0", "k1", "k2", "k3"}


def test_relabelled_episodes_pass_the_filter_by_return_and_have_a_table_of_their_own(
    tmp_path: Path,
) -> None:
    own = [agent_episode(number, reward=0.0) for number in (2, 3)]
    relabelled = [
        replace(episode, key=f"r{episode.key}", source=RELABELLED, labels=episode.actions)
        for episode in own
    ]
    shown = [counter_episode(0), counter_episode(1)]
    tables = {
        "shown": TableConfig(episodes="demonstrations"),
        "told": TableConfig(episodes="relabelled"),
    }
    mix = mixed(tmp_path, [*shown, *own, *relabelled], tables, min_agent_score=0.8)
    counts = Counter(key for index in range(20) for key in drawn(mix, index).info.key)
    assert set(counts) == {"k0", "k1", "rk2", "rk3"}
    everything = mixed(
        tmp_path / "2", [*shown, *own, *relabelled], {"all": TableConfig()}, min_agent_score=0.8
    )
    assert {key for index in range(20) for key in drawn(everything, index).info.key} == {
        "k0",
        "k1",
        "rk2",
        "rk3",
    }


def test_a_table_with_nothing_to_read_leaves_its_rows_to_the_others(tmp_path: Path) -> None:
    tables = {
        "shown": TableConfig(episodes="demonstrations"),
        "own": TableConfig(episodes="agent", share=9.0),
    }
    mix = mixed(tmp_path, [counter_episode(0)], tables)
    assert set(drawn(mix, 0).info.key) == {"k0"}


def test_a_queue_gives_each_episode_as_often_as_it_may_be_sampled_and_then_nothing(
    tmp_path: Path,
) -> None:
    queue = {"queue": TableConfig(selector="fifo", max_times_sampled=3)}
    mix = mixed(tmp_path, [counter_episode(n, 10) for n in range(4)], queue, rows=5)
    keys = [key for index in range(2) for key in drawn(mix, index).info.key]
    assert keys == ["k0"] * 3 + ["k1"] * 3 + ["k2"] * 3 + ["k3"]
    last = drawn(mix, 2)
    assert last.info.key == ["k3"] * 2
    assert (last.batch.segment[2:] == 0).all()  # rows for which nothing was left
    assert mix.sample(3) is None
    assert not mix.can_sample()


def test_priorities_move_what_is_drawn_and_are_kept_with_the_times_sampled(tmp_path: Path) -> None:
    table = TableConfig(selector="prioritized:1.0")
    replay = replace(config(), mix=replace(config(rows=200).mix, tables={"all": table}))
    service = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    for number in range(3):
        service.add(record_to_bytes(pack(counter_episode(number))), timeout_s=1)
    assert service.update_priorities({"k0": 0.0, "k1": 3.0, "gone": 9.0}) == 2
    sample = service.next_sample(0, timeout_s=1)
    assert sample is not None
    counts = Counter(sample.info.key)
    assert counts["k0"] == 0
    assert counts["k1"] / counts["k2"] == pytest.approx(3.0, rel=0.3)
    by_key = dict(zip(sample.info.key, sample.info.probability, strict=True))
    assert by_key == {"k1": pytest.approx(0.75), "k2": pytest.approx(0.25)}
    assert dict(zip(sample.info.key, sample.info.times_sampled, strict=True)) == dict(counts)
    for bad in (float("nan"), -1.0, float("inf")):
        with pytest.raises(ValueError, match="nothing was changed"):
            service.update_priorities({"k2": 1.0, "k1": bad})
    state = service._store.index.state()
    service.close()
    again = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    assert again._store.index.state() == state
    first = again.next_batch(1, timeout_s=1)
    again.update_priorities({"k0": 5.0, "k1": 0.0})
    other = again.next_batch(1, timeout_s=1)
    again._store.index.load(state)
    same = again.next_batch(1, timeout_s=1)
    assert first is not None
    assert other is not None
    assert same is not None
    np.testing.assert_array_equal(first.ids, same.ids)
    assert (first.ids != other.ids).any()


def test_priorities_survive_a_crash_as_they_were_last_saved(tmp_path: Path) -> None:
    table = TableConfig(selector="prioritized:1.0")
    replay = replace(config(), mix=replace(config().mix, tables={"all": table}))
    service = ReplayService(tmp_path / "live", TASKS, LAYOUT, replay, seed=0)
    for number in range(3):
        service.add(record_to_bytes(pack(counter_episode(number))), timeout_s=1)
    service.update_priorities({"k1": 7.0})
    assert service.next_batch(0, timeout_s=1) is not None  # the first to be read saves
    shutil.copytree(tmp_path / "live", tmp_path / "crashed")
    after = ReplayService(tmp_path / "crashed", TASKS, LAYOUT, replay, seed=0)
    assert after._store.index.state()["k1"][0] == 7.0
    assert after._store.index.state() == service._store.index.state()


def test_old_episodes_of_the_agent_are_dropped_and_demonstrations_never_age(tmp_path: Path) -> None:
    episodes = [
        counter_episode(0),
        agent_episode(1, version=1),
        agent_episode(2, version=4),
        agent_episode(3, version=6),
    ]
    mix = mixed(tmp_path, episodes, {"all": TableConfig()}, max_age_versions=2)
    assert set(drawn(mix, 0).info.key) == {"k0", "k2", "k3"}
    mix._store.index.published(Version(2, 9))
    assert set(drawn(mix, 0).info.key) == {"k0"}


def test_what_is_too_old_stays_so_over_a_restart(tmp_path: Path) -> None:
    replay = replace(config(), mix=replace(config().mix, max_age_versions=3, min_agent_score=None))
    service = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    for number in range(6):
        service.add(record_to_bytes(pack(agent_episode(number))), timeout_s=1)
    service.published(Version(1, 7))
    before = service.next_sample(0, timeout_s=1)
    service.close()
    after = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0).next_sample(0, timeout_s=1)
    assert before is not None
    assert after is not None
    assert set(before.info.key) == {"k4", "k5"}
    assert before.info.key == after.info.key


def test_damaged_demonstrations_make_room_where_they_may(tmp_path: Path) -> None:
    replay = replace(config(capacity_bytes=1 << 20), evict="all")
    service = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    for number in range(20):
        service.add(record_to_bytes(pack(counter_episode(number, 900))), timeout_s=1)
    for header in list(service._store.episodes.values())[:15]:
        service._store.quarantine(header, "for the test")
    for number in range(20, 45):
        assert (
            service.add(record_to_bytes(pack(counter_episode(number, 900))), timeout_s=1).status
            == "stored"
        )
    assert len(service.keys()) > 20
    assert not service._store.taken_out


def test_age_halves_the_weight_and_is_told(tmp_path: Path) -> None:
    episodes = [
        agent_episode(1, version=1),
        agent_episode(2, version=3),
        agent_episode(3, version=5),
    ]
    mix = mixed(tmp_path, episodes, {"all": TableConfig()}, age_half_life_versions=2.0, rows=4000)
    info = drawn(mix, 0).info
    counts = Counter(info.key)
    assert [counts[f"k{n}"] / 4000 for n in (1, 2, 3)] == pytest.approx(
        [1 / 7, 2 / 7, 4 / 7], abs=0.03
    )
    assert dict(zip(info.key, info.age_versions, strict=True)) == {"k1": 4, "k2": 2, "k3": 0}


def test_what_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="no age_half_life_versions can weigh"):
        MixConfig(
            rows=1,
            row_tokens=9,
            tables={"q": TableConfig(selector="fifo")},
            age_half_life_versions=1.0,
        )
    for settings, message in [
        ({"selector": "unifrom"}, "nearest is 'uniform'"),
        ({"episodes": "others"}, "'agent' or 'relabelled'"),
        ({"max_times_sampled": 0}, "without end"),
        ({"share": -1.0}, "at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            TableConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="make it the only one"):
        MixConfig(
            rows=1,
            row_tokens=9,
            tables={"q": TableConfig(max_times_sampled=1), "all": TableConfig()},
        )
    with pytest.raises(ValueError, match="no table has a share"):
        MixConfig(rows=1, row_tokens=9, tables={"q": TableConfig(share=0.0)})


def fill(tmp_path: Path, replay: ReplayConfig, returns: list[float]) -> ReplayService:
    service = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    for number, reward in enumerate(returns):
        episode = agent_episode(number, 900, reward=reward)
        assert service.add(record_to_bytes(pack(episode)), timeout_s=1).status == "stored"
    return service


@pytest.mark.parametrize(
    ("remover", "kept"),
    [("fifo", range(40, 60)), ("lifo", range(10)), ("lowest_return", range(0, 60, 3))],
)
def test_the_remover_says_who_makes_room(tmp_path: Path, remover: str, kept: range) -> None:
    returns = [1.0 if number % 3 == 0 else 0.1 for number in range(60)]
    service = fill(tmp_path, replace(config(capacity_bytes=1 << 20), remover=remover), returns)
    keys = set(service.keys())
    assert {f"k{number}" for number in kept} <= keys | {f"k{59}"}
    assert "k59" in keys  # what came last is there, whoever went
    stats = service.stats()
    assert stats.stored_bytes <= stats.capacity_bytes
    assert len(keys) + stats.evicted == 60
    assert (
        service.add(record_to_bytes(pack(agent_episode(0, 900))), timeout_s=1).status == "duplicate"
    )


def test_readers_are_not_held_back_for_writers_who_find_no_room(tmp_path: Path) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=0.001, slack_tokens=400)
    service = ReplayService(
        tmp_path, TASKS, LAYOUT, config(capacity_bytes=1 << 20, limiter=limiter), seed=0
    )
    number = 0
    while (
        service.add(record_to_bytes(pack(counter_episode(number, 900))), timeout_s=1).status
        == "stored"
    ):
        number += 1
        assert number < 100
    before = service.stats()
    for index in range(30):
        assert service.next_batch(index, timeout_s=5) is not None
    assert service.stats().read_tokens == before.read_tokens + 30 * 320
    # Once there is room again the ratio judges only what comes from then on.
    service._gate._admission.is_full = False
    assert service.next_batch(30, timeout_s=0) is not None


def test_a_pause_lets_an_offline_fill_in_and_new_settings_hold_from_then_on(tmp_path: Path) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=10.0, slack_tokens=100)
    service = ReplayService(tmp_path, TASKS, LAYOUT, config(limiter=limiter), seed=0)

    def add(number: int) -> str:
        return service.add(record_to_bytes(pack(counter_episode(number))), timeout_s=0).status

    assert add(0) == "stored"
    assert add(1) == "wait"
    assert "writers are held back" in service.stats().who_waits
    service.pause()
    assert [add(number) for number in range(1, 9)] == ["stored"] * 8
    service.resume()
    assert add(9) == "wait"  # as before the pause
    assert service.next_batch(0, timeout_s=1) is not None
    assert add(9) == "stored"
    unpaced = service.add(record_to_bytes(pack(counter_episode(11))), timeout_s=0, is_paced=False)
    assert unpaced.status == "stored"  # and counts: readers owe 400 more
    service.close()
    again = ReplayService(tmp_path, TASKS, LAYOUT, config(limiter=limiter), seed=0)
    assert again.stats().who_waits == "writers are held back until 780 tokens were read"
    again.reconfigure(LimiterConfig(warmup_tokens=0))
    assert again.add(record_to_bytes(pack(counter_episode(10))), timeout_s=0).status == "stored"


@pytest.mark.parametrize("cache_bytes", [1 << 24, 1 << 10])
def test_raw_windows_are_what_was_stored(tmp_path: Path, cache_bytes: int) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    for number in range(4):
        store.add(counter_episode(number, 5 + 9 * number), tokens=1)
        store.add(picture_episode(number, 4 + 7 * number), tokens=1)
    every = replace(config().mix, min_expert_fraction=None)
    mix = Mixture(store, TASKS, LAYOUT, every, seed=1, teacher_returns={}, cache_bytes=cache_bytes)
    by_key = {header.key: header for header in store.episodes.values()}
    for index in range(5):
        for task, name in ((COUNTER, "state"), (PICTURES, "image")):
            windows = mix.windows(index, num_windows=9, steps=12, task_name=task.name)
            assert windows is not None
            assert windows.observations[name].shape[:2] == (9, 12)
            for w, key in enumerate(windows.info.key):
                start, length = int(windows.info.start[w]), int(windows.length[w])
                episode = store.episode(by_key[key])
                assert length == min(12, episode.num_steps)
                steps = slice(start, start + length)
                np.testing.assert_array_equal(
                    windows.observations[name][w, :length], episode.observations[name][steps]
                )
                np.testing.assert_array_equal(windows.actions[w, :length], episode.actions[steps])
                np.testing.assert_array_equal(windows.rewards[w, :length], episode.rewards[steps])
                assert not windows.observations[name][w, length:].any()
                ends = start + length == episode.num_steps
                assert (windows.at_end[w], windows.terminated[w]) == (
                    ends,
                    ends and episode.terminated,
                )
    with pytest.raises(ValueError, match="name one of test/counter"):
        mix.windows(0, num_windows=1, steps=1)


def test_raw_windows_are_paced_and_told_like_batches(tmp_path: Path) -> None:
    service = ReplayService(
        tmp_path, ONE, LAYOUT, replace(config(), mix=MixConfig(rows=2, row_tokens=40)), seed=0
    )
    assert service.next_windows(0, num_windows=3, steps=4, timeout_s=0) is None
    service.add(record_to_bytes(pack(counter_episode(7))), timeout_s=1)
    windows = service.next_windows(0, num_windows=3, steps=4, timeout_s=1)
    assert windows is not None
    assert windows.info.key == ["k7"] * 3
    assert service.stats().read_tokens == 3 * 4 * 4
    with pytest.raises(ValueError, match="name one of test/counter"):
        service.next_windows(0, num_windows=1, steps=4, timeout_s=1, task_name="nope")
    with pytest.raises(ValueError, match="at least 1 window of 1 step"):
        service.next_windows(0, num_windows=0, steps=4, timeout_s=1)
    assert service.stats().read_tokens == 3 * 4 * 4  # nothing stays reserved
