"""A worker in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import ray
import torch
from ray.exceptions import RayTaskError

from actors.assignment import Assignment
from actors.envs.factory import WorkerEnvs
from actors.players.gato_player import GatoPlayers
from actors.players.inference_server import NotServedError
from actors.remote import InferenceActor, RemoteWorker, end_inference, inference_of_node
from actors.tasks.catalog import TASKS
from actors.teachers.resolve import Teachers
from gato.acting.config import ActingConfig
from gato.config import ModelConfig
from gato.network.model import Gato
from gato.version import Version
from gato.weights import Weights, snapshot
from tests.actors.fakes import ListSink, ListSource

MODEL = ModelConfig(num_layers=1, num_heads=1, width=16, feedforward=16, context_tokens=64)


class OneVersion:
    """A source of one version, in any process."""

    def newer_than(self, version: Version | None) -> Weights | None:
        torch.manual_seed(0)
        made = Weights(version=Version(1, 1), learner_step=1, arrays=snapshot(Gato(MODEL)))
        return made if version is None else None


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
        "w7", {name: TASKS[name]}, players, ListSink(), ListSource([]), Teachers(), WorkerEnvs(), 0
    )
    assert ray.get(worker.progress.remote()).assignment is None
    assignment = Assignment(role="demonstrate", task=name, seeds=(0,))
    report, evaluation = ray.get(worker.perform.remote(assignment))
    assert evaluation is None
    assert report.worker == "w7"
    assert report.episodes == 1
    progress = ray.get(worker.progress.remote())
    assert progress.assignment == assignment
    assert progress.steps == report.env_steps


@pytest.mark.usefixtures("one_core")
def test_an_inference_process_is_as_nice_as_workers_and_has_the_threads_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    niceness, num_threads = list[int](), list[int]()
    monkeypatch.setattr(os, "nice", niceness.append)
    monkeypatch.setattr(torch, "set_num_threads", num_threads.append)
    InferenceActor(
        GatoPlayers(model=MODEL, evaluate={}, generate={}, seed=0), {}, OneVersion(), 5, 2
    )
    assert (niceness, num_threads) == ([5], [2])


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_workers_of_a_node_share_one_inference_process_and_go_on_after_its_death() -> None:
    names = ("atari/freeway", "mujoco/inverted-pendulum")
    tasks = {name: TASKS[name] for name in names}
    acting = dict.fromkeys(names, ActingConfig(window_steps=1))
    players = GatoPlayers(model=MODEL, evaluate=acting, generate=acting, seed=0)
    workers = [
        RemoteWorker.options(num_cpus=0, max_concurrency=2).remote(
            name,
            tasks,
            players,
            ListSink(),
            OneVersion(),
            Teachers(),
            WorkerEnvs(),
            0,
            True,
            "launch1",
        )
        for name in ("w0", "w1")
    ]
    long = Assignment(role="evaluate", task="atari/freeway", seeds=(0,))
    playing = [worker.perform.remote(long) for worker in workers]
    while (
        min(
            progress.steps for progress in ray.get([worker.progress.remote() for worker in workers])
        )
        < 5
    ):
        pass
    (name,) = ray.util.list_named_actors()
    os.kill(ray.get(ray.get_actor(name).pid.remote()), signal.SIGKILL)
    for reference in playing:
        with pytest.raises(RayTaskError) as failure:
            ray.get(reference)
        assert isinstance(failure.value.cause, NotServedError)
        assert (
            str(failure.value.cause) == "the inference process of this node died; Ray restarts it"
        )
    short = Assignment(role="evaluate", task="mujoco/inverted-pendulum", seeds=(0, 1))
    (_, first), (_, second) = ray.get([worker.perform.remote(short) for worker in workers])
    assert first is not None
    assert second is not None
    assert first.failed is None
    assert first.returns == second.returns
    # which finds what the first has left
    inference_of_node(players, tasks, OneVersion(), launch="launch2")
    assert {left.split("-")[1] for left in ray.util.list_named_actors()} == {"launch1", "launch2"}
    end_inference()
    assert ray.util.list_named_actors() == []
