"""Compaction: all that is kept and all that was seen, in less space; whoever dies in between leaves
a whole store."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest

from gato.episode import AGENT
from replay.storage.compact import Compacted, Compaction
from replay.storage.database import DRAFT
from replay.storage.dedup import Intervals
from replay.storage.header import header_to_bytes
from replay.storage.store import EpisodeStore
from replay.storage.verify import disagreements, faults_of
from tests.replay.episodes import counter_episode, flip_a_bit, picture_episode

CAPACITY = 1 << 20
STEPS = 3000
ROOT = Path(__file__).parents[3]


def filled(folder: Path) -> list[str]:
    """A store in which most of what was stored had to make room; the keys that are kept."""
    store = EpisodeStore(folder, capacity_bytes=CAPACITY)
    store.add(picture_episode(0), tokens=5)
    for number in range(1, 40):
        store.add(counter_episode(number, STEPS, key=f"w0.a.{number}", source=AGENT), tokens=3)
    store.database.note("limiter", b'{"read_tokens": 7}')
    store.database.set_counters(read_tokens=7)
    kept = [header.key for header in store.episodes.values()]
    store.close()
    for _ in range(2):  # what goes last leaves free pages
        store = EpisodeStore(folder, capacity_bytes=CAPACITY // 4)
        store.add(counter_episode(40, STEPS, key="w0.a.40", source=AGENT), tokens=3)
        kept = [header.key for header in store.episodes.values()]
        store.close()
    return kept


def compacted(folder: Path) -> Compacted:
    with Compaction(folder, swap_wait_s=0.0) as compaction:
        assert sum(compaction.copy()) == compaction.total_bytes
        compaction.check()
        return compaction.swap()


def test_what_is_kept_and_what_was_seen_stay_in_less_space(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    before = EpisodeStore(tmp_path, capacity_bytes=CAPACITY, read_only=True)
    headers, tokens = dict(before.episodes), before.inserted_tokens
    before.close()
    done = compacted(tmp_path)
    assert done.after_bytes < done.before_bytes / 2
    assert (done.num_episodes, done.left_out) == (len(kept), ())
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.episodes == headers
    assert (store.inserted_tokens, store.database.counter("read_tokens")) == (tokens, 7)
    assert store.database.noted("limiter") == b'{"read_tokens": 7}'
    assert store.known("w0.a.1")
    assert store.add(counter_episode(1, key="w0.a.1"), tokens=1) is None
    assert store.add(counter_episode(1, key="w0.a.99"), tokens=1) is not None
    assert not disagreements(store)
    for header in store.episodes.values():
        assert not faults_of(store, header)
    (picture,) = [header for header in store.episodes.values() if header.key == "p0"]
    np.testing.assert_array_equal(
        store.episode(picture).observations["image"], picture_episode(0).observations["image"]
    )
    store.close()
    again = compacted(tmp_path)
    assert again.after_bytes <= again.before_bytes
    assert not (tmp_path / DRAFT).exists()


def test_damaged_episodes_are_left_out_and_named_and_their_keys_stay_known(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for number in range(4):
        store.add(counter_episode(number), tokens=1)
    store.close()
    flip_a_bit(tmp_path, number=1)
    flip_a_bit(tmp_path, number=2, database="headers")
    done = compacted(tmp_path)
    assert {fault.number for fault in done.left_out} == {1, 2}
    assert [fault.column for fault in done.left_out if fault.number == 1] == ["o/state"]
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert [header.key for header in store.episodes.values()] == ["k0", "k3"]
    assert not store.damaged
    assert store.known("k1")
    assert store.known("k2")


STEPS_OF_DEATH = ("open", "half a copy", "copy", "check", "before the rename", "after the rename")
DIES = """
import os, signal, sys
from pathlib import Path
from replay.storage.compact import Compaction

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

rename = os.replace
def renames(*files):
    rename(*files)
    die()

compaction = Compaction(Path(sys.argv[1]))
at = sys.argv[2]
if at == "open":
    die()
for number, _ in enumerate(compaction.copy()):
    if at == "half a copy" and number:
        die()
if at == "copy":
    die()
