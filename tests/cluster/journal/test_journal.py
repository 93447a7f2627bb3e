"""The journal gives back what was put in, in order, and once."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from cluster.journal.codec import decode, encode
from cluster.journal.journal import MAX_BLOCK_S, START, Journal
from cluster.journal.records import Event, Record
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer
from gato.metrics import Amount, Evaluation, LearnerReport, Mean, ReplayStats, WorkerReport
from gato.version import Version

RECORDS: list[Record] = [
    Evaluation(
        task="mujoco/hopper",
        version=Version(2, 7),
        learner_step=300,
        returns=(1.5, -2.25),
        env_steps=90,
        wall_s=1.25,
        worker="worker-1",
        warnings=("state[0]: 100 % of the values are clipped",),
    ),
    Evaluation(task="atari/pong", version=Version(1, 1), learner_step=0, failed="worker-1 died"),
    LearnerReport(
        step=10,
        num_updates=100,
        version=Version(1, 3),
        loss=Mean(12.5, 4),
        loss_by_task={"mujoco/hopper": Mean(3.0, 2), "atari/pong": Mean()},
        learning_rate=1e-4,
        gradient_norm=0.7,
        tokens=4096,
        wall_s=2.5,
        wait_s=0.125,
        blocked_s=0.25,
    ),
    WorkerReport(
        worker="worker-1",
        role="generate",
        task="mujoco/hopper",
        version=Version(1, 2),
        episodes=4,
        env_steps=4000,
        wall_s=3.5,
        wait_s=0.5,
        refused={"rewards is not finite at step 3": 2},
        returns=Mean(40.0, 4),
    ),
    WorkerReport(
        worker="w",
        role="demonstrate",
        task="mujoco/hopper",
        version=None,
        episodes=1,
        env_steps=10,
        wall_s=0.5,
    ),
    ReplayStats(
        episodes={"mujoco/hopper": 12},
        steps=12_000,
        inserted_tokens=180_000,
        read_tokens=90_000,
        stored_bytes=1_000_000,
        capacity_bytes=4_000_000,
        refused={"unknown task": 1},
        left_out={"mujoco/hopper": {"below 80% of the best": Amount(episodes=5, steps=700)}},
        duplicates=3,
        writers_waiting=1,
        readers_waiting=2,
        incarnation=2,
    ),
    Event(kind="worker died", text="worker-1: ≥ 1 «signal» 9", time_s=1.5),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with (
        RedisServer.start(tmp_path_factory.mktemp("redis")) as server,
        connect(server.url) as client,
    ):
        yield client


@pytest.fixture
def journal(client: redis.Redis, request: pytest.FixtureRequest) -> Journal:
    return Journal(client, request.node.name)


def test_every_kind_of_record_comes_back_as_it_was(journal: Journal) -> None:
    for record in RECORDS:
        journal.append(record)
    entries = journal.read()
    assert [entry.record for entry in entries] == RECORDS
    assert entries[-1].time_s == 1.5
    assert all(entry.time_s > 1e9 for entry in entries[:-1])


@given(total=st.floats(allow_nan=False), count=st.integers(0, 10**9), text=st.text())
def test_decoding_what_was_encoded_gives_the_record(total: float, count: int, text: str) -> None:
    record = WorkerReport(
        worker=text,
        role="demonstrate",
        task="t",
        version=None,
        episodes=1,
        env_steps=1,
        wall_s=1.0,
        refused={text: count},
        returns=Mean(total, count),
    )
    assert decode(encode(record, time_s=2.0)) == (2.0, record)


def test_numbers_that_are_not_finite_are_kept_in_valid_json() -> None:
    record = Evaluation(
        task="t", version=Version(1, 1), learner_step=1, returns=(math.nan, math.inf, -math.inf)
    )
    text = encode(record, time_s=1.0)
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    entry = decode(text)
    assert entry is not None
    assert isinstance(entry[1], Evaluation)
    assert math.isnan(entry[1].returns[0])
    assert entry[1].returns[1:] == (math.inf, -math.inf)


def test_reading_goes_on_after_any_entry(journal: Journal) -> None:
    for number in range(5):
        journal.append(Event(kind="n", text=str(number)))
    first = journal.read(count=2)
    rest = journal.read(first[-1].id)
    assert [e.record.text for e in first + rest if isinstance(e.record, Event)] == [
        "0",
        "1",
        "2",
        "3",
        "4",
    ]
    assert journal.read(rest[-1].id) == []


def test_a_reader_that_waits_is_woken_by_an_entry(journal: Journal, client: redis.Redis) -> None:
    late = threading.Thread(target=lambda: journal.append(Event(kind="late", text="")))
    late.start()
    assert [
        entry.record.kind for entry in journal.read(block_s=5.0) if isinstance(entry.record, Event)
    ] == ["late"]
    late.join()


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "Hologram", "time_s": 1, "record": {}}',
        '{"type": "Event", "time_s": 1, "record": {"kind": "x"}}',
        (
            '{"type": "Evaluation", "time_s": 1, "record": {"task": "t", "version": 3,'
            ' "learner_step": 1}}'
        ),
        "[]",
        "{",
        "",
    ],
)
def test_what_this_version_does_not_know_is_skipped(
    journal: Journal, client: redis.Redis, text: str
) -> None:
    for _ in range(3):
        client.xadd(f"gato:{journal.run}:journal", {"entry": text})
    journal.append(Event(kind="known", text="", time_s=1.0))
    assert [entry.record for entry in journal.read(count=2)] == [
        Event(kind="known", text="", time_s=1.0)
    ]


def test_fields_of_a_later_version_are_left_out() -> None:
    entry = json.loads(encode(RECORDS[0], time_s=1.0))
    entry["record"]["colour"] = "blue"
    assert decode(json.dumps(entry)) == (1.0, RECORDS[0])


def test_an_append_that_is_sent_twice_counts_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same:
        hex = "one"

    monkeypatch.setattr("cluster.journal.journal.uuid4", Same)
    journal.append(RECORDS[0])
    journal.append(RECORDS[0])
    assert len(journal.read()) == 1


def test_runs_do_not_see_each_other(client: redis.Redis) -> None:
    Journal(client, "one").append(RECORDS[0])
    assert Journal(client, "two").read() == []


def test_no_two_learners_share_an_epoch(journal: Journal, client: redis.Redis) -> None:
    other = Journal(client, journal.run)
    assert [journal.next_epoch(), other.next_epoch(), journal.next_epoch()] == [1, 2, 3]


def test_control_words_arrive_in_order_and_a_new_supervisor_skips_old_ones(
    journal: Journal,
) -> None:
    assert journal.last_control_id() == START
    journal.post_control("scale", 3)
    listen_from = journal.last_control_id()
    journal.post_control("stop")
    assert [(c.word, c.value) for c in journal.read_control()] == [("scale", "3"), ("stop", "")]
    assert [c.word for c in journal.read_control(listen_from)] == ["stop"]


def test_reading_ends_when_the_journal_is_closed(journal: Journal) -> None:
    for record in RECORDS:
        journal.append(record)
    entries = journal.read()
    assert [entry.record for entry in entries] == RECORDS
    threading.Timer(0.2, journal.close).start()
    began = time.monotonic()
    assert journal.read(entries[-1].id, block_s=60.0) == []
    assert time.monotonic() - began < 2 * MAX_BLOCK_S


def test_nothing_acknowledged_is_missing_after_kill_nine_and_a_reader_goes_on(
    tmp_path: Path,
) -> None:
    server = RedisServer.start(tmp_path)
    with connect(server.url) as writer, connect(server.url) as other:
        journal, reader = Journal(writer, "demo"), Journal(other, "demo")
        for number in range(100):
            journal.append(Event(kind="n", text=str(number)))
        seen = reader.read(count=50)
        assert journal.next_epoch() == 1
        os.kill(server.pid, signal.SIGKILL)
        server.kill()
        with RedisServer.start(tmp_path):
            journal.append(Event(kind="n", text="100"))
            seen += reader.read(seen[-1].id)
            assert journal.next_epoch() == 2
    assert [entry.record.text for entry in seen if isinstance(entry.record, Event)] == [
        str(n) for n in range(101)
    ]
