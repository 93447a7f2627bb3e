"""Replay in a process of its own: kill -9 loses nothing that was acknowledged, and both clients go
on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.exceptions import RayActorError

from gato.sequence import Batch
from replay.clients import RemoteBatchSource, RemoteEpisodeSink
from replay.rate_limiter import LimiterConfig
from replay.read_ahead import MAX_GROUP
from replay.remote import Shards
from replay.service import ReplayService
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, config, counter_episode, to_bytes
from tests.replay.local import batch_from, keys_of, kill, start


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_kill_nine_between_and_during_adds_loses_no_acknowledged_episode(tmp_path: Path) -> None:
    replay = start(tmp_path, config())
    sink = RemoteEpisodeSink(replay, patience_s=60.0)
    for number in range(6):
        assert sink.add(counter_episode(number)).status in ("stored", "duplicate")
    kill(replay)
    assert sink.add(counter_episode(6)).status in ("stored", "duplicate")
    # Calls that are under way when the process dies are made again by Ray, and count once.
    under_way = [
        replay.actors[0].add.remote(to_bytes(counter_episode(number)), 5.0, True)
        for number in range(7, 40)
    ]
    kill(replay)
    for number in range(7, 40):
        assert sink.add(counter_episode(number)).status in ("stored", "duplicate")
    ray.wait(under_way, num_returns=len(under_way), timeout=30)
    assert sink.add(counter_episode(0)).status == "duplicate"
    assert keys_of(replay) == sorted(f"k{number}" for number in range(40))
    stats = replay.stats()
    assert stats.incarnation >= 2
    assert stats.episodes == {COUNTER.name: 40}
    replay.close()


def here_and_there(folder: Path) -> tuple[ReplayService, Shards]:
    """Replay in this process and on Ray, with the same five episodes."""
    service = ReplayService(folder / "here", TASKS, LAYOUT, config(prompt_fraction=0.5), seed=3)
    replay = start(folder / "there", config(prompt_fraction=0.5))
    sink = RemoteEpisodeSink(replay)
    for number in range(5):
        service.add(to_bytes(counter_episode(number)), timeout_s=1)
        sink.add(counter_episode(number))
    return service, replay


def test_batches_go_on_after_kill_nine_and_are_those_of_replay_in_process(tmp_path: Path) -> None:
    service, replay = here_and_there(tmp_path)
    source = RemoteBatchSource(replay)
    for index in range(12):
        if index == 5:
            kill(replay)
        there, here = batch_from(source, index), service.next_batch(index, timeout_s=1)
        assert here is not None
        for name, array in here.arrays().items():
            np.testing.assert_array_equal(there.arrays()[name], array)
    kill(replay)
    # a learner that goes on from an older checkpoint asks for an older number
    again = batch_from(source, 2)
    expected = service.next_batch(2, timeout_s=1)
    assert expected is not None
    np.testing.assert_array_equal(again.ids, expected.ids)


def test_batches_read_without_a_pause_are_in_order_also_after_kill_nine(tmp_path: Path) -> None:
    service, replay = here_and_there(tmp_path)
    source = RemoteBatchSource(replay)
    pid = ray.get(replay.actors[0].pid.remote())
    found: list[Batch] = []
    for index in range(300):
        if index == 150:  # calls for several batches are under way
            os.kill(pid, signal.SIGKILL)
        found.append(batch_from(source, index))
    for index, there in enumerate(found):
        here = service.next_batch(index, timeout_s=1)
        assert here is not None
        np.testing.assert_array_equal(there.ids, here.ids)
    # Batches that were drawn and never read: those that were under way.
    read_tokens = replay.stats().read_tokens
    assert read_tokens <= sum(batch.num_tokens for batch in found) + 2 * MAX_GROUP * 8 * 40
    replay.close()


def test_a_reader_is_served_next_to_any_number_of_writers_that_are_held_back(
    tmp_path: Path,
) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=10_000.0, slack_tokens=10)
    replay = start(tmp_path, config(limiter=limiter))
    assert RemoteEpisodeSink(replay).add(counter_episode(0)).status == "stored"
    held = [
        replay.actors[0].add.remote(to_bytes(counter_episode(number)), 20.0, True)
        for number in range(1, 33)
    ]
    while not replay.stats().writers_waiting:
        pass
    begun_s = time.monotonic()
    assert RemoteBatchSource(replay).next_batch(0, timeout_s=15.0) is not None
    assert time.monotonic() - begun_s < 10.0
    replay.close()  # wakes them all
    assert {added.status for added in ray.get(held, timeout=30)} == {"wait"}


def test_a_sink_says_so_where_replay_is_gone_for_good(tmp_path: Path) -> None:
    replay = start(tmp_path, config())
    ray.get(replay.actors[0].pid.remote())
    ray.kill(replay.actors[0], no_restart=True)
    added = RemoteEpisodeSink(replay, patience_s=1.0).add(counter_episode(1))
    assert added.status == "wait"
    assert "did not answer" in added.reason
    assert RemoteBatchSource(replay).next_batch(0, timeout_s=1.0) is None
    with pytest.raises(RayActorError):
        keys_of(replay)
