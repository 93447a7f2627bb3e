"""Scheduler, worker and replay together while the limiter holds writers back: all that was played
is stored in the end, and nobody plays what has no room."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from actors.config import ActorsConfig
from actors.delivery import Outbox
from actors.players.player import TimeStep
from actors.tasks.catalog import TASKS
from actors.worker import Worker
from cluster.runs.presets import RUNS
from cluster.supervision.scheduler import Scheduler
from gato.episode import Episode
from gato.version import Version
from replay.config import ReplayConfig
from replay.ingest import Added
from replay.rate_limiter import LimiterConfig
from replay.service import ReplayService
from replay.storage.record import pack, record_to_bytes
from tests.actors.fakes import ListSource, WeightedEcho

NAME = "mujoco/inverted-pendulum"
SLACK_TOKENS = 6 * 1000
"""An episode of its teacher."""
TURNS = 300


class _Sink:
    """Replay as a worker's sink, which asks it to wait almost at once."""

    def __init__(self, service: ReplayService) -> None:
        self._service = service

    def add(self, episode: Episode) -> Added:
        return self._service.add(record_to_bytes(pack(episode)), timeout_s=0.01)


class _Falls(WeightedEcho):
    """Does nothing."""

    def act(self, step: TimeStep) -> np.ndarray:
        return np.zeros((step.num_rows, 1), np.float32)


def test_what_was_played_reaches_replay_when_it_has_room_again(tmp_path: Path) -> None:
    debug, tasks = RUNS["debug"], {NAME: TASKS[NAME]}
    limiter = LimiterConfig(
        warmup_tokens=1, reads_per_inserted_token=1.0, slack_tokens=SLACK_TOKENS
    )
    config = ReplayConfig(
        capacity_bytes=debug.replay.capacity_bytes, limiter=limiter, mix=debug.replay.mix
    )
    service = ReplayService(tmp_path, tasks, debug.model.layout, config, seed=0)
    actors = ActorsConfig(num_envs=4, demonstration_steps=12_000, generate_share=0.0)
    scheduler = Scheduler(actors, [NAME], demonstration_steps={}, teachable=[NAME], seed=0)
    versions = [Version(1, number + 1) for number in range(TURNS)]
    worker = Worker(
        "w0", tasks, lambda *_: _Falls(), _Sink(service), ListSource([*versions]),
        outbox=Outbox(pause_s=0.0),
    )  # fmt: skip
    try:
        kept, played, steps = [0], 0, 0
        for turn, version in enumerate(versions):
            scheduler.published(version)
            has_room = service.stats().may_insert
            scheduler.replay_takes(has_room)
            if not has_room:  # the learner goes on meanwhile
                assert service.next_batch(turn, timeout_s=1.0) is not None
            assignment = scheduler.next("w0", float(turn))
            assert assignment is not None
            report, _ = worker.perform(assignment)
            assert report.refused == {}
            if assignment.role == "demonstrate":
                assert has_room
                played += report.episodes
                steps += report.env_steps
            kept.append(report.kept)
            scheduler.done("w0", assignment, report, float(turn))
            if steps >= actors.demonstration_steps and not report.kept:
                break
        assert max(kept) > 0, "the limiter held nobody back"
        assert steps >= actors.demonstration_steps
        assert sum(service.stats().episodes.values()) == played
    finally:
        service.close()
