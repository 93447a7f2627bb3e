"""Races: readers, writers, evictions, damage, priorities and closing, all at once."""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gato.episode import AGENT
from gato.sequence import Batch
from gato.version import Version
from replay.sampling.candidates import scores
from replay.sampling.config import TableConfig
from replay.service import ReplayService
from replay.storage.column_reader import EpisodeGone
from replay.storage.header import DamagedEpisode
from replay.storage.index import Index
from replay.storage.record import pack, record_to_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, config, counter_episode, picture_episode

WAIT_S = 60
"""Beyond which a thread counts as hung."""


def run_all(*works: Callable[[], object]) -> None:
    """Run each in a thread; raise what any raised. None may hang."""
    problems: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=WAIT_S)
    assert not problems, problems
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def test_an_episode_that_makes_room_while_it_is_read_is_gone_and_not_damaged(
    tmp_path: Path,
) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 20)
    first = store.add(counter_episode(0, 900, source=AGENT), tokens=1)
    assert first is not None
    met: list[str] = []
    forget = store._forget

    def read_before_it_is_forgotten(victims: object) -> None:
        try:
            store.episode(first)
        except EpisodeGone:
            met.append("gone")
        except DamagedEpisode as damaged:
            met.append("damaged")
            store.quarantine(first, str(damaged))
        forget(victims)

    store._forget = read_before_it_is_forgotten
    number = 1
    while "gone" not in met and "damaged" not in met:
        store.add(counter_episode(number, 900, source=AGENT), tokens=1)
        number += 1
    assert met == ["gone"]
    store.close()
    assert EpisodeStore(tmp_path, capacity_bytes=1 << 20).damaged == {}


def counters_in(batch: Batch) -> list[list[tuple[int, int]]]:
    """(episode, step) of each step of each window of counter episodes."""
    return [
        window
        for windows in windows_by_row(batch, list(TASKS).index(COUNTER.name))
        for window in windows
    ]


def windows_by_row(batch: Batch, task: int) -> list[list[list[tuple[int, int]]]]:
    rows: list[list[list[tuple[int, int]]]] = []
    for ids, segment, its_task in zip(batch.ids, batch.segment, batch.task_index, strict=True):
        if its_task == task:
            windows = [ids[segment == part].reshape(-1, 4) for part in range(1, segment.max() + 1)]
            assert all((tokens[:, 1] == tokens[:, 3]).all() for tokens in windows)
            rows.append([[(int(row[0]), int(row[1])) for row in tokens] for tokens in windows])
    return rows


@pytest.mark.parametrize("selector", ["uniform", "prioritized:0.7", "lifo"])
def test_everything_at_once_tears_no_window_and_loses_no_thread(
    tmp_path: Path, eager_switches: None, selector: str
) -> None:
    num_writers, num_each, num_batches = 8, 40, 60
    replay = config(capacity_bytes=1 << 20, row_tokens=44, weights=(1.0, 0.2), prompt_fraction=0.3)
    replay = replace(
        replay,
        mix=replace(
            replay.mix, tables={"all": TableConfig(selector=selector)}, min_agent_score=None
        ),
        cache_bytes=1 << 20,
    )
    service = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    stored: dict[int, int] = {}
    drawn: list[tuple[int, int]] = []
    quarantined: set[str] = set()

    def write(writer: int) -> None:
        rng = np.random.default_rng(writer)
        for nth in range(num_each):
            number, steps = writer * num_each + nth, int(rng.integers(2, 900))
            episode = counter_episode(number, steps, key=f"w{writer}.1.{nth}", source=AGENT)
            if nth % 10 == 9:
                episode = replace(
                    picture_episode(number % 200, steps=9), key=f"w{writer}.2.{nth}", source=AGENT
                )
            else:
                stored[number] = steps
            assert service.add(record_to_bytes(pack(episode)), timeout_s=WAIT_S).status == "stored"
            assert (
                service.add(record_to_bytes(pack(episode)), timeout_s=WAIT_S).status == "duplicate"
            )

    def read(reader: int) -> None:
        for nth in range(num_batches):
            sample = service.next_sample(reader * num_batches + nth, timeout_s=WAIT_S)
            assert sample is not None
            for window in counters_in(sample.batch):
                breaks = [
                    at
                    for at, (here, later) in enumerate(pairwise(window))
                    if later != (here[0], here[1] + 1)
                ]
                assert len(breaks) <= 1  # where the prompt ends
                drawn.extend(window)
            service.update_priorities({key: float(nth % 7) + 0.1 for key in sample.info.key if key})

    def damage() -> None:
        rng = np.random.default_rng(99)
        while len(quarantined) < 20:
            headers = list(service._store.episodes.values())
            if headers:
                header = headers[int(rng.integers(len(headers)))]
                service._store.quarantine(header, "for the test")
                quarantined.add(header.key)

    def publish() -> None:
        for number in range(200):
            service.published(Version(1, number))
            service.stats()
            service.demonstration(COUNTER.name, 3)
            service.keys()

    run_all(
        *[lambda w=w: write(w) for w in range(num_writers)],
        *[lambda r=r: read(r) for r in range(3)],
        damage,
        publish,
    )
    stats = service.stats()
    assert {number for number, _ in drawn} <= set(stored)
    assert all(step < stored[number] for number, step in drawn)
    assert stats.evicted > 0
    assert set(service._store.damaged.values()) <= {"for the test"}
    service.close()
    after = EpisodeStore(tmp_path, capacity_bytes=1 << 20)
    assert set(after.damaged.values()) <= {"for the test"}
    for header in after.episodes.values():
        after.episode(header)
    after.close()


def test_a_task_that_is_new_disturbs_nobody_who_looks_at_the_index(eager_switches: None) -> None:
    index = Index()
    header = pack(counter_episode(0)).header
    is_done = threading.Event()

    def add() -> None:
        for number in range(1500):
            index.add([replace(header, number=number, task=f"test/{number}", source=f"s{number}")])
        is_done.set()

    def look() -> None:
        while not is_done.is_set():
            snapshot = index.snapshot()
            assert len(scores(snapshot, index.tasks, TASKS)) == len(snapshot.number)

    run_all(add, look, look)
