"""Room: what goes when replay is full, and how it is counted."""

import itertools
from pathlib import Path

from gato.episode import AGENT
from replay.record import pack, record_to_bytes
from replay.service import ReplayService
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode


def test_as_many_are_counted_as_evicted_as_are_gone_and_room_is_made_for_several_at_once(tmp_path: Path) -> None:
    capacity_bytes = 1 << 20
    service = ReplayService(tmp_path, TASKS, LAYOUT, config(capacity_bytes=capacity_bytes), seed=0)
    evicted: list[int] = []
    for number in range(2000):
        data = record_to_bytes(pack(counter_episode(number % 1000, 3, key=f"w.{number}", source=AGENT)))
        assert service.add(data, timeout_s=0).status == "stored"
        evicted.append(service.stats().evicted)
        assert number + 1 - len(service.keys()) == evicted[-1]
    at_once = [after - before for before, after in itertools.pairwise(evicted) if after > before]
    assert max(at_once) > 1  # so that not every episode looks at all others
    assert service.stats().stored_bytes > 0.9 * capacity_bytes
    service.close()