compaction.check()
if at == "check":
    die()
os.replace = die if at == "before the rename" else renames
compaction.swap()
"""


@pytest.mark.parametrize("at", STEPS_OF_DEATH)
def test_whoever_dies_at_any_step_leaves_a_whole_store(tmp_path: Path, at: str) -> None:
    kept = filled(tmp_path)
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path), at],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "."},
        check=False,
        capture_output=True,
        text=True,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (tmp_path / DRAFT).exists() == (at != "open")
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert [header.key for header in store.episodes.values()] == kept
    assert not disagreements(store)
    for header in store.episodes.values():
        assert not faults_of(store, header)
    assert store.known("w0.a.1")
    assert not (tmp_path / DRAFT).exists()
    assert store.add(counter_episode(1, key="w0.a.99"), tokens=1) is not None
    store.close()
    assert compacted(tmp_path).num_episodes == len(kept) + 1


def test_a_store_that_is_written_to_is_refused_and_one_that_is_read_is_not_swapped(
    tmp_path: Path,
) -> None:
    kept = filled(tmp_path)
    writer = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    with pytest.raises(ValueError, match=rf"{os.getpid()}\) writes to {tmp_path}"):
        Compaction(tmp_path)
    writer.close()
    copied = (tmp_path / "data.mdb").read_bytes()
    with Compaction(tmp_path, swap_wait_s=0.0) as compaction:
        for _ in compaction.copy():
            pass
        with pytest.raises(ValueError, match="writes to"):
            EpisodeStore(tmp_path, capacity_bytes=CAPACITY, lock_wait_s=0.0)
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(tmp_path)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": "."},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == f"{len(kept)}\n"
        with pytest.raises(ValueError, match="reads"):
            compaction.swap()
        reader.communicate("\n")
    assert (tmp_path / "data.mdb").read_bytes() == copied
    assert not (tmp_path / DRAFT).exists()
    assert compacted(tmp_path).num_episodes == len(kept)


READER = """
import sys
from pathlib import Path
from replay.storage.store import EpisodeStore
store = EpisodeStore(Path(sys.argv[1]), capacity_bytes=1 << 20, read_only=True)
print(len(store.episodes), flush=True)
sys.stdin.readline()
"""


def as_schema_1(folder: Path) -> None:
    """A store as the first release wrote it: keys whole, headers without streams."""
    store = EpisodeStore(folder, capacity_bytes=CAPACITY, read_only=True)
    headers = list(store.episodes.values())
    store.close()
    env = lmdb.open(str(folder), max_dbs=5, map_size=1 << 28)
    databases = {
        name: env.open_db(name.encode()) for name in ("headers", "keys", "streams", "counters")
    }
    with env.begin(write=True) as txn:
        for header in headers:
            old = header_to_bytes(replace(header, schema=1))
            txn.put(header.number.to_bytes(8, "big"), old, db=databases["headers"])
            txn.put(header.key.encode(), str(header.number).encode(), db=databases["keys"])
        txn.put(b"w0.a.1", b"evicted long ago", db=databases["keys"])
        txn.delete(b"num_shards", db=databases["counters"])
        txn.drop(databases["streams"], delete=True)
    env.close()


def test_a_store_of_schema_1_becomes_one_of_streams(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for number in range(2, 6):
        store.add(counter_episode(number, key=f"w0.a.{number}"), tokens=1)
    store.close()
    as_schema_1(tmp_path)
    done = compacted(tmp_path)
    assert (done.num_episodes, done.num_whole_keys) == (4, 5)
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert {header.schema for header in store.episodes.values()} == {2}
    assert [store.known(f"w0.a.{number}") for number in range(8)] == [
        False,
        *[True] * 5,
        False,
        False,
    ]
    with store.database.transaction() as txn:
        (entry,) = list(txn.cursor(db=store.database.parts.streams))
        assert list(txn.cursor(db=store.database.parts.keys)) == []
    assert len(Intervals.from_bytes(bytes(entry[1]))) == 1


def test_a_disk_without_room_for_the_copy_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with Compaction(tmp_path) as compaction, pytest.raises(ValueError, match="GB free"):
        next(compaction.copy())
