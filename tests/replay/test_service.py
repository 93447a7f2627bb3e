"""The service: the door, the waiting, the counts."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.episode import Episode, episode_to_bytes
from replay.config import LimiterConfig, ReplayConfig
from replay.service import ReplayService
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, config, counter_episode, picture_episode


def make(tmp_path: Path, replay: ReplayConfig | None = None) -> ReplayService:
    return ReplayService(tmp_path, TASKS, LAYOUT, replay or config(), seed=0)


def test_an_episode_is_stored_once_however_often_it_comes(tmp_path: Path) -> None:
    service = make(tmp_path)
    record = episode_to_bytes(counter_episode(1))
    assert [service.add(record, timeout_s=1).status for _ in range(3)] == ["stored", "duplicate", "duplicate"]
    assert (service.stats().duplicates, service.stats().episodes) == (2, {COUNTER.name: 1})


def bad_episodes() -> list[tuple[str, Episode | bytes]]:
    good, picture = counter_episode(1), picture_episode(1)
    rewards = good.rewards.copy()
    rewards[3] = np.nan
    record = bytearray(episode_to_bytes(good))
    record[-1] ^= 1
    return [
        ("not finite", replace(good, rewards=rewards)),
        ("unknown task", replace(good, task="test/nobody")),
        ("wrong dtype", replace(good, actions=good.actions.astype(np.int32))),
        ("wrong shape", replace(picture, observations={"image": np.zeros((20, 48, 47, 3), np.uint8)})),
        ("wrong observations", replace(good, observations={"other": good.observations["state"]})),
        ("values out of range", replace(good, actions=good.actions + 5000)),
        ("damaged", bytes(record)),
        ("damaged", b"not an episode at all"),
    ]


@pytest.mark.parametrize(("reason", "episode"), bad_episodes())
def test_a_bad_episode_is_refused_at_the_door_and_counted(
    tmp_path: Path, reason: str, episode: Episode | bytes
) -> None:
    service = make(tmp_path)
    added = service.add(episode if isinstance(episode, bytes) else episode_to_bytes(episode), timeout_s=1)
    assert added.status == "refused"
    assert reason in added.reason
    assert service.stats().refused == {reason: 1}
    assert service.next_batch(0, timeout_s=0) is None


def test_readers_wait_until_the_warm_up_is_over(tmp_path: Path) -> None:
    service = make(tmp_path, config(limiter=LimiterConfig(warmup_tokens=80)))
    assert service.next_batch(0, timeout_s=0.0) is None
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(service.next_batch(0, timeout_s=30.0)))
    reader.start()
    for number in range(2):  # 40 tokens each
        service.add(episode_to_bytes(counter_episode(number)), timeout_s=1)
    reader.join()
    assert got[0] is not None


def test_writers_are_held_back_and_readers_let_them_go_on(tmp_path: Path) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=10.0, slack_tokens=100)
    service = make(tmp_path, config(limiter=limiter))
    assert service.add(episode_to_bytes(counter_episode(0)), timeout_s=1).status == "stored"
    assert service.add(episode_to_bytes(counter_episode(1)), timeout_s=0.0).status == "wait"
    assert service.next_batch(0, timeout_s=1) is not None
    assert service.add(episode_to_bytes(counter_episode(1)), timeout_s=1).status == "stored"
    for index in range(1, 20):
        service.next_batch(index, timeout_s=0)
    stats = service.stats()
    assert abs(stats.inserted_tokens * 10.0 - stats.read_tokens) <= 100 + 8 * 40


def test_close_wakes_everyone_with_nothing(tmp_path: Path) -> None:
    service = make(tmp_path, config(limiter=LimiterConfig(warmup_tokens=10**6)))
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(service.next_batch(0, timeout_s=60.0)))
    reader.start()
    while not service.stats().readers_waiting:
        pass
    service.close()
    reader.join(timeout=10)
    assert got == [None]


def test_counts_go_on_after_a_restart(tmp_path: Path) -> None:
    service = make(tmp_path)
    service.add(episode_to_bytes(counter_episode(0)), timeout_s=1)
    service.next_batch(0, timeout_s=1)
    before = service.stats()
    service.close()
    after = make(tmp_path).stats()
    assert (after.inserted_tokens, after.read_tokens, after.episodes) == (
        before.inserted_tokens,
        before.read_tokens,
        before.episodes,
    )
    assert after.incarnation == before.incarnation + 1
