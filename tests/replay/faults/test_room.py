"""Room: what goes when replay is full, and how it is counted."""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from gato.episode import AGENT
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode

ROOT = Path(__file__).parents[3]


def test_as_many_are_counted_as_evicted_as_are_gone_and_room_is_made_for_several_at_once(
    tmp_path: Path,
) -> None:
    capacity_bytes = 1 << 20
    replay = replace(config(capacity_bytes=capacity_bytes), durability="none")
    service = ReplayService(tmp_path, TASKS, LAYOUT, replay, seed=0)
    evicted: list[int] = []
    for number in range(2000):
        data = record_to_bytes(
            pack(counter_episode(number % 1000, 3, key=f"w.{number}", source=AGENT))
        )
        assert service.add(data, timeout_s=0).status == "stored"
        evicted.append(service.stats().evicted)
        assert number + 1 - len(service.keys()) == evicted[-1]
    at_once = [after - before for before, after in itertools.pairwise(evicted) if after > before]
    assert max(at_once) > 1  # so that not every episode looks at all others
    assert service.stats().stored_bytes > 0.9 * capacity_bytes
    service.close()


STUCK_READER = """
import sys
from dataclasses import replace
from pathlib import Path
from replay.storage.store import EpisodeStore
store = EpisodeStore(Path(sys.argv[1]), capacity_bytes=1 << 20, read_only=True)
with store.views(next(iter(store.episodes.values())), ["actions"], 0, 1):
    print("reading", flush=True)
    sys.stdin.read()
"""


def test_a_reader_that_was_killed_while_it_read_keeps_no_space(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 20, durability="none")
    store.add(counter_episode(0, 900, key="w.0", source=AGENT), tokens=1)
    reader = subprocess.Popen(
        [sys.executable, "-c", STUCK_READER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"reading\n"
    reader.kill()
    reader.wait()
    reader.stdin.close()
    reader.stdout.close()
    for number in range(1, 1000):
        assert (
            store.add(counter_episode(number, 900, key=f"w.{number}", source=AGENT), tokens=1)
            is not None
        )
    assert store.database.file_bytes < 8 * store.capacity_bytes
    store.close()
