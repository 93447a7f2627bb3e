"""Flipped bits, anywhere: nothing ends the process by a signal, nothing wrong is read in silence,
the rest stays readable."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import lmdb
import numpy as np
import pytest

from gato.episode import AGENT, Episode
from replay.service import ReplayService
from replay.storage.header import DamagedEpisode
from replay.storage.record import pack, record_to_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode, picture_episode
from tests.replay.faults.test_keys import put

ROOT = Path(__file__).parents[3]
CAPACITY_BYTES = 64 << 20
NUM_EPISODES = 120
META_BYTES = 2 * 4096
"""LMDB's two first pages, which say where the others are."""


def episode(number: int) -> Episode:
    if number % 10 == 9:
        return picture_episode(number, steps=9)
    return counter_episode(
        number, 1 + number * 7 % 200, key=f"w.{number}", source=AGENT if number % 2 else "teacher:t"
    )


def write(folder: Path) -> None:
    store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES)
    for number in range(NUM_EPISODES):
        store.add(episode(number), tokens=1)
    store.close()


def look_at(folder: Path) -> str:
    """What became of a damaged store: one word for each thing that is wrong with it, or why it is
    refused."""
    try:
        store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES)
    except ValueError as problem:
        return (
            "refused"
            if "damaged" in str(problem) or "cannot open" in str(problem)
            else f"unclear: {problem}"
        )
    wrong: set[str] = set()
    for header in list(store.episodes.values()):
        try:
            kept, played = store.episode(header), episode(header.number)
        except DamagedEpisode as damaged:
            store.quarantine(header, str(damaged))
            continue
        same = [
            np.array_equal(values, played.observations[name])
            for name, values in kept.observations.items()
        ]
        same += [
            np.array_equal(kept.actions, played.actions),
            np.array_equal(kept.rewards, played.rewards),
        ]
        if not all(same) or kept.key != played.key:
            wrong.add("other data")
    if len(store.episodes) + len(store.damaged) != NUM_EPISODES:
        wrong.add("missing in silence")
    if not all(store.known(episode(header.number).key) for header in store.episodes.values()):
        wrong.add("forgotten keys")
    if store.inserted_tokens != NUM_EPISODES:
        wrong.add("other counts")
    if store.add(counter_episode(1, 50, key="new.0"), tokens=1) is None:
        wrong.add("takes nothing new")
    store.close()
    return ", ".join(sorted(wrong)) or ("one or more damaged" if store.damaged else "unharmed")


def flip_and_look(folder: Path, seeds: range, num_flips: int, page_bytes: int) -> Counter[str]:
    """What becomes of a store with bits flipped in the first bytes of random pages, each time in a
    process of its own."""
    intact = (folder / "data.mdb").read_bytes()
    found: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        damaged = bytearray(intact)
        for _ in range(num_flips):
            place = rng.randrange(META_BYTES, len(damaged)) // 4096 * 4096 + rng.randrange(
                page_bytes
            )
            damaged[place] ^= 1 << rng.randrange(8)
        copy = folder / "copy"
        copy.mkdir(exist_ok=True)
        (copy / "data.mdb").write_bytes(damaged)
        (copy / "lock.mdb").unlink(missing_ok=True)
        found[_in_a_child(copy)] += 1
    return found


def _in_a_child(folder: Path) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(30)
        try:
            word = look_at(folder)
        except BaseException as problem:
            word = f"raised {type(problem).__name__}: {problem}"[:200]
        os.write(writing, word.encode())
        os._exit(0)
    os.close(writing)
    word = os.read(reading, 1000).decode()
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else word


if __name__ == "__main__":  # one thread, so that it may fork
    write(Path(sys.argv[1]))
    first, count, flips, width = map(int, sys.argv[2:])
    print(repr(dict(flip_and_look(Path(sys.argv[1]), range(first, first + count), flips, width))))


