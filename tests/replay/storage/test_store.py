"""The store: whole, durable, once, checked, within its bytes."""

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gato.episode import AGENT
from replay.storage.eviction import ReplayDiskFull
from replay.storage.header import DamagedEpisode, header_from_bytes, header_to_bytes
from replay.storage.record import CHUNK_STEPS, pack, record_from_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import counter_episode, flip_a_bit, picture_episode, to_bytes, unpack

CAPACITY = 64 << 20
WRITER = """
import sys
from pathlib import Path
from replay.storage.store import EpisodeStore
from tests.replay.episodes import counter_episode
store = EpisodeStore(Path(sys.argv[1]), capacity_bytes=64 << 20)
for number in range(int(sys.argv[2]), 10**6):
    store.add(counter_episode(number % 1000, 50, key=f"k{number}"), tokens=1)
    print(number, flush=True)
"""


def test_an_episode_is_kept_whole_and_in_order(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for episode in (
        counter_episode(3),
        picture_episode(1),
        counter_episode(8, CHUNK_STEPS),
        picture_episode(8, CHUNK_STEPS),
    ):
        header = store.add(episode, tokens=5)
        assert header is not None
        back = store.episode(header)
        assert (back.key, back.task, back.source, back.terminated, back.seed) == (
            episode.key,
            episode.task,
            episode.source,
            episode.terminated,
            episode.seed,
        )
        np.testing.assert_array_equal(back.actions, episode.actions)
        np.testing.assert_array_equal(back.rewards, episode.rewards)
        for name, values in episode.observations.items():
            np.testing.assert_array_equal(back.observations[name], values)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (7, 9), (8, 16), (3, 20), (19, 20)])
def test_a_window_of_images_is_what_was_stored(tmp_path: Path, start: int, stop: int) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    header = store.add(picture_episode(0), tokens=1)
    assert header is not None
    window = store.read(header, start, stop)
    assert window.observations["image"][:, 0, 0, 0].tolist() == list(range(start, stop))
    assert window.actions.tolist() == list(range(start, stop))


