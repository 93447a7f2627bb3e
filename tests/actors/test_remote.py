"""A worker in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from actors.agent import GatoPlayers
from actors.assignment import Assignment
from actors.remote import RemoteWorker
from actors.tasks import TASKS
from actors.teachers import Teachers
from gato.model import ModelConfig
from tests.actors.fakes import ListSink, ListSource


@pytest.fixture
def one_core() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow  # starting Ray takes most of it; whole runs are tested in tests/cluster
@pytest.mark.usefixtures("one_core")
def test_a_remote_worker_does_what_a_worker_does() -> None:
    name = "mujoco/inverted-pendulum"
    players = GatoPlayers(
        model=ModelConfig(num_layers=1, num_heads=1, width=16, feedforward=16, context_tokens=16),
        evaluate={},
        generate={},
        seed=0,
    )
    worker = RemoteWorker.options(num_cpus=1, max_restarts=-1, max_concurrency=2).remote(
        "w7", {name: TASKS[name]}, players, ListSink(), ListSource([]), Teachers(), 0
    )
    assert ray.get(worker.progress.remote()).assignment is None
    assignment = Assignment(role="teach", task=name, seeds=(0,))
    report, evaluation = ray.get(worker.perform.remote(assignment))
    assert evaluation is None
    assert report.worker == "w7"
    assert report.episodes == 1
    progress = ray.get(worker.progress.remote())
    assert progress.assignment == assignment
    assert progress.steps == report.env_steps
