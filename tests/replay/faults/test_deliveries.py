"""Deliveries that are lost, doubled and reordered: what was produced is stored, once, across
restarts, crashes and evictions."""

import itertools
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gato.episode import AGENT
from replay.service import ReplayService
from replay.shards import shard_of
from replay.storage.dedup import split_key
from replay.storage.record import pack, record_to_bytes
from tests.replay.episodes import LAYOUT, TASKS, config, counter_episode

NUM_WRITERS = 4
TOKENS_PER_STEP = 4
CAPACITY_BYTES = 1 << 20


class Deliveries(RuleBasedStateMachine):
    """Writers produce episodes; what lies between them and replay delivers as it likes."""

    num_shards = 1

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.lives = itertools.count()
        self.numbers = [0] * NUM_WRITERS
        self.incarnations = [1] * NUM_WRITERS
        self.produced: list[tuple[str, int, bytes]] = []
        """Key, steps and record of all that was ever produced for this shard."""
        self.stored: dict[str, int] = {}
        """Key to tokens of all that was ever acknowledged as stored."""
        self.demonstrations: set[str] = set()
        """Keys of what may never be evicted."""
        self.duplicates = 0
        self.evicted_before = 0

    @initialize(shard=st.integers(0, 2))
    def begin(self, shard: int) -> None:
        self.shard = shard % self.num_shards
        self.folder = self.root / "0"
        self.service = self._open()

    def _open(self) -> ReplayService:
        replay = replace(
            config(capacity_bytes=CAPACITY_BYTES), num_shards=self.num_shards, evict="agent"
        )
        return ReplayService(self.folder, TASKS, LAYOUT, replay, seed=0, shard=self.shard)

    @rule(writer=st.integers(0, NUM_WRITERS - 1), steps=st.integers(1, 12), by_agent=st.booleans())
    def produce(self, writer: int, steps: int, by_agent: bool) -> None:
        self._produce(writer, steps, AGENT if by_agent else "teacher:t")

    @rule(writer=st.integers(0, NUM_WRITERS - 1), count=st.integers(1, 5))
    def produce_much(self, writer: int, count: int) -> None:
        """What fills the capacity in a few deliveries: 200 KB each, by the agent."""
        for _ in range(count):
            self._produce(writer, 7000, AGENT)

    def _produce(self, writer: int, steps: int, source: str) -> None:
        stream = f"w{writer}.{self.incarnations[writer]}."
        # Every num_shards-th number of a writer has its home here, from one on that depends on the
        # writer.
        first = next(
            n
            for n in range(self.num_shards)
            if shard_of(split_key(f"{stream}{n}"), self.num_shards) == self.shard
        )
        number = self.numbers[writer] * self.num_shards + first
        self.numbers[writer] += 1
        key = f"{stream}{number}"
        if source != AGENT:
            self.demonstrations.add(key)
        episode = counter_episode(number % 1000, steps, key=key, source=source)
        if steps > 1000:  # the task's values end there
            episode.observations["state"][:] %= 1000
            episode.actions[:] %= 1000
        self.produced.append((key, steps, record_to_bytes(pack(episode))))

    @rule(writer=st.integers(0, NUM_WRITERS - 1))
    def start_a_writer_anew(self, writer: int) -> None:
        self.incarnations[writer] += 1
        self.numbers[writer] = 0

    @precondition(lambda self: self.produced)
    @rule(data=st.data(), is_answer_lost=st.booleans())
    def deliver(self, data: st.DataObject, is_answer_lost: bool) -> None:
        """Any episode, in any order, for the first time or again; a lost answer changes nothing, as
        it comes again later."""
        for _ in range(1 + is_answer_lost):
            self._expect(data.draw(st.sampled_from(self.produced)))

    @precondition(lambda self: self.produced)
    @rule()
    def deliver_the_newest_first(self) -> None:
        for item in reversed(self.produced[-6:]):
            self._expect(item)

    def _expect(self, item: tuple[str, int, bytes]) -> None:
        key, steps, data = item
        status = self.service.add(data, timeout_s=5).status
        assert status == ("duplicate" if key in self.stored else "stored")
        self.duplicates += status == "duplicate"
        self.stored.setdefault(key, steps * TOKENS_PER_STEP)

    @precondition(lambda self: self.produced)
    @rule(data=st.data(), times=st.integers(2, 4))
    def deliver_at_once(self, data: st.DataObject, times: int) -> None:
        """Some episodes, each several times, from threads that begin together."""
        chosen = data.draw(
            st.lists(
                st.sampled_from(self.produced), min_size=1, max_size=3, unique_by=lambda p: p[0]
            )
        )
        barrier = threading.Barrier(times * len(chosen))
        answers: list[tuple[str, str]] = []

        def deliver(key: str, record: bytes) -> None:
            barrier.wait(timeout=10)
            answers.append((key, self.service.add(record, timeout_s=5).status))

        threads = [
            threading.Thread(target=deliver, args=(key, record))
            for key, _, record in chosen
            for _ in range(times)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        for key, steps, _ in chosen:
            statuses = sorted(status for its_key, status in answers if its_key == key)
            assert statuses == ["duplicate"] * (times - (key not in self.stored)) + ["stored"] * (
                key not in self.stored
            )
            self.duplicates += statuses.count("duplicate")
            self.stored.setdefault(key, steps * TOKENS_PER_STEP)

    @rule()
    def read(self) -> None:
        self.service.next_batch(len(self.produced), timeout_s=0)

    @rule()
    def restart(self) -> None:
        self.service.close()
        self._forget_counts()
        self.service = self._open()

    @rule()
    def crash(self) -> None:
        """What is on disk while it runs is all that the next one has."""
        after = self.root / f"crash{next(self.lives)}"
        shutil.copytree(self.folder, after)
        self.service.close()
        shutil.rmtree(self.folder)
        self.folder = after
        self._forget_counts()
        self.service = self._open()

    def _forget_counts(self) -> None:
        self.duplicates = 0
        self.evicted_before = len(self.stored) - self._num_kept

    @property
    def _num_kept(self) -> int:
        return len(self.service.keys())

    @invariant()
    def all_is_counted_once(self) -> None:
        if not hasattr(self, "service"):
            return
        keys, stats = self.service.keys(), self.service.stats()
        assert len(keys) == len(set(keys))
        assert set(keys) <= set(self.stored)
        assert stats.inserted_tokens == sum(self.stored.values())
        assert stats.duplicates == self.duplicates
        assert stats.evicted == len(self.stored) - len(keys) - self.evicted_before
        assert stats.stored_bytes <= CAPACITY_BYTES
        assert not stats.refused
        assert (self.demonstrations & set(self.stored)) <= set(keys)

    def teardown(self) -> None:
        if hasattr(self, "service"):
            for item in self.produced:  # all come in the end, most again
                self._expect(item)
            assert set(self.stored) == {key for key, _, _ in self.produced}
            self.all_is_counted_once()
            self.service.close()
        shutil.rmtree(self.root)


class ThreeShards(Deliveries):
    """The second or third of three shards: of each writer it sees every third number."""

    num_shards = 3


@pytest.mark.parametrize("machine", [Deliveries, ThreeShards])
def test_what_was_produced_is_stored_once_however_it_is_delivered(
    machine: type[Deliveries],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
