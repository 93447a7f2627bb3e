"""The pace of readers and writers, and closing under them, with threads that do as they like."""

import threading
from pathlib import Path

import pytest

from gato.episode import AGENT
from replay.rate_limiter import LimiterConfig
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode
from tests.replay.faults.test_races import WAIT_S, run_all

RATIO, SLACK_TOKENS = 4.0, 2000
LIMITER = LimiterConfig(
    warmup_tokens=100, reads_per_inserted_token=RATIO, slack_tokens=SLACK_TOKENS
)
EPISODE_TOKENS, BATCH_TOKENS = 40, 8 * 40


def make(folder: Path, **settings: int) -> ReplayService:
    return ReplayService(folder, TASKS, LAYOUT, config(limiter=LIMITER, **settings), seed=0)


def record(key: str, steps: int = 10, source: str = "teacher:t") -> bytes:
    return record_to_bytes(pack(counter_episode(7, steps, key=key, source=source)))


def test_the_pace_is_kept_within_the_slack_by_all_threads_over_restarts(tmp_path: Path) -> None:
    num_writers, num_readers = 4, 4
    most_owed = SLACK_TOKENS + num_writers * EPISODE_TOKENS * RATIO + num_readers * BATCH_TOKENS
    lock = threading.Lock()
    written, read_tokens, batches = set[str](), [0], iter(range(10**9))

    for life in range(5):
        service = make(tmp_path)
        assert (service.stats().inserted_tokens, service.stats().read_tokens) == (
            len(written) * EPISODE_TOKENS,
            read_tokens[0],
        )
        enough = len(written) + 60

        def write(writer: int, service: ReplayService = service, life: int = life) -> None:
            for nth in range(10**6):
                key = f"w{writer}.{life}.{nth}"
                status = service.add(record(key), timeout_s=WAIT_S).status
                if status == "wait":
                    return
                with lock:
                    written.add(key)

        def read(service: ReplayService = service, enough: int = enough) -> None:
            while True:
                with lock:
                    index = next(batches)
                batch = service.next_batch(index, timeout_s=WAIT_S)
                if batch is None:
                    return
                stats = service.stats()
                assert abs(stats.inserted_tokens * RATIO - stats.read_tokens) <= most_owed
                with lock:
                    read_tokens[0] += batch.num_tokens
                    is_enough = len(written) >= enough
                if is_enough:
                    service.close()

        run_all(*[lambda w=w: write(w) for w in range(num_writers)], *[read] * num_readers)
        assert abs(len(written) * EPISODE_TOKENS * RATIO - read_tokens[0]) <= most_owed
    assert len(written) >= 300


def test_closing_waits_for_a_writer_that_was_let_in(tmp_path: Path) -> None:
    service = make(tmp_path)
    commit, close = service._committer.commit, service._store.close
    is_in, is_closed = threading.Event(), threading.Event()

    def late(record: object, tokens: int) -> object:
        is_in.set()
        is_closed.wait(0.2)  # if it were closed meanwhile, this would see it
        return commit(record, tokens)

    def close_store() -> None:
        close()
        is_closed.set()

    service._committer.commit, service._store.close = late, close_store
    statuses: list[str] = []
    writer = threading.Thread(
        target=lambda: statuses.append(service.add(record("w.0"), timeout_s=1).status)
    )
    writer.start()
    assert is_in.wait(WAIT_S)
    service.close()
    writer.join(WAIT_S)
    assert statuses == ["stored"]
    assert make(tmp_path).keys() == ["w.0"]


def test_a_batch_that_could_not_be_made_is_not_counted_as_read(tmp_path: Path) -> None:
    service = make(tmp_path)
    for number in range(5):
        service.add(record(f"w.{number}"), timeout_s=1)
    before = service.stats().read_tokens
    sample = service._mixture.sample

    def broken(index: int) -> object:
        raise MemoryError("no memory for the batch")

    service._mixture.sample = broken
    with pytest.raises(MemoryError):
        service.next_batch(0, timeout_s=0)
    assert service.stats().read_tokens == before
    service._mixture.sample = sample
    assert service.next_batch(0, timeout_s=0) is not None
    service.close()


def test_a_writer_that_failed_is_not_counted_as_having_written(tmp_path: Path) -> None:
    service = make(tmp_path)

    def broken(record: object, tokens: int) -> object:
        raise MemoryError("no memory for the commit")

    commit, service._committer.commit = service._committer.commit, broken
    with pytest.raises(MemoryError):
        service.add(record("w.0"), timeout_s=1)
    assert service.stats().inserted_tokens == 0
    service._committer.commit = commit
    assert service.add(record("w.0"), timeout_s=1).status == "stored"
    service.close()


def test_a_replay_that_is_full_of_demonstrations_holds_no_reader_back_and_counts_what_it_read(
    tmp_path: Path,
) -> None:
    service = make(tmp_path, capacity_bytes=1 << 20)
    number = 0
    while service.add(record(f"w.{number}", 900), timeout_s=0).status != "rejected":
        for index in range(60):
            service.next_batch(index, timeout_s=0)
        number += 1
    read_before, owed_before = service.stats().read_tokens, service.stats().owed_tokens
    for index in range(200):  # far beyond the slack
        assert service.next_batch(index, timeout_s=0) is not None
    assert service.stats().read_tokens - read_before == 200 * BATCH_TOKENS
    assert service.stats().owed_tokens == owed_before  # read beside the ratio
    assert service.add(record("agent.0", 900, AGENT), timeout_s=0).status == "rejected"
    assert service.add(record("small.0", 2), timeout_s=0).status in ("stored", "rejected")
    service.close()


def test_a_reader_that_closing_turned_away_is_not_counted_as_read(tmp_path: Path) -> None:
    service = make(tmp_path)
    for nth in range(10):
        service.add(record(f"w.{nth}"), timeout_s=WAIT_S)
    draw, is_in, goes_on = service._mixture.sample, threading.Event(), threading.Event()

    def slow(index: int) -> object:
        is_in.set()
        goes_on.wait(WAIT_S)
        return draw(index)

    service._mixture.sample = slow
    got: list[object] = []
    first, second = (
        threading.Thread(target=lambda i=i: got.append(service.next_batch(i, timeout_s=WAIT_S)))
        for i in range(2)
    )
    first.start()
    assert is_in.wait(WAIT_S)
    second.start()  # it has been let in and waits for the first to have drawn
    while service.stats().read_tokens < 2 * BATCH_TOKENS:
        threading.Event().wait(0.01)
    closing = threading.Thread(target=service.close)
    closing.start()
    while not service._gate.closed:
        threading.Event().wait(0.01)
    goes_on.set()
    for thread in (first, second, closing):
        thread.join(WAIT_S)
    num_read = sum(batch is not None for batch in got)
    assert make(tmp_path).stats().read_tokens == num_read * BATCH_TOKENS