def flips_in_a_process(folder: Path, *numbers: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.replay.faults.test_flips", str(folder), *map(str, numbers)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = eval(done.stdout)
    print(found)
    return found


@pytest.mark.parametrize(
    ("num_flips", "page_bytes"),
    [(1, 4096), (1, 64), (1, 16), (20, 4096)],
    ids=["anywhere", "nodes", "heads", "many"],
)
def test_bits_that_flip_in_the_file_cost_an_episode_or_one_clear_error(
    tmp_path: Path, num_flips: int, page_bytes: int
) -> None:
    found = flips_in_a_process(tmp_path, 0, 80, num_flips, page_bytes)
    assert set(found) <= {"unharmed", "one or more damaged", "refused"}
    assert sum(found.values()) == 80
    if num_flips == 1 and page_bytes == 4096:
        assert found.get("one or more damaged", 0) > 30
        assert found.get("refused", 0) <= 6  # most cost an episode, at most


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_flips", "page_bytes"), [(1, 4096), (1, 64), (1, 16), (3, 64), (20, 4096)]
)
def test_bits_that_flip_a_thousand_times(tmp_path: Path, num_flips: int, page_bytes: int) -> None:
    found = flips_in_a_process(tmp_path, 1000, 1000, num_flips, page_bytes)
    assert set(found) <= {"unharmed", "one or more damaged", "refused"}


@pytest.mark.parametrize("database", ["columns", "headers", "streams"])
def test_a_bit_that_flips_in_any_value_is_noticed_and_the_rest_is_readable(
    tmp_path: Path, database: str
) -> None:
    write(tmp_path)
    rng = random.Random(5)
    key, value = random_value(tmp_path, database, rng)
    damaged = bytearray(value)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    put(tmp_path, database, key, bytes(damaged))
    service = ReplayService(
        tmp_path, TASKS, LAYOUT, config(row_tokens=44, weights=(1.0, 1.0)), seed=0
    )
    for index in range(60):
        assert service.next_batch(index, timeout_s=0) is not None
    refused = service.stats().refused
    if database == "streams":
        assert refused == {"streams of keys damaged on disk": 1}
        assert len(service.keys()) == NUM_EPISODES
    else:
        assert refused == {"damaged on disk": 1}
        (number,) = service._store.damaged
        assert number == int.from_bytes(key[:8], "big")
        assert set(service.keys()) == {episode(n).key for n in range(NUM_EPISODES) if n != number}
    for number in range(NUM_EPISODES):
        assert (
            service.add(record_to_bytes(pack(episode(number))), timeout_s=0).status == "duplicate"
        )
    service.close()


def random_value(folder: Path, database: str, rng: random.Random) -> tuple[bytes, bytes]:
    env = lmdb.open(str(folder), max_dbs=8)
    with env.begin(db=env.open_db(database.encode())) as txn:
        # The actor's own episodes are too poor to be read here, and an even number is a teacher's.
        items = [
            (bytes(k), bytes(v))
            for k, v in txn.cursor()
            if database == "streams" or int.from_bytes(k[:8], "big") % 2 == 0
        ]
    env.close()
    return rng.choice([item for item in items if database != "streams" or item[0] == b"w."])


@pytest.mark.parametrize("name", ["limiter", "sampling"])
@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"{", b"[]", b'{"k0": 1}', b"null"])
def test_a_damaged_note_costs_what_it_said_and_not_the_replay(
    tmp_path: Path, name: str, value: bytes
) -> None:
    service = ReplayService(tmp_path, TASKS, LAYOUT, config(), seed=0)
    service.add(record_to_bytes(pack(counter_episode(0))), timeout_s=0)
    service.close()
    put(tmp_path, "counters", b"note/" + name.encode(), value)
    service = ReplayService(tmp_path, TASKS, LAYOUT, config(), seed=0)
    assert service.stats().inserted_tokens == 40
    assert service.next_batch(0, timeout_s=0) is not None
    service.close()


@pytest.mark.parametrize("name", ["inserted_tokens", "next", "incarnation", "num_shards"])
def test_a_counter_that_is_no_number_is_one_clear_error(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    put(tmp_path, "counters", name.encode(), b"1\xff2")
    with pytest.raises(ValueError, match=f"counter {name}"):
        EpisodeStore(tmp_path, capacity_bytes=CAPACITY_BYTES)
