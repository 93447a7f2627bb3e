"""Once is once: what a store knows of its keys, whoever wrote them and however it was damaged."""

from pathlib import Path

import lmdb

from gato.episode import AGENT
from replay.storage.record import pack
from replay.storage.store import EpisodeStore
from tests.replay.episodes import counter_episode

CAPACITY = 64 << 20


def put(folder: Path, database: str, key: bytes, value: bytes) -> None:
    """Write into a store that is closed."""
    env = lmdb.open(str(folder), max_dbs=8, map_size=1 << 28)
    opened = env.open_db(database.encode())
    with env.begin(write=True) as txn:
        txn.put(key, value, db=opened)
    env.close()


def keys_in(store: EpisodeStore) -> list[str]:
    return [header.key for header in store.episodes.values()]


def test_a_key_that_schema_1_wrote_costs_its_stream_nothing(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.add(counter_episode(0, key="w.5"), tokens=1) is not None
    store.close()
    put(tmp_path, "keys", b"w.1", b"")
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    old, new = counter_episode(1, key="w.1"), counter_episode(2, key="w.2")
    assert [outcome is not None for outcome in store.add_all([(pack(old), 1), (pack(new), 1)])] == [
        False,
        True,
    ]
    assert [store.known(f"w.{n}") for n in range(7)] == [
        False,
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    store.close()


def test_a_counter_that_went_back_lets_no_episode_write_over_another(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    for number in range(12):
        store.add(counter_episode(number), tokens=1)
    store.close()
    put(tmp_path, "counters", b"next", b"2")
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert store.add(counter_episode(12), tokens=1) is not None
    assert keys_in(store) == [f"k{n}" for n in range(13)]
    for episode, number in zip(store.all_episodes(), range(13), strict=True):
        assert (episode.observations["state"][:, 0] == number).all()
    store.close()


def test_an_episode_that_was_damaged_and_made_room_is_damaged_no_more(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    header = store.add(counter_episode(0, source=AGENT), tokens=1)
    assert header is not None
    store.quarantine(header, "it is damaged")
    store.close()
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert list(store.damaged) == [0]
    store.close()
    put(tmp_path, "counters", b"damaged/77", b"left behind by a race with an eviction \xff")
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY)
    assert list(store.damaged) == [0]
    store.close()
