"""Batches of stored episodes, read without the service."""

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.sequence import Batch
from replay.config import ReplayConfig
from replay.sampling.config import TableConfig
from replay.service import ReplayService
from replay.storage.store import EpisodeStore
from replay.stored_batches import StoredBatches
from tests.cluster.hosts import ROOT
from tests.replay.episodes import (
    COUNTER,
    LAYOUT,
    TASKS,
    config,
    counter_episode,
    flip_a_bit,
    to_bytes,
)


def fill(folder: Path, numbers: range) -> Path:
    with closing(ReplayService(folder, TASKS, LAYOUT, config(), seed=0)) as service:
        for number in numbers:
            assert service.add(to_bytes(counter_episode(number)), timeout_s=1).status == "stored"
    return folder


def opened(folder: Path) -> EpisodeStore:
    return EpisodeStore(folder, capacity_bytes=64 << 20, read_only=True)


def batches_of(*stores: EpisodeStore, replay: ReplayConfig | None = None) -> StoredBatches:
    return StoredBatches(stores, TASKS, LAYOUT, replay or config(), seed=0, teacher_returns={})


def same(one: Batch | None, other: Batch | None) -> bool:
    assert one is not None
    assert other is not None
    ours, theirs = one.arrays(), other.arrays()
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_batches_are_those_that_the_service_draws(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    with closing(ReplayService(tmp_path, TASKS, LAYOUT, config(), seed=0)) as service:
        drawn = [service.next_batch(index, timeout_s=1) for index in range(4)]
    with closing(opened(tmp_path)) as store:
        batches = batches_of(store)
        for index in (3, 0, 2, 1):  # in any order: a training goes on anywhere
            assert same(batches.next_batch(index, timeout_s=1), drawn[index])


def test_shards_take_turns_and_an_empty_one_leaves_its_turn(tmp_path: Path) -> None:
    full, other = fill(tmp_path / "a", range(10)), fill(tmp_path / "b", range(10, 20))
    empty = fill(tmp_path / "c", range(0))
    with closing(opened(full)) as a, closing(opened(other)) as b, closing(opened(empty)) as c:
        both = batches_of(a, b)
        assert same(both.next_batch(2, timeout_s=1), batches_of(a).next_batch(2, timeout_s=1))
        assert same(both.next_batch(3, timeout_s=1), batches_of(b).next_batch(3, timeout_s=1))
        gap = batches_of(c, a)
        assert same(gap.next_batch(2, timeout_s=1), batches_of(a).next_batch(2, timeout_s=1))
        prompt = gap.demonstration(COUNTER.name, 3)
        assert prompt is not None
        assert len(prompt.actions) == 3


def test_nothing_to_draw_is_an_error_and_no_waiting(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    strict = config()
    strict = replace(strict, mix=replace(strict.mix, min_demonstration_score=5.0))
    with (
        closing(opened(tmp_path)) as store,
        pytest.raises(ValueError, match=r"no stored episode of .* may be drawn"),
    ):
        batches_of(store, replay=strict)


def test_limits_on_draws_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    counted = config()
    counted = replace(
        counted, mix=replace(counted.mix, tables={"all": TableConfig(max_times_sampled=2)})
    )
    with closing(opened(tmp_path)) as store, pytest.raises(ValueError, match="max_times_sampled"):
        batches_of(store, replay=counted)


def test_a_damaged_episode_is_left_out_and_the_last_one_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    flip_a_bit(tmp_path, number=0)
    with closing(opened(tmp_path)) as store:
        for index in range(4):
            assert batches_of(store).next_batch(index, timeout_s=1) is not None
        assert len(store.episodes) == 1
    flip_a_bit(tmp_path, number=1)
    with closing(opened(tmp_path)) as store:
        batches = batches_of(store)
        with pytest.raises(ValueError, match="are damaged"):
            batches.next_batch(0, timeout_s=1)


ROOM = replace(config(capacity_bytes=1 << 20), evict="all")


def fill_until_evicted(folder: Path, numbers: range, steps: int) -> None:
    with closing(ReplayService(folder, TASKS, LAYOUT, ROOM, seed=0)) as service:
        for number in numbers:
            episode = counter_episode(number, steps)
            assert service.add(to_bytes(episode), timeout_s=1).status == "stored"


def test_what_the_owner_of_the_store_evicts_is_not_drawn_again_for_ever(tmp_path: Path) -> None:
    """A run that goes on beside a sweep over its replay."""
    fill_until_evicted(tmp_path, range(5), 10)
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.replay.test_stored_batches import fill_until_evicted\n"
        "fill_until_evicted(Path(sys.argv[1]), range(5, 205), 900)\n"
    )
    with closing(EpisodeStore(tmp_path, capacity_bytes=1 << 20, read_only=True)) as store:
        batches = batches_of(store, replay=ROOM)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        with pytest.raises(ValueError, match="or their run has evicted them"):
            batches.next_batch(1, timeout_s=0.1)
        assert not store.episodes
