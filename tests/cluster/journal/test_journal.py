"""The journal gives back what was put in, in order, and once."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from cluster.journal.codec import decode, encode
from cluster.journal.delivery import LOOK_EVERY_S
from cluster.journal.journal import MAX_BLOCK_S, Journal, JournalReader
from cluster.journal.journal_file import JournalFile
from cluster.journal.records import Event, Record
from cluster.journal.redis_client import connect
from cluster.journal.redis_server import RedisServer
from cluster.journal.segment_writer import SegmentWriter
from cluster.journal.writer import JournalWriter
from gato.metrics import (
    Amount,
    AssignmentProgress,
    Evaluation,
    LearnerReport,
    Mean,
    ReplayStats,
    WorkerReport,
)
from gato.version import Version
from tests.cluster.wait import until

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
    AssignmentProgress(
        worker="worker-1",
        role="evaluate",
        task="atari/pong",
        version=Version(1, 2),
        episodes=1,
        env_steps=9000,
        wall_s=41.5,
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
        owed_tokens=-12.5,
        writers_waiting=1,
        readers_waiting=2,
        incarnation=2,
    ),
    Event(kind="worker died", text="worker-1: ≥ 1 «signal» 9", time_s=1.5),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer.start(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with connect(server.url) as client:
        yield client


@pytest.fixture
def writer(
    server: RedisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[JournalWriter]:
    with JournalWriter(tmp_path / "journal", request.node.name, server=server.url) as writer:
        yield writer


@pytest.fixture(params=["redis", "folder"])
def journal(
    client: redis.Redis, writer: JournalWriter, request: pytest.FixtureRequest
) -> Journal | JournalFile:
    """The journal as its readers have it: what they see is the same."""
    return Journal(client, request.node.name) if request.param == "redis" else writer.reader()


def delivered(writer: JournalWriter) -> None:
    until(lambda: writer.status().waiting == 0)


def test_every_kind_of_record_comes_back_as_it_was(
    journal: JournalReader, writer: JournalWriter
) -> None:
    for record in RECORDS:
        writer.append(record)
    delivered(writer)
    entries = journal.read()
    assert [entry.record for entry in entries] == RECORDS
    assert [entry.id for entry in entries] == [f"{n}-0" for n in range(1, len(RECORDS) + 1)]
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


def test_reading_goes_on_after_any_entry(journal: JournalReader, writer: JournalWriter) -> None:
    for number in range(5):
        writer.append(Event(kind="n", text=str(number)))
    delivered(writer)
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


def test_a_reader_that_waits_is_woken_by_an_entry(
    journal: JournalReader, writer: JournalWriter
) -> None:
    late = threading.Timer(0.1, lambda: writer.append(Event(kind="late", text="")))
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
    client: redis.Redis,
    server: RedisServer,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    text: str,
) -> None:
    with SegmentWriter(tmp_path) as lines:
        for _ in range(3):
            lines.append(text)
    name = request.node.name
    with JournalWriter(tmp_path, name, server=server.url) as writer:
        writer.append(Event(kind="known", text="", time_s=1.0))
        delivered(writer)
        for journal in (Journal(client, name), writer.reader()):
            assert [entry.record for entry in journal.read(count=2)] == [
                Event(kind="known", text="", time_s=1.0)
            ]


def test_fields_of_a_later_version_are_left_out() -> None:
    entry = json.loads(encode(RECORDS[0], time_s=1.0))
    entry["record"]["colour"] = "blue"
    assert decode(json.dumps(entry)) == (1.0, RECORDS[0])


def test_runs_of_one_name_do_not_see_each_other(
    client: redis.Redis, server: RedisServer, tmp_path: Path
) -> None:
    with (
        JournalWriter(tmp_path / "one", "id-of-one", server=server.url) as one,
        JournalWriter(tmp_path / "two", "id-of-two", server=server.url) as two,
    ):
        one.append(RECORDS[0])
        delivered(one)
        assert one.next_epoch() == two.next_epoch() == 1
        Journal(client, "id-of-one").post_control("stop")
        assert until(one.take_control)
        time.sleep(2 * LOOK_EVERY_S)
        assert two.take_control() == []
        assert Journal(client, "id-of-two").read() == []


def test_no_two_learners_share_an_epoch(server: RedisServer, tmp_path: Path) -> None:
    for expected in ([1, 2], [3, 4]):
        with JournalWriter(tmp_path, "epochs", server=server.url) as writer:
            assert [writer.next_epoch(), writer.next_epoch()] == expected


def test_an_epoch_is_given_once_though_redis_or_the_folder_was_lost(tmp_path: Path) -> None:
    with RedisServer.start(tmp_path / "redis") as server, connect(server.url) as client:
        with JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer:
            assert [writer.next_epoch(), writer.next_epoch()] == [1, 2]
        client.flushall()
        with JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer:
            assert writer.next_epoch() == 3
        (tmp_path / "journal" / "epoch").unlink()
        with JournalWriter(tmp_path / "journal", "demo", server=server.url) as writer:
            assert writer.next_epoch() == 4
    with JournalWriter(tmp_path / "journal", "demo", server="redis://127.0.0.1:1/0") as writer:
        assert writer.next_epoch() == 5, "with Redis away"


def test_a_damaged_epoch_is_named(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("")
    with pytest.raises(ValueError, match=r"epoch is damaged .* write a number above"):
        JournalWriter(tmp_path, "demo", server="redis://127.0.0.1:1/0")
    (tmp_path / "epoch").write_text("7\n")
    with JournalWriter(tmp_path, "demo", server="redis://127.0.0.1:1/0") as writer:
        assert writer.next_epoch() == 8


def test_control_words_arrive_in_order_and_a_later_supervisor_skips_old_ones(
    client: redis.Redis, server: RedisServer, tmp_path: Path
) -> None:
    words = Journal(client, "words")
    with JournalWriter(tmp_path, "words", server=server.url) as writer:
        writer.next_epoch()  # so that the server knows this supervisor
        words.post_control("scale", 3)
        words.post_control("scale", 4)
        assert until(writer.take_control)[0] == ("scale", "3")
    words.post_control("stop")  # to the one that has just ended
    with JournalWriter(tmp_path, "words", server=server.url) as writer:
        writer.next_epoch()
        words.post_control("scale", 5)
        assert until(writer.take_control) == [("scale", "5")]


def test_who_takes_over_obeys_what_was_said_to_its_predecessor(
    client: redis.Redis, server: RedisServer, tmp_path: Path
) -> None:
    words = Journal(client, "taken-over")
    with JournalWriter(tmp_path, "taken-over", server=server.url, token="one") as writer:
        writer.next_epoch()
    said = words.post_control("scale", 3)
    assert words.waits(said)
    with JournalWriter(tmp_path, "taken-over", server=server.url, token="one") as writer:
        assert until(writer.take_control) == [("scale", "3")]
        until(lambda: not words.waits(said))
        assert writer.take_control() == []


def test_reading_ends_when_the_journal_is_closed(
    journal: Journal | JournalFile, writer: JournalWriter
) -> None:
    writer.append(RECORDS[0])
    delivered(writer)
    assert len(journal.read()) == 1
    threading.Timer(0.2, journal.close).start()
    began = time.monotonic()
    assert journal.read("1-0", block_s=60.0) == []
    assert time.monotonic() - began < 2 * MAX_BLOCK_S
