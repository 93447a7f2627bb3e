"""A hundred thousand episodes: replay is back within seconds."""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from replay.sampling.mixture import Mixture
from replay.storage.record import Record, pack, record_of
from replay.storage.store import EpisodeStore
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode

NUM_EPISODES, GROUP = 100_000, 5000
CAPACITY_BYTES = 1 << 30
MOST_OPEN_S, MOST_FIRST_BATCH_S = 5.0, 1.0
MOST_OVER_JSON = 25
"""Times as long as reading the headers' JSON alone, in processor time: a bound for a busy machine,
on which two tests run at once."""


def write(folder: Path) -> None:
    store = EpisodeStore(folder, capacity_bytes=CAPACITY_BYTES, durability="none")
    tiny = pack(counter_episode(0, 2))
    for first in range(0, NUM_EPISODES, GROUP):
        group = [(_named(tiny, f"w{n % 64}.1.{n // 64}"), 8) for n in range(first, first + GROUP)]
        assert None not in store.add_all(group)
    store.close()


def _named(record: Record, key: str) -> Record:
    return record_of(replace(record.header, key=key, episode_return=2.0), record.values)


@pytest.mark.slow
def test_a_hundred_thousand_episodes_open_within_seconds_and_give_a_batch_at_once(
    tmp_path: Path,
) -> None:
    write(tmp_path)
    begun_s = time.process_time()
    store = EpisodeStore(tmp_path, capacity_bytes=CAPACITY_BYTES)
    opened_s = time.process_time()
    mix = Mixture(
        store, TASKS, LAYOUT, config().mix, seed=0, teacher_returns={}, cache_bytes=1 << 20
    )
    assert mix.sample(0) is not None
    drawn_s = time.process_time()
    assert (len(store.episodes), store.inserted_tokens) == (NUM_EPISODES, 8 * NUM_EPISODES)
    print(f"opened in {opened_s - begun_s:.2f} s, first batch after {drawn_s - opened_s:.2f} s")
    texts = [json.dumps(asdict(header)) for header in store.episodes.values()]
    begun_json_s = time.process_time()
    assert all(json.loads(text)["steps"] == 2 for text in texts)
    json_s = time.process_time() - begun_json_s
    assert opened_s - begun_s < max(MOST_OPEN_S, MOST_OVER_JSON * json_s)
    assert drawn_s - opened_s < MOST_FIRST_BATCH_S
    store.close()
