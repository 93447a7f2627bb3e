"""Poison at the door: it is refused and counted, costs no memory, raises nothing, and what is
stored stays readable."""

import json
import pickle
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gato.array_spec import ArraySpec, Kind
from gato.episode import AGENT, BadEpisode, Episode, check_episode
from gato.task import References, Task
from gato.version import Version
from replay.config import ReplayConfig
from replay.ingest import check_record
from replay.service import ReplayService
from replay.storage.header import header_from_bytes, header_to_bytes
from replay.storage.index import Index
from replay.storage.record import pack, record_from_bytes, record_to_bytes
from tests.replay.episodes import (
    COUNTER,
    LAYOUT,
    PICTURES,
    config,
    counter_episode,
    picture_episode,
    unpack,
)
from tests.replay.faults.forge import (
    changed,
    header_of,
    payload_of,
    record_of,
    valued,
    with_values,
)

WIDE = Task(
    name="test/wide",
    env_id="Wide-v0",
    family="test",
    observations={"lidar": ArraySpec(kind=Kind.CONTINUOUS, shape=(1500,))},
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=10),
    references=References(random=0.0, expert=10.0, source="made"),
    max_steps=1000,
)
"""Shows more than 4096 bytes in each step, and no image: it is kept in compressed chunks, and each
number counts."""
TASKS = {task.name: task for task in (COUNTER, PICTURES, WIDE)}
MOST_EXTRA_BYTES = 64 << 20


def wide_episode(steps: int = 20, *, nan_at: int | None = None, key: str = "wide.0") -> Episode:
    lidar = np.ones((steps, 1500), np.float32)
    if nan_at is not None:
        lidar[nan_at, 7] = np.nan
    return Episode(
        key=key,
        task=WIDE.name,
        source="teacher:t",
        observations={"lidar": lidar},
        actions=np.zeros(steps, np.int64),
        rewards=np.ones(steps, np.float32),
        terminated=True,
        truncated=False,
        seed=0,
    )


def make(folder: Path, replay: ReplayConfig | None = None) -> ReplayService:
    return ReplayService(folder, TASKS, LAYOUT, replay or config(row_tokens=1600), seed=0)


GOOD, PICTURE = counter_episode(1), picture_episode(1)
COLUMNS = header_of(record_to_bytes(pack(GOOD)))["columns"]
PICTURE_COLUMNS = header_of(record_to_bytes(pack(PICTURE)))["columns"]


def with_column(
    name: str, dtype: Any, shape: Any, columns: dict[str, Any] = COLUMNS, episode: Episode = GOOD
) -> bytes:
    return changed(episode, columns=columns | {name: [dtype, shape]})


def not_finite(place: int, value: float) -> bytes:
    rewards = GOOD.rewards.copy()
    rewards[place] = value
    return record_to_bytes(pack(replace(GOOD, rewards=rewards)))


def bomb() -> bytes:
    """Images that claim the most that LZ4 could make of them, and more."""
    zeros = lz4.block.compress(bytes(8 * 48 * 48 * 3 * 400), store_size=False)
    return with_values(
        PICTURE, lambda values: [(c, k, valued(zeros) if c == 0 else v) for c, k, v in values]
    )


def nested(depth: int) -> bytes:
    return record_of(b'{"key":' + b"[" * depth + b"]" * depth + b"}")