def test_a_second_delivery_is_a_no_op_also_after_a_restart(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.add(counter_episode(1), tokens=7) is not None
    assert store.add(counter_episode(1), tokens=7) is None
    store.close()
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.add(counter_episode(1), tokens=7) is None
    assert (len(store.episodes), store.inserted_tokens, store.incarnation) == (1, 7, 2)


def test_every_acknowledged_episode_survives_kill_9_in_a_write_storm(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for first in (0, 1000, 2000):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            env=os.environ | {"PYTHONPATH": "."},
        )
        assert process.stdout is not None
        for line in process.stdout:
            acknowledged.append(int(line))
            if len(acknowledged) % 40 == 0:
                process.send_signal(signal.SIGKILL)
                break
        acknowledged += [int(line) for line in process.stdout]
        process.stdout.close()
        process.wait()
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    keys = [header.key for header in store.episodes.values()]
    assert len(keys) == len(set(keys))
    assert {f"k{number}" for number in acknowledged} <= set(keys)
    for header in store.episodes.values():
        store.episode(header)


def test_a_flipped_bit_damages_one_episode_and_no_other(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    headers = [store.add(counter_episode(number), tokens=1) for number in range(3)]
    store.close()
    flip_a_bit(tmp_path, number=1)
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for number, header in enumerate(headers):
        assert header is not None
        if number == 1:
            with pytest.raises(DamagedEpisode, match="k1"):
                store.episode(header)
        else:
            store.episode(header)


def test_a_damaged_header_costs_one_episode_and_not_the_store(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for number in range(3):
        store.add(counter_episode(number), tokens=1)
    store.close()
    flip_a_bit(tmp_path, number=1, database="headers")
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert [header.key for header in store.episodes.values()] == ["k0", "k2"]
    assert "checksum" in store.damaged[1]
    assert store.add(counter_episode(1), tokens=1) is None  # its key is still known
    assert store.add(counter_episode(4), tokens=1) is not None


def test_headers_from_before_they_had_a_checksum_are_read_and_newer_ones_are_refused(
    tmp_path: Path,
) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    header = store.add(counter_episode(0), tokens=1)
    assert header is not None
    now = header_to_bytes(header)
    assert header_from_bytes(now) == header
    assert header_from_bytes(now[5:]) == header
    with pytest.raises(ValueError, match="update gato-ray"):
        header_from_bytes(header_to_bytes(replace(header, schema=99)))
    for damaged in (now[:-1], b"", now[5:-1], b"{}"):
        with pytest.raises(DamagedEpisode):
            header_from_bytes(damaged)


def test_the_counted_bytes_cover_the_file_also_for_tiny_episodes(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for number in range(300):
        store.add(counter_episode(number, 3), tokens=1)
    store.add(picture_episode(0), tokens=1)
    file_bytes = (tmp_path / "data.mdb").stat().st_blocks * 512
    assert 0.5 * file_bytes <= store.stored_bytes <= 1.5 * file_bytes


def fill(store: EpisodeStore) -> None:
    for number in itertools.count():
        store.add(counter_episode(number % 1000, 900, key=f"k{number}"), tokens=1)


def test_a_full_map_refuses_the_episode_and_more_room_lets_it_in(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY, map_bytes=1 << 20)
    with pytest.raises(ReplayDiskFull, match="disk full"):
        fill(store)
    kept = len(store.episodes)
    assert kept > 3
    for header in store.episodes.values():
        store.episode(header)
    store.close()
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.add(counter_episode(kept, 900, key=f"k{kept}"), tokens=1) is not None


def test_when_full_the_agents_oldest_episodes_make_room_and_demonstrations_never(
    tmp_path: Path,
) -> None:
    size = sum(a.nbytes for a in (counter_episode(0, 5000).observations["state"],)) + 5000 * 12
    store = EpisodeStore(tmp_path, capacity_bytes=4 * size)
    store.add(counter_episode(0, 5000), tokens=1)
    for number in range(1, 8):
        assert store.add(counter_episode(number, 5000, source=AGENT), tokens=1) is not None
    keys = [header.key for header in store.episodes.values()]
    assert keys[0] == "k0"
    assert keys[-1] == "k7"
    assert "k1" not in keys
    assert store.stored_bytes <= store.capacity_bytes
    assert store.known("k1")
    demonstrations = EpisodeStore(tmp_path / "other", capacity_bytes=2 * size)
    demonstrations.add(counter_episode(0, 5000), tokens=1)
    with pytest.raises(ReplayDiskFull, match="demonstrations"):
        demonstrations.add(counter_episode(1, 10_000), tokens=1)


FULL = """
import resource, signal, sys
from pathlib import Path
from replay.storage.eviction import ReplayDiskFull
from replay.storage.store import EpisodeStore
from tests.replay.episodes import counter_episode
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = EpisodeStore(Path(sys.argv[1]), capacity_bytes=64 << 20)
kept = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    while True:
        store.add(counter_episode(kept % 1000, 1000, key=f"k{kept}"), tokens=1)
        kept += 1
except ReplayDiskFull as problem:
    print(problem.strerror)
for header in store.episodes.values():
    store.episode(header)
assert len(store.episodes) == kept > 3, kept
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert store.add(counter_episode(1, 1000, key="afterwards"), tokens=1) is not None
print("goes on with", len(store.episodes))
"""


def test_a_full_disk_refuses_the_episode_and_reads_go_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": "."},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "disk full" in done.stdout
    assert "goes on with" in done.stdout


def test_a_record_comes_back_and_a_damaged_one_is_noticed() -> None:
    record = to_bytes(picture_episode(2))
    back = unpack(record_from_bytes(record))
    np.testing.assert_array_equal(
        back.observations["image"], picture_episode(2).observations["image"]
    )
    for broken in (
        record[:-1],
        b"XXXX" + record[4:],
        record[:100] + bytes([record[100] ^ 1]) + record[101:],
    ):
        with pytest.raises(ValueError, match="record"):
            record_from_bytes(broken)


def test_a_second_writer_is_refused_while_the_first_lives_and_readers_are_not(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(ValueError, match=rf"\({process.pid}\) writes to {tmp_path}"):
        EpisodeStore(tmp_path, capacity_bytes=CAPACITY, lock_wait_s=0.0)
    reader = EpisodeStore(tmp_path, capacity_bytes=CAPACITY, read_only=True)
    assert reader.episodes
    for header in reader.episodes.values():
        reader.episode(header)
    reader.close()
    # as a killed replay leaves it: whoever comes next need not wait for more than its end
    process.kill()
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.episodes
    store.close()
    process.stdout.close()
    process.wait()


def test_a_folder_that_may_not_be_written_to_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    store = EpisodeStore(folder, capacity_bytes=CAPACITY)
    store.add(counter_episode(1), tokens=1)
    store.close()
    for file in folder.glob("*.lock"):
        file.unlink()
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & 0o555)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", UNWRITABLE],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    folder.chmod(0o755)
    assert done.stdout == "['k1']\n", done.stderr


UNWRITABLE = """
import os
from pathlib import Path
from replay.storage.store import EpisodeStore
if os.geteuid() == 0:
    os.seteuid(65534)  # nobody: root may write anywhere
store = EpisodeStore(Path("store"), capacity_bytes=1 << 26, read_only=True)
print([store.episode(header).key for header in store.episodes.values()])
"""


def test_a_reader_is_told_that_an_episode_was_evicted_and_not_that_it_is_damaged(
    tmp_path: Path,
) -> None:
    size = 5000 * 28
    store = EpisodeStore(tmp_path, capacity_bytes=3 * size)
    store.add(counter_episode(0, 5000, source=AGENT), tokens=1)
    store.close()
    reading = """
import sys
from pathlib import Path
from replay.storage.column_reader import EpisodeGone
from replay.storage.store import EpisodeStore
store = EpisodeStore(Path(sys.argv[1]), capacity_bytes=1 << 26, read_only=True)
print("open", flush=True)
sys.stdin.readline()
try:
    store.episode(store.episodes[0])
except EpisodeGone as problem:
    print(problem)
"""
    reader = subprocess.Popen(
        [sys.executable, "-c", reading, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert reader.stdout is not None
    reader.stdout.readline()
    store = EpisodeStore(tmp_path, capacity_bytes=3 * size)
    for number in range(1, 8):
        store.add(counter_episode(number, 5000, source=AGENT), tokens=1)
    assert 0 not in store.episodes
    store.close()
    assert reader.communicate("\n")[0] == "episode k0 was evicted\n"


def test_a_whole_key_in_a_group_costs_its_stream_nothing_that_was_seen(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    store.add(counter_episode(1, key="w0.a.1"), tokens=1)
    with store.database.transaction(write=True) as txn:
        txn.put(b"w0.a.0", b"7", db=store.database.parts.keys)  # as schema 1 kept it
    outcomes = store.add_all([(pack(counter_episode(n, key=f"w0.a.{n}")), 1) for n in (0, 2)])
    assert [outcome is not None for outcome in outcomes] == [False, True]
    assert [store.known(f"w0.a.{n}") for n in range(4)] == [True, True, True, False]
