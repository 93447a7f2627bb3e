"""A disk that is full: what does not fit is refused by name, all else goes on, and it mends itself
when space appears."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from replay.rate_limiter import LimiterConfig
from replay.service import ReplayService
from replay.storage.eviction import ReplayDiskFull
from replay.storage.header import Header
from replay.storage.record import pack, record_to_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode
from tests.replay.faults.test_races import WAIT_S, run_all

SMALL_BYTES, LARGE_BYTES = 2 << 20, 64 << 20
ROOT = Path(__file__).parents[3]
SLACK_TOKENS = 2000


@dataclass
class Disk:
    """A folder on a disk that is small until it grows."""

    folder: Path
    sort: Literal["tmpfs", "limit"]

    def resize(self, size_bytes: int) -> None:
        if self.sort == "tmpfs":
            subprocess.run(["mount", "-o", f"remount,size={size_bytes}", self.folder], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A file system of its own, where one may be mounted; and a limit of what a file may take,
    which any user has."""
    if request.param == "limit":
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES, limits[1]))
        yield Disk(tmp_path, "limit")
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(tmp_path)]
    if (
        os.geteuid() != 0
        or (
            mounted := subprocess.run(mount, capture_output=True, text=True, check=False)
        ).returncode
    ):
        pytest.skip(
            "a small file system cannot be mounted here"
            + (f": {mounted.stderr}" if os.geteuid() == 0 else "")
        )
    yield Disk(tmp_path, "tmpfs")
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def open_service(folder: Path) -> ReplayService:
    limiter = LimiterConfig(
        warmup_tokens=0, reads_per_inserted_token=1e-6, slack_tokens=SLACK_TOKENS
    )
    return ReplayService(folder, TASKS, LAYOUT, config(limiter=limiter), seed=0)


def record(key: str, steps: int) -> bytes:
    return record_to_bytes(pack(counter_episode(7, steps, key=key)))


def test_writers_are_refused_readers_go_on_and_space_lets_them_in_again(disk: Disk) -> None:
    service = open_service(disk.folder / "store")
    acknowledged: set[str] = set()

    def write(writer: int) -> None:
        for nth in range(10**6):
            key = f"w{writer}.1.{nth}"
            added = service.add(record(key, 900), timeout_s=WAIT_S)
            if added.status == "rejected":
                assert "disk full" in added.reason
                return
            assert added.status == "stored"
            acknowledged.add(key)

    run_all(*[lambda w=w: write(w) for w in range(8)])
    assert len(acknowledged) > 10
    assert service.stats().refused.keys() == {"disk full"}
    assert service.add(record("w0.1.0", 900), timeout_s=0).status == "duplicate"
    assert service.add(record("large.0", 900), timeout_s=0).status == "rejected"
    for index in range(20):  # beyond the slack, as no writer can keep up
        assert service.next_batch(index, timeout_s=0) is not None
    assert service.stats().read_tokens > 2 * SLACK_TOKENS
    disk.resize(LARGE_BYTES)
    for writer in range(8):
        key = f"w{writer}.2.0"
        assert service.add(record(key, 900), timeout_s=WAIT_S).status == "stored"
        acknowledged.add(key)
    inserted_tokens = service.stats().inserted_tokens
    service.close()
    store = EpisodeStore(disk.folder / "store", capacity_bytes=64 << 20)
    assert {header.key for header in store.episodes.values()} == acknowledged
    assert store.inserted_tokens == inserted_tokens == len(acknowledged) * 900 * 4
    assert sum(episode.num_steps for episode in store.all_episodes()) == len(acknowledged) * 900
    store.close()


def test_of_a_group_only_what_does_not_fit_is_refused(disk: Disk) -> None:
    store = EpisodeStore(disk.folder / "store", capacity_bytes=64 << 20)
    small = [(pack(counter_episode(n, 5, key=f"small.{n}")), 5) for n in range(6)]
    large = (pack(counter_episode(9, 100_000, key="large.0")), 100_000)
    outcomes = store.add_all([*small[:3], large, *small[3:], small[0]])
    assert [type(outcome) for outcome in outcomes] == [Header] * 3 + [ReplayDiskFull] + [
        Header
    ] * 3 + [type(None)]
    assert not store.known("large.0")
    disk.resize(LARGE_BYTES)
    assert store.add(counter_episode(9, 100_000, key="large.0"), tokens=100_000) is not None
    assert (len(store.episodes), store.inserted_tokens) == (7, 100_030)
    store.close()


def test_a_replay_on_a_full_disk_opens_reads_and_is_closed(disk: Disk) -> None:
    folder = disk.folder / "store"
    service = open_service(folder)
    number = 0
    while service.add(record(f"w.{number}", 900), timeout_s=0).status == "stored":
        number += 1
    service.close()
    if disk.sort == "tmpfs":
        fill_up(disk.folder)
    # In a process of its own: memory that is mapped from a full disk ends a process by a signal.
    run_in_a_process(READ_ON_A_FULL_DISK, folder, number)
    disk.resize(LARGE_BYTES)
    again = open_service(folder)
    assert len(again.keys()) >= number
    assert again.add(record("w.x", 900), timeout_s=0).status == "stored"
    again.close()


def test_a_store_that_finds_no_room_to_begin_says_so(disk: Disk) -> None:
    if disk.sort == "limit":
        pytest.skip("a limit of the size of each file leaves a new store its first pages")
    fill_up(disk.folder)
    run_in_a_process(BEGIN_ON_A_FULL_DISK, disk.folder / "store", 0)


def fill_up(folder: Path) -> None:
    """Take each byte that is left."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


def run_in_a_process(program: str, folder: Path, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder), str(number)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


READ_ON_A_FULL_DISK = """
import sys
from pathlib import Path
from tests.replay.faults.test_disk_full import open_service, record
service = open_service(Path(sys.argv[1]))
assert len(service.keys()) == int(sys.argv[2])
for index in range(20):
    service.next_batch(index, timeout_s=0)
more = (service.add(record(f"more.{n}", 900), timeout_s=0) for n in range(9))
assert any(added.status == "rejected" for added in more)
assert service.next_batch(99, timeout_s=0) is not None
service.close()
"""
BEGIN_ON_A_FULL_DISK = """
import sys
from pathlib import Path
from replay.storage.store import EpisodeStore
try:
    EpisodeStore(Path(sys.argv[1]), capacity_bytes=1 << 20)
except ValueError as problem:
    assert "cannot open the replay store" in str(problem), problem
else:
    raise AssertionError("it opened")
"""
