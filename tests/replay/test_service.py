"""The service: ingest, the waiting, the counts."""

import pickle
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.episode import AGENT, Episode
from gato.metrics import Amount
from gato.sequence import Batch
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.service import ReplayService
from replay.storage.record import MAGIC
from tests.replay.episodes import (
    COUNTER,
    LAYOUT,
    TASKS,
    config,
    counter_episode,
    picture_episode,
    to_bytes,
)
from tests.replay.faults.forge import record_of


def make(tmp_path: Path, replay: ReplayConfig | None = None) -> ReplayService:
    return ReplayService(tmp_path, TASKS, LAYOUT, replay or config(), seed=0)


def test_an_episode_is_stored_once_however_often_it_comes(tmp_path: Path) -> None:
    service = make(tmp_path)
    record = to_bytes(counter_episode(1))
    assert [service.add(record, timeout_s=1).status for _ in range(3)] == [
        "stored",
        "duplicate",
        "duplicate",
    ]
    assert (service.stats().duplicates, service.stats().episodes) == (2, {COUNTER.name: 1})


def bad_episodes() -> list[tuple[str, Episode | bytes]]:
    good, picture = counter_episode(1), picture_episode(1)
    rewards = good.rewards.copy()
    rewards[3] = np.nan
    record = bytearray(to_bytes(good))
    record[-1] ^= 1
    return [
        ("not finite", replace(good, rewards=rewards)),
        ("unknown task", replace(good, task="test/nobody")),
        ("wrong dtype", replace(good, actions=good.actions.astype(np.int32))),
        (
            "wrong shape",
            replace(picture, observations={"image": np.zeros((20, 48, 47, 3), np.uint8)}),
        ),
        ("wrong observations", replace(good, observations={"other": good.observations["state"]})),
        ("values out of range", replace(good, actions=good.actions + 5000)),
        ("damaged", bytes(record)),
        ("damaged", b"not an episode at all"),
    ]


@pytest.mark.parametrize(("reason", "episode"), bad_episodes())
def test_a_bad_episode_is_rejected_at_ingest_and_counted(
    tmp_path: Path, reason: str, episode: Episode | bytes
) -> None:
    service = make(tmp_path)
    added = service.add(episode if isinstance(episode, bytes) else to_bytes(episode), timeout_s=1)
    assert added.status == "rejected"
    assert reason in added.reason
    assert service.stats().refused == {reason: 1}
    assert service.next_batch(0, timeout_s=0) is None


HEADER = {
    "key": "k",
    "task": COUNTER.name,
    "source": "agent",
    "steps": 1,
    "terminated": True,
    "truncated": False,
    "seed": 0,
    "version": None,
    "info": {},
    "columns": {},
    "values": [],
}


@pytest.mark.parametrize(
    "record",
    [
        b"",
        MAGIC,
        record_of(b"\xff{"),
        record_of({}),
        record_of(b"[1]"),
        record_of(HEADER | {"source": ["a", "list"]}),
        record_of(HEADER | {"version": [1]}),
        record_of(HEADER | {"values": [[0, 0, 99]]}, b"12345678"),
        pickle.dumps(counter_episode(1)),
    ],
)
def test_anything_else_is_rejected_and_not_raised(tmp_path: Path, record: bytes) -> None:
    service = make(tmp_path)
    added = service.add(record, timeout_s=1)
    assert added.status == "rejected"
    assert service.stats().refused == {"damaged": 1}
    assert service.add(to_bytes(counter_episode(1)), timeout_s=1).status == "stored"


def test_readers_wait_until_the_warm_up_is_over(tmp_path: Path) -> None:
    service = make(tmp_path, config(limiter=LimiterConfig(warmup_tokens=80)))
    assert service.next_batch(0, timeout_s=0.0) is None
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(service.next_batch(0, timeout_s=30.0)))
    reader.start()
    for number in range(2):  # 40 tokens each
        service.add(to_bytes(counter_episode(number)), timeout_s=1)
    reader.join()
    assert got[0] is not None


