"""Shards: each episode has one home, batches come from whoever can serve, ranks never read the
same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from ray._private.internal_api import node_stats

from gato.episode import AGENT
from gato.metrics import Amount, ReplayStats
from replay.clients import RemoteBatchSource, RemoteEpisodeSink
from replay.rate_limiter import LimiterConfig
from replay.read_ahead import MAX_GROUP
from replay.service import ReplayService
from replay.shards import batch_number, merged, shard_folder, shard_of
from replay.storage.dedup import split_key
from replay.storage.lock import WRITING, FolderLock
from replay.storage.record import pack, record_to_bytes
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode
from tests.replay.local import batch_from, keys_of, kill, start


@given(st.integers(1, 9), st.sampled_from(["w0.4f2a.", "d4rl:hopper:9c:", "w1.77."]))
def test_a_writers_episodes_go_to_all_shards_in_turn(num_shards: int, stream: str) -> None:
    homes = [
        shard_of(split_key(f"{stream}{number}"), num_shards) for number in range(6 * num_shards)
    ]
    assert set(Counter(homes).values()) == {6}
    assert homes[num_shards:] == homes[:-num_shards]  # every num_shards-th number has the same home


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 30))
def test_no_two_ranks_ever_read_the_same_number(num_ranks: int, most: int, first: int) -> None:
    numbers = [
        batch_number(index, rank, num_ranks)
        for rank in range(num_ranks)
        for index in range(first, first + most)
    ]
    assert sorted(numbers) == list(range(first * num_ranks, (first + most) * num_ranks))
    with pytest.raises(ValueError, match="count from 0"):
        batch_number(0, num_ranks, num_ranks)


def test_all_shards_are_one_replay_in_the_stats() -> None:
    one = ReplayStats(
        episodes={"a": 2},
        steps=5,
        inserted_tokens=50,
        read_tokens=7,
        stored_bytes=9,
        capacity_bytes=100,
        refused={"damaged": 1},
        sources={"a": {"teacher": Amount(episodes=2, steps=5)}},
        who_waits="nobody waits",
        owed_tokens=30.0,
    )
    other = replace(
        one,
        episodes={"a": 1, "b": 4},
        refused={"damaged": 2, "too large": 1},
        may_insert=False,
        owed_tokens=-50.0,
    )
    both = merged([one, other])
    assert (both.episodes, both.steps, both.refused) == (
        {"a": 3, "b": 4},
        10,
        {"damaged": 3, "too large": 1},
    )
    assert both.sources == {"a": {"teacher": Amount(episodes=4, steps=10)}}
    assert not both.may_insert
    assert both.owed_tokens == -20.0
    assert both.who_waits == "nobody waits"
    assert merged([one]) is one


def test_a_store_is_not_opened_with_another_number_of_shards(tmp_path: Path) -> None:
    two = replace(config(), num_shards=2)
    ReplayService(tmp_path, TASKS, LAYOUT, two.of_one_shard(), seed=0).close()
    with pytest.raises(ValueError, match=r"replay\.num_shards=2"):
        ReplayService(tmp_path, TASKS, LAYOUT, config(), seed=0)


# What follows runs on a local Ray.


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_two_shards_hold_every_episode_once_and_serve_what_each_would_alone(
    local_ray: None, tmp_path: Path
) -> None:
    two = replace(config(prompt_fraction=0.5), num_shards=2)
    shards = start(tmp_path / "there", two)
    sink = RemoteEpisodeSink(shards)
    here = [
        ReplayService(
            shard_folder(tmp_path / "here", shard, 2),
            TASKS,
            LAYOUT,
            two.of_one_shard(),
            seed=3,
            shard=shard,
        )
        for shard in range(2)
    ]
    stray = counter_episode(0, key="w.1.0")
    wrong = here[1 - shard_of(split_key(stray.key), 2)].add(
        record_to_bytes(pack(stray)), timeout_s=1
    )
    assert (wrong.status, "belongs to shard" in wrong.reason) == ("rejected", True)
    for number in range(12):
        episode = counter_episode(number, key=f"w.1.{number}")
        assert [sink.add(episode).status for _ in range(2)] == ["stored", "duplicate"]
        here[shard_of(split_key(episode.key), 2)].add(record_to_bytes(pack(episode)), timeout_s=1)
    assert keys_of(shards) == sorted(f"w.1.{number}" for number in range(12))
    assert [len(one.keys()) for one in here] == [6, 6]
    assert shards.stats().duplicates == 12
    ranks = [RemoteBatchSource(shards, rank=rank, num_ranks=3) for rank in range(3)]
    for index in range(4):
        for rank, source in enumerate(ranks):
            number = 3 * index + rank
            expected = here[number % 2].next_batch(number, timeout_s=1)
            assert expected is not None
            np.testing.assert_array_equal(batch_from(source, index).ids, expected.ids)
    assert shards.update_priorities({"w.1.0": 2.0, "w.1.1": 0.5, "nobody.1.0": 1.0}) == 2
    shards.close()


def test_the_death_of_one_shard_stops_neither_readers_nor_the_writers_of_the_other(
    local_ray: None, tmp_path: Path
) -> None:
    shards = start(tmp_path, replace(config(), num_shards=2))
    sink, source = RemoteEpisodeSink(shards, patience_s=60.0), RemoteBatchSource(shards)
    for number in range(8):
        assert sink.add(counter_episode(number, key=f"w.1.{number}")).status == "stored"
    batch_from(source, 0)
    dead = shard_of(split_key("w.1.8"), 2)
    kill(shards, dead)
    # so it cannot come back yet
    held = FolderLock(shard_folder(tmp_path, dead, 2), WRITING, wait_s=20.0)
    for index in range(1, 11):  # half of them have their home there
        batch_from(source, index)
    assert sink.add(counter_episode(9, key="w.1.9")).status == "stored"  # the living shard's
    back = shards.actors[dead].pid.remote()
    assert not ray.wait([back], timeout=0.1)[0]
    held.release()
    assert sink.add(counter_episode(8, key="w.1.8")).status == "stored"
    assert keys_of(shards) == sorted(f"w.1.{number}" for number in range(10))
    assert shards.stats().incarnation >= 3
    shards.close()


def test_shards_of_unequal_share_do_not_stop_each_other(local_ray: None, tmp_path: Path) -> None:
    """Where one shard got little its readers are ahead of its writers; the others serve, and one
    side can always move."""
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=40.0, slack_tokens=400)
    shards = start(tmp_path, replace(config(limiter=limiter), num_shards=2))
    sink, source = RemoteEpisodeSink(shards), RemoteBatchSource(shards)
    lengths = {0: 40, 1: 2}  # steps of the episodes of each shard
    stored = index = 0
    while stored < 12:
        key = f"w.1.{stored}"
        held = [
            ray.get(a.stats.remote()).may_insert
            for s, a in enumerate(shards.actors)
            if s == shard_of(split_key(key), 2)
        ]
        if held[0]:
            episode = counter_episode(
                stored, lengths[shard_of(split_key(key), 2)], key=key, source=AGENT
            )
            assert sink.add(episode).status == "stored"
            stored += 1
        else:
            assert source.next_batch(index, timeout_s=20.0) is not None
            index += 1
    for one in [ray.get(actor.stats.remote()) for actor in shards.actors]:
        assert abs(one.inserted_tokens * 40.0 - one.read_tokens) <= 200 + max(8 * 40, 40 * 160)
    shards.close()


@pytest.mark.parametrize(("rows", "most_ahead"), [(400, 2 * 2 * MAX_GROUP), (4200, 3)])
def test_batches_asked_in_advance_are_all_that_the_object_store_holds(
    local_ray: None, tmp_path: Path, rows: int, most_ahead: int
) -> None:
    """Of 2 MB and of 22 MB, for a learner that waits for each of them."""
    shards = start(tmp_path, replace(config(rows=rows, row_tokens=400), num_shards=2))
    sink, source = RemoteEpisodeSink(shards), RemoteBatchSource(shards, prefetch=3)
    for number in range(4):
        sink.add(counter_episode(number, key=f"w.1.{number}"))
    size = sum(array.nbytes for array in batch_from(source, 0).arrays().values())
    num_read = 2 * most_ahead + 6
    for index in range(1, num_read):
        batch_from(source, index)
    # Of the batches that one call brought some may have been read: they are one object.
    most = most_ahead + (MAX_GROUP if most_ahead > 3 else 1)
    node = ray.nodes()[0]
    place = node["NodeManagerAddress"], node["NodeManagerPort"]
    used = [num_read * size]
    deadline = time.monotonic() + 30
    # Ray lets objects go a little after their last use, and draws the next ones meanwhile
    while not 2 * size <= used[-1] <= most * size and time.monotonic() < deadline:
        used.append(
            node_stats(*place, include_memory_info=False).store_stats.object_store_bytes_used
        )
    assert 2 * size <= used[-1] <= most * size
    shards.close()
