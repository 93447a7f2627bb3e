"""`kill -9` in a storm of writes: what was acknowledged is there, once, whole and counted."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from gato.episode import AGENT, Episode
from replay.storage.store import EpisodeStore
from tests.replay.episodes import COUNTER, counter_episode, picture_episode

NUM_WRITERS = 8
LARGE_BYTES, SMALL_BYTES = 64 << 20, 1 << 20
ROOT = Path(__file__).parents[3]
WRITERS = """
import itertools, json, os, sys, threading
from dataclasses import replace
from pathlib import Path
from replay.storage.record import pack, record_to_bytes
from replay.service import ReplayService
from tests.replay.episodes import LAYOUT, TASKS, config
from tests.replay.faults.test_storm import episode_of_key

folder, durability = Path(sys.argv[1]), sys.argv[2]
incarnation, again = int(sys.argv[3]), json.loads(sys.argv[4])
letter, capacity_bytes = sys.argv[5], int(sys.argv[6])
chosen = replace(config(capacity_bytes=capacity_bytes), durability=durability)
service = ReplayService(folder, TASKS, LAYOUT, chosen, seed=0)

def write(writer):
    keys = (f"{letter}{writer}.{incarnation}.{n}" for n in range(10**9))
    for key in itertools.chain(again[writer], keys):
        added = service.add(record_to_bytes(pack(episode_of_key(key))), timeout_s=60)
        assert added.status in ("stored", "duplicate"), added
        os.write(1, f"{key} {added.status}\\n".encode())

for writer in range(len(again)):
    threading.Thread(target=write, args=(writer,)).start()
"""


def episode_of_key(key: str) -> Episode:
    """What a writer plays under a key; every eighth shows pictures. Of writers called v they are
    the agent's, and long."""
    writer, incarnation, number = (int(part.lstrip("vw")) for part in key.split("."))
    if number % 8 == 7:
        episode = replace(picture_episode(number % 200, steps=9), key=key)
    else:
        steps = 400 + 10 * (number % 40) if key[0] == "v" else 1 + number % 40
        episode = counter_episode((100 * writer + 10 * incarnation + number) % 1000, steps, key=key)
    return replace(episode, source=AGENT) if key[0] == "v" else episode


def tokens_of_key(key: str) -> int:
    episode = episode_of_key(key)
    return episode.num_steps * (4 if episode.task == COUNTER.name else 11)


class Storm:
    """Writers that remember, beyond the process that is killed, what was acknowledged and what was
    not.

    storm = Storm(folder, "group", seed=0); storm.strike(); storm.check()
    """

    def __init__(self, folder: Path, durability: str, *, seed: int, capacity_bytes: int) -> None:
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        self._letter = "w" if capacity_bytes == LARGE_BYTES else "v"
        self._durability = durability
        self._rng = random.Random(seed)
        self._incarnation = 0
        self._unsure: list[list[str]] = [[] for _ in range(NUM_WRITERS)]
        """Of each writer: what it had sent, or not, when the process was killed."""
        self.acknowledged: dict[str, str] = {}
        """Key to the first answer."""
        self.num_duplicates = 0

    def strike(self) -> None:
        """Let all writers write, and kill the process that they are in after a random number of
        answers."""
        self._incarnation += 1
        known = sorted(self.acknowledged)
        again = [keys + self._rng.sample(known, min(len(known), 2)) for keys in self._unsure]
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITERS,
                str(self._folder),
                self._durability,
                str(self._incarnation),
                json.dumps(again),
                self._letter,
                str(self._capacity_bytes),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
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
            assert (
                status == "stored"
                or key in self.acknowledged
                or any(key in keys for keys in self._unsure)
            )
            self.num_duplicates += status == "duplicate"
            self.acknowledged.setdefault(key, status)
        for writer, keys in enumerate(again):
            left = [key for key in keys if key not in self.acknowledged]
            numbers = [
                int(key.split(".")[2])
                for key in answered
                if key.startswith(f"{self._letter}{writer}.{self._incarnation}.")
            ]
            left.append(
                f"{self._letter}{writer}.{self._incarnation}.{max(numbers, default=-1) + 1}"
            )
            self._unsure[writer] = left

    def check(self) -> int:
        """All that was acknowledged is known, and there unless it made room; once, opens, holds
        what was played, and is counted. How many are there."""
        store = EpisodeStore(self._folder, capacity_bytes=self._capacity_bytes)
        keys = [header.key for header in store.episodes.values()]
        assert len(keys) == len(set(keys))
        assert all(store.known(key) for key in self.acknowledged)
        assert set(self.acknowledged) <= set(keys) or self._letter == "v"
        ever = {key for key in chain(self.acknowledged, *self._unsure) if store.known(key)}
        assert set(keys) <= ever
        assert store.inserted_tokens == sum(map(tokens_of_key, ever))
        assert not store.damaged
        for header in store.episodes.values():
            kept, played = store.episode(header), episode_of_key(header.key)
            for name, values in played.observations.items():
                np.testing.assert_array_equal(kept.observations[name], values)
            np.testing.assert_array_equal(kept.actions, played.actions)
        store.close()
        return len(keys)


@pytest.mark.parametrize(
    ("durability", "num_kills", "capacity_bytes"),
    [
        ("group", 6, LARGE_BYTES),
        pytest.param("group", 20, LARGE_BYTES, marks=pytest.mark.slow),
        ("always", 3, LARGE_BYTES),
        ("none", 3, LARGE_BYTES),
        ("group", 5, SMALL_BYTES),
    ],
)
def test_what_was_acknowledged_survives_kill_9_in_a_storm_of_eight_writers(
    tmp_path: Path, durability: str, num_kills: int, capacity_bytes: int
) -> None:
    storm = Storm(tmp_path, durability, seed=num_kills, capacity_bytes=capacity_bytes)
    num_kept = 0
    for _ in range(num_kills):
        storm.strike()
        num_kept = storm.check()
    assert len(storm.acknowledged) > 10 * num_kills
    assert storm.num_duplicates > num_kills
    assert (num_kept < len(storm.acknowledged)) == (capacity_bytes == SMALL_BYTES)