def test_of_several_batches_the_first_is_waited_for_and_the_limiter_ends_the_others(
    tmp_path: Path,
) -> None:
    limiter = LimiterConfig(warmup_tokens=80, reads_per_inserted_token=20.0, slack_tokens=100)
    service = make(tmp_path / "several", config(limiter=limiter))
    alone = make(tmp_path / "alone", config(limiter=limiter))
    got: list[list[Batch]] = []
    reader = threading.Thread(
        target=lambda: got.append(service.next_batches([3, 1, 4, 1, 5, 9, 2], timeout_s=30.0))
    )
    reader.start()
    for number in range(2):  # 40 tokens each
        service.add(to_bytes(counter_episode(number)), timeout_s=1)
        alone.add(to_bytes(counter_episode(number)), timeout_s=1)
    reader.join()
    # 80 * 20 tokens are owed and 100 may be read beyond them: six batches of 8 x 40 tokens.
    assert len(got[0]) == 6
    assert service.stats().read_tokens == sum(batch.num_tokens for batch in got[0])
    assert service.next_batches([2], timeout_s=0.0) == []
    for index, batch in zip([3, 1, 4, 1, 5, 9], got[0], strict=True):
        expected = alone.next_batch(index, timeout_s=1)
        assert expected is not None
        np.testing.assert_array_equal(batch.ids, expected.ids)


def test_what_is_stored_is_counted_by_task_and_kind_of_source(tmp_path: Path) -> None:
    service = make(tmp_path)
    for number, source in enumerate((AGENT, "teacher:one", "teacher:two")):
        service.add(to_bytes(counter_episode(number, source=source)), timeout_s=1)
    steps = counter_episode(0).num_steps
    assert service.stats().sources == {
        COUNTER.name: {
            AGENT.partition(":")[0]: Amount(episodes=1, steps=steps),
            "teacher": Amount(episodes=2, steps=2 * steps),
        }
    }


def test_writers_are_held_back_and_readers_let_them_go_on(tmp_path: Path) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=10.0, slack_tokens=100)
    service = make(tmp_path, config(limiter=limiter))
    assert service.add(to_bytes(counter_episode(0)), timeout_s=1).status == "stored"
    assert service.add(to_bytes(counter_episode(1)), timeout_s=0.0).status == "wait"
    assert service.next_batch(0, timeout_s=1) is not None
    assert service.add(to_bytes(counter_episode(1)), timeout_s=1).status == "stored"
    for index in range(1, 20):
        service.next_batch(index, timeout_s=0)
    stats = service.stats()
    assert abs(stats.inserted_tokens * 10.0 - stats.read_tokens) <= 100 + 8 * 40


def test_writers_are_not_held_back_for_readers_who_have_nothing_to_read(tmp_path: Path) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=10.0, slack_tokens=10)
    service = make(tmp_path, config(limiter=limiter))
    for number in range(4):  # too poor to be read
        poor = counter_episode(number, source=AGENT, reward=0.0)
        assert service.add(to_bytes(poor), timeout_s=0).status == "stored"
        assert service.next_batch(number, timeout_s=0) is None
    assert service.stats().may_insert
    assert service.add(to_bytes(counter_episode(9, source=AGENT)), timeout_s=0).status == "stored"
    assert service.next_batch(4, timeout_s=0) is not None
    assert service.add(to_bytes(counter_episode(10, source=AGENT)), timeout_s=0).status == "wait"


def test_a_crash_forgets_less_than_half_of_the_slack(tmp_path: Path) -> None:
    limiter = LimiterConfig(warmup_tokens=0, reads_per_inserted_token=1000.0, slack_tokens=2000)
    service = make(tmp_path / "live", config(limiter=limiter))
    service.add(to_bytes(counter_episode(0)), timeout_s=1)
    for index in range(20):
        assert service.next_batch(index, timeout_s=1) is not None
        shutil.copytree(tmp_path / "live", tmp_path / f"crashed{index}")
        after = make(tmp_path / f"crashed{index}", config(limiter=limiter))
        assert 0 <= service.stats().read_tokens - after.stats().read_tokens <= 2000 / 2
        after.close()


def test_a_full_replay_rejects_demonstrations_and_says_so(tmp_path: Path) -> None:
    service = make(tmp_path, config(capacity_bytes=1 << 20))
    statuses = [service.add(to_bytes(counter_episode(n, 900)), timeout_s=1) for n in range(60)]
    assert statuses[0].status == "stored"
    assert statuses[-1].status == "rejected"
    assert "raise capacity_bytes" in statuses[-1].reason
    assert set(service.stats().refused) == {"replay full"}
    assert service.stats().fill <= 1.0
    assert service.next_batch(0, timeout_s=1) is not None


def test_after_close_everyone_gets_nothing(tmp_path: Path) -> None:
    service = make(tmp_path)
    service.add(to_bytes(counter_episode(0)), timeout_s=1)
    assert service.demonstration(COUNTER.name, 3) is not None
    service.close()
    service.close()
    assert service.add(to_bytes(counter_episode(1)), timeout_s=60).status == "wait"
    assert service.next_batch(0, timeout_s=60) is None
    assert service.demonstration(COUNTER.name, 3) is None


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
    service.add(to_bytes(counter_episode(0)), timeout_s=1)
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