POISON: dict[str, bytes] = {
    "nothing": b"",
    "only a magic": b"GEP2",
    "a length beyond the end": b"GEP2" + b"\0" * 4 + b"\xff" * 4,
    "a pickle": pickle.dumps(GOOD),
    "a zip": b"PK\x03\x04" + bytes(100),
    "a reward that is NaN": not_finite(3, np.nan),
    "a reward that is inf": not_finite(9, -np.inf),
    "NaN in the first step of a chunk": record_to_bytes(pack(wide_episode(nan_at=0))),
    "NaN within a chunk": record_to_bytes(pack(wide_episode(nan_at=5))),
    "NaN in the last step of the last chunk": record_to_bytes(pack(wide_episode(nan_at=19))),
    "an unknown task": changed(GOOD, task="test/nobody"),
    "no task": changed(GOOD, task=None),
    "a task of another's columns": changed(GOOD, task=PICTURES.name),
    "another dtype": record_to_bytes(pack(replace(GOOD, actions=GOOD.actions.astype(np.int32)))),
    "a big-endian dtype": record_to_bytes(pack(replace(GOOD, actions=GOOD.actions.astype(">i8")))),
    "a big-endian dtype claimed": with_column("actions", ">i8", []),
    "an object dtype": with_column("actions", "|O", []),
    "a structured dtype": with_column("actions", "i4,i4", []),
    "a structured dtype as a list": with_column("actions", [["a", "<i4"], ["b", "<i4"]], []),
    "a subarray dtype": with_column("actions", "(1000000000,)f8", []),
    "a dtype with a shape of two": with_column("actions", "(2)(2)f4", []),
    "a dtype nested without end": with_column("actions", "(" * 5000, []),
    "a dtype that is none": with_column("actions", "nonsense", []),
    "a dtype without a name": with_column("actions", "", []),
    "a dtype of none": with_column("actions", None, []),
    "a void dtype of two GB": with_column("actions", "V2000000000", []),
    "a text dtype": with_column("actions", "<U2", []),
    "a date": with_column("actions", "<M8[ns]", []),
    "a date in no unit": with_column("actions", "<M8[parsec]", []),
    "bytes of an old alias": with_column("actions", "a8", []),
    "complex numbers": with_column("actions", "<c8", []),
    "a negative shape": with_column("o/state", "<i8", [-2]),
    "a shape beyond 64 bits": with_column("o/state", "<i8", [2**70]),
    "a shape that wraps to nothing": with_column("o/state", "<i8", [2**32, 2**32]),
    "an empty shape": with_column("o/state", "<i8", [0]),
    "a shape of NaN": with_column("o/state", "<i8", [float("nan")]),
    "a shape that is a number": with_column("o/state", "<i8", 2),
    "another shape of images": with_column("o/image", "|u1", [48, 47, 3], PICTURE_COLUMNS, PICTURE),
    "rewards in pairs": with_column("rewards", "<f4", [2]),
    "an extra column": with_column("reward", "<f4", []),
    "an extra observation": with_column("o/more", "<i8", [2]),
    "labels that are not there": with_column("labels", "<i8", []),
    "labels of another shape": record_to_bytes(
        pack(replace(GOOD, labels=np.zeros((10, 2), np.int64)))
    ),
    "labels out of range": record_to_bytes(pack(replace(GOOD, labels=GOOD.actions + 5000))),
    "no columns": changed(GOOD, columns={}),
    "no rewards": changed(GOOD, columns={name: COLUMNS[name] for name in ("o/state", "actions")}),
    "columns in another order": changed(GOOD, columns=dict(reversed(COLUMNS.items()))),
    "columns without an end": changed(GOOD, columns={f"o/{n}": ["<i8", []] for n in range(20_000)}),
    "10^9 steps": changed(GOOD, steps=10**9),
    "10^7 steps": changed(GOOD, steps=10**7),
    "10^7 steps of images": changed(PICTURE, steps=10**7),
    "one step more": changed(GOOD, steps=11),
    "one step less": changed(GOOD, steps=9),
    "no steps": changed(GOOD, steps=0),
    "steps below zero": changed(GOOD, steps=-1),
    "steps without end": changed(GOOD, steps=float("inf")),
    "steps of a million digits": record_of(b'{"steps":' + b"9" * 1_000_000 + b"}"),
    "a damaged chunk": with_values(
        PICTURE, lambda v: [(c, k, valued(b"\xff" + x[5:])) for c, k, x in v]
    ),
    "an LZ4 bomb": bomb(),
    "a claim that LZ4 could not fill": with_values(
        PICTURE, lambda v: [(c, k, valued(b"\0" * 20)) for c, k, _ in v]
    ),
    "a wrong checksum": with_values(GOOD, lambda v: [(c, k, b"\0\0\0\0" + x[4:]) for c, k, x in v]),
    "a header with a wrong checksum": (
        record_to_bytes(pack(GOOD)).replace(b"teacher:t", b"teacher:u")
    ),
    "an absurd chunk": with_values(GOOD, lambda v: [(c, 10**12, x) for c, k, x in v]),
    "an absurd chunk too many": with_values(GOOD, lambda v: [*v, (0, 2**40, valued(b""))]),
    "a negative column": with_values(GOOD, lambda v: [(c - 1, k, x) for c, k, x in v]),
    "a value twice": with_values(GOOD, lambda v: [v[0], *v]),
    "a value twice, the first being another": with_values(
        GOOD, lambda v: [(0, 0, valued(b"junk")), *v]
    ),
    "a value that is missing": with_values(GOOD, lambda v: v[1:]),
    "a value of nothing": with_values(GOOD, lambda v: [(c, k, b"") for c, k, x in v]),
    "bytes after the end": record_to_bytes(pack(GOOD)) + b"x",
    "bytes short of the end": record_to_bytes(pack(GOOD))[:-1],
    "a length below zero": record_of(
        header_of(record_to_bytes(pack(GOOD))) | {"values": [[0, 0, -4]]}
    ),
    "a huge header": record_of(b'{"key":"' + b"k" * (8 << 20) + b'"}'),
    "a header of empty lists": record_of(b'{"values":[' + b"[]," * (8 << 20) + b"[]]}"),
    "a huge info": changed(GOOD, info={"a": "x" * (8 << 20)}),
    "a header nested without end": nested(100_000),
    "a header that is not UTF-8": record_of(b'{"key":"\xff\xfe"}'),
    "a header that is no JSON": record_of(b"{'key': 1}"),
    "a header that is a list": record_of(b"[1, 2]"),
    "a header that is null": record_of(b"null"),
    "a key of nothing": changed(GOOD, key=""),
    "a key of 201 bytes": changed(GOOD, key="k" * 201),
    "a key that cannot be written": changed(GOOD, key="\ud800"),
    "a source that cannot be written": changed(GOOD, source="\ud800"),
    "an info that cannot be written": changed(GOOD, info={"a": "\udfff"}),
    "a key that is a number": changed(GOOD, key=7),
    "an info of numbers": changed(GOOD, info={"a": 1}),
    "an info that is a list": changed(GOOD, info=[1]),
    "a version below zero": changed(counter_episode(1, source=AGENT), version=[-1, -7]),
    "a version beyond 64 bits": changed(counter_episode(1, source=AGENT), version=[1, 2**63]),
    "an epoch beyond 64 bits": changed(counter_episode(1, source=AGENT), version=[10**30, 1]),
    "a version of one number": changed(GOOD, version=[1]),
    "a version of texts": changed(GOOD, version=["a", "b"]),
    "a seed that is a text": changed(GOOD, seed="x"),
    "a seed that is NaN": changed(GOOD, seed=float("nan")),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplayService]:
    made = make(tmp_path_factory.mktemp("replay"))
    assert made.add(record_to_bytes(pack(counter_episode(99))), timeout_s=1).status == "stored"
    yield made
    made.close()


