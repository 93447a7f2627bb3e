"""`kill -9` in a storm of writes: what was acknowledged is there, once, whole and counted."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gato.episode import Episode
from replay.store import EpisodeStore
from tests.replay.episodes import counter_episode, picture_episode

NUM_WRITERS = 8
ROOT = Path(__file__).parents[3]
WRITERS = """
import itertools, json, os, sys, threading
from dataclasses import replace
from pathlib import Path
from replay.record import pack, record_to_bytes
from replay.service import ReplayService
from tests.replay.episodes import LAYOUT, TASKS, config
from tests.replay.faults.test_storm import episode_of_key

folder, durability, incarnation, again = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
service = ReplayService(folder, TASKS, LAYOUT, replace(config(), durability=durability), seed=0)

def write(writer):
    keys = (f"w{writer}.{incarnation}.{n}" for n in range(10**9))
    for key in itertools.chain(again[writer], keys):
        added = service.add(record_to_bytes(pack(episode_of_key(key))), timeout_s=60)
        assert added.status in ("stored", "duplicate"), added
        os.write(1, f"{key} {added.status}\\n".encode())

for writer in range(len(again)):
    threading.Thread(target=write, args=(writer,)).start()
"""


def episode_of_key(key: str) -> Episode:
    """What a writer plays under a key; every eighth shows pictures."""
    writer, incarnation, number = (int(part.lstrip("w")) for part in key.split("."))
    if number % 8 == 7:
        return _named(picture_episode(number % 200, steps=9), key)
    return counter_episode((100 * writer + 10 * incarnation + number) % 1000, steps=1 + number % 40, key=key)


def _named(episode: Episode, key: str) -> Episode:
    return Episode(**{name: getattr(episode, name) for name in Episode.__dataclass_fields__} | {"key": key})


class Storm:
    """Writers that remember, beyond the process that is killed, what was acknowledged and what was not.

    storm = Storm(folder, "group", seed=0); storm.strike(); storm.check()
    """

    def __init__(self, folder: Path, durability: str, *, seed: int) -> None:
        self._folder = folder
        self._durability = durability
        self._rng = random.Random(seed)
        self._incarnation = 0
        self._unsure: list[list[str]] = [[] for _ in range(NUM_WRITERS)]
        """Of each writer: what it had sent, or not, when the process was killed."""
        self.acknowledged: dict[str, str] = {}
        """Key to the first answer."""
        self.num_duplicates = 0

    def strike(self) -> None:
        """Let all writers write, and kill the process that they are in after a random number of answers."""
        self._incarnation += 1
        known = sorted(self.acknowledged)
        again = [keys + self._rng.sample(known, min(len(known), 2)) for keys in self._unsure]
        process = subprocess.Popen(
            [sys.executable, "-c", WRITERS, str(self._folder), self._durability, str(self._incarnation), json.dumps(again)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stdout is not None
        most = self._rng.randint(1, 120)
        answers: list[str] = []
        with process.stdout as answered:
            for line in answered:
                answers.append(line)
                if len(answers) == most:
                    process.kill()
        assert process.wait() == -9
        self._note(again, answers)

    def _note(self, again: list[list[str]], answers: list[str]) -> None:
        answered = dict(line.split() for line in answers)
        for key, status in answered.items():
            assert status == "stored" or key in self.acknowledged or any(key in keys for keys in self._unsure)
            self.num_duplicates += status == "duplicate"
            self.acknowledged.setdefault(key, status)
        for writer, keys in enumerate(again):
            left = [key for key in keys if key not in self.acknowledged]
            numbers = [int(key.split(".")[2]) for key in answered if key.startswith(f"w{writer}.{self._incarnation}.")]
            left.append(f"w{writer}.{self._incarnation}.{max(numbers, default=-1) + 1}")
            self._unsure[writer] = left

    def check(self) -> None:
        """All that was acknowledged is there, once, opens, holds what was played, and is counted."""
        store = EpisodeStore(self._folder, capacity_bytes=64 << 20)
        keys = [header.key for header in store.episodes.values()]
        assert len(keys) == len(set(keys))
        assert set(self.acknowledged) <= set(keys)
        assert store.inserted_tokens == sum(header.tokens for header in store.episodes.values())
        assert not store.damaged
        for header in store.episodes.values():
            kept, played = store.episode(header), episode_of_key(header.key)
            for name, values in played.observations.items():
                np.testing.assert_array_equal(kept.observations[name], values)
            np.testing.assert_array_equal(kept.actions, played.actions)
        store.close()


@pytest.mark.parametrize(("durability", "num_kills"), [("group", 20), ("always", 3), ("none", 3)])
def test_what_was_acknowledged_survives_kill_9_in_a_storm_of_eight_writers(
    tmp_path: Path, durability: str, num_kills: int
) -> None:
    storm = Storm(tmp_path, durability, seed=num_kills)
    for _ in range(num_kills):
        storm.strike()
        storm.check()
    assert len(storm.acknowledged) > 10 * num_kills
    assert storm.num_duplicates > num_kills