@pytest.mark.parametrize("name", POISON)
def test_poison_is_refused_and_counted_and_costs_no_memory(
    service: ReplayService, name: str
) -> None:
    before = sum(service.stats().refused.values())
    tracemalloc.start()
    try:
        added = service.add(POISON[name], timeout_s=0)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert added.status == "rejected", added
    assert len(added.reason) <= 1000
    assert sum(service.stats().refused.values()) == before + 1
    assert most_bytes < MOST_EXTRA_BYTES
    assert service.keys() == ["k99"]
    assert service.next_batch(before, timeout_s=0) is not None


def test_after_all_poison_the_store_opens_and_takes_the_next_episode(tmp_path: Path) -> None:
    service = make(tmp_path)
    for data in POISON.values():
        assert service.add(data, timeout_s=0).status == "rejected"
    service.close()
    service = make(tmp_path)
    assert service.add(record_to_bytes(pack(GOOD)), timeout_s=0).status == "stored"
    assert (service.keys(), service.stats().inserted_tokens) == (["k1"], 40)
    service.close()


def test_wide_columns_that_are_no_images_come_back_number_by_number(tmp_path: Path) -> None:
    episode = wide_episode()
    episode.observations["lidar"][:] = np.arange(20 * 1500).reshape(20, 1500)
    checked = check_record(record_from_bytes(record_to_bytes(pack(episode))), WIDE)
    np.testing.assert_array_equal(
        unpack(checked).observations["lidar"], episode.observations["lidar"]
    )


def test_a_header_claims_no_return_it_is_summed_from_the_rewards() -> None:
    boasted = check_record(
        record_from_bytes(changed(GOOD, episode_return=1e30, tokens=10**9, stored_bytes=-1)),
        COUNTER,
    )
    assert (boasted.header.episode_return, boasted.header.tokens, boasted.header.stored_bytes) == (
        10.0,
        0,
        0,
    )


def test_a_long_episode_of_images_passes_in_little_memory() -> None:
    data = record_to_bytes(pack(picture_episode(0, steps=250)))
    tracemalloc.start()
    check_record(record_from_bytes(data), PICTURES)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 2 << 20


BASES = (
    GOOD,
    replace(counter_episode(2, source=AGENT), version=Version(3, 4)),
    replace(GOOD, labels=GOOD.actions),
    picture_episode(1, steps=9),
    wide_episode(steps=9),
)
RECORDS = tuple(record_to_bytes(pack(episode)) for episode in BASES)
NUMBERS = st.one_of(
    st.integers(-4, 12),
    st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63), 10**30]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(st.characters(codec=None, categories=("L", "N", "Cs", "Cc")), max_size=6),
    st.sampled_from(
        [
            "actions",
            "rewards",
            "labels",
            "o/state",
            "o/image",
            "<i8",
            "<f4",
            "|u1",
            "agent",
            COUNTER.name,
            "V9",
        ]
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good record with something changed and its checksums made right, where one could."""
    data = draw(st.sampled_from(RECORDS))
    header, payload = header_of(data), payload_of(data)
    sort = draw(st.sampled_from(["field", "column", "values", "text", "payload", "cut", "raw"]))
    if sort == "field":
        header[draw(st.sampled_from(sorted(header)))] = draw(JSON)
    elif sort == "column":
        name = draw(st.one_of(st.sampled_from(sorted(header["columns"])), TEXTS))
        header["columns"][name] = draw(
            st.one_of(JSON, st.tuples(TEXTS, st.lists(NUMBERS, max_size=3)).map(list))
        )
    elif sort == "values":
        place = draw(st.integers(0, len(header["values"]) - 1))
        header["values"][place] = draw(st.one_of(JSON, st.lists(NUMBERS, min_size=3, max_size=3)))
    elif sort == "text":
        text = bytearray(json.dumps(header).encode())
        for _ in range(draw(st.integers(1, 3))):
            text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
        return record_of(bytes(text), payload)
    elif sort == "payload":
        return _with_other_value(draw, header, payload)
    elif sort == "cut":
        payload = payload[: draw(st.integers(0, len(payload)))]
    else:
        raw = bytearray(data)
        raw[draw(st.integers(0, len(raw) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(raw)
    return record_of(header, payload)


def _with_other_value(draw: st.DrawFn, header: dict[str, Any], payload: bytes) -> bytes:
    values: list[bytes] = []
    for _, _, length in header["values"]:
        values.append(payload[:length])
        payload = payload[length:]
    place = draw(st.integers(0, len(values) - 1))
    inside = bytearray(values[place][4:])
    if draw(st.booleans()):
        inside[draw(st.integers(0, len(inside) - 1))] = draw(st.integers(0, 255))
    else:
        inside = bytearray(draw(st.binary(max_size=40)))
    values[place] = valued(bytes(inside))
    header["values"][place][2] = len(values[place])
    return record_of(header, b"".join(values))


@settings(
    max_examples=700,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(mutants())
@example(changed(GOOD, info={}))
def test_what_passes_the_door_is_a_whole_episode_and_all_else_is_a_bad_episode(data: bytes) -> None:
    try:
        record = record_from_bytes(data)
        task = TASKS.get(record.header.task)
        if task is None:
            return
        record = check_record(record, task)
    except BadEpisode:
        return
    episode = unpack(record)
    check_episode(episode, task)
    assert (episode.num_steps, episode.episode_return) == (
        record.header.steps,
        record.header.episode_return,
    )
    assert header_from_bytes(header_to_bytes(record.header)) == record.header
    index = Index()
    index.add([replace(record.header, number=0)])
    assert index.snapshot().steps.tolist() == [record.header.steps]
    assert unpack(record_from_bytes(record_to_bytes(record))).key == episode.key
