"""The learner as a Ray actor: SIGTERM saves its last update; a second learner ends the first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from gato.sequence import Batch
from gato.version import Version
from gato.weights import Weights
from learner.checkpoints.files import list_checkpoints
from learner.remote import RemoteLearner
from tests.gato.models import ROBOT
from tests.learner.test_learner import CONFIG, MODEL, ListSource

FOREVER = replace(
    CONFIG, num_updates=1_000_000, checkpoint_every=1_000_000, publish_every=2, report_every=1
)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def write_whole(file: Path, text: str) -> None:
    """A file that is whole whenever it is read."""
    draft = file.with_name(f".{file.name}-{os.getpid()}-{threading.get_ident()}")
    draft.write_text(text)
    draft.replace(file)


class Source(ListSource):
    """Notes its process."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def next_batch(self, index: int, timeout_s: float) -> Batch | None:
        write_whole(self._file, str(os.getpid()))
        return super().next_batch(index, timeout_s)


class FileSink:
    """Takes versions of the latest epoch that a file names."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def publish(self, weights: Weights) -> bool:
        newest = int(self._file.read_text()) if self._file.exists() else 0
        if weights.version < Version(newest, 0):
            return False
        write_whole(self._file, str(weights.version.epoch))
        return True


def until(holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def is_up(learner: ray.actor.ActorProxy) -> bool:
    try:
        ray.get(learner.is_training.remote())
    except ray.exceptions.RayActorError:
        return False
    return True


def start(folder: Path) -> ray.actor.ActorProxy:
    return RemoteLearner.options(max_restarts=-1, max_concurrency=8, num_cpus=0).remote(
        FOREVER, MODEL, Source(folder / "pid"), FileSink(folder / "epoch"), folder / "checkpoints",
        [ROBOT.name], 5,
    )  # fmt: skip


def test_sigterm_to_the_actor_saves_its_last_update_and_ray_starts_it_again(tmp_path: Path) -> None:
    learner = start(tmp_path)
    trained = learner.train.remote(1)
    until(lambda: any(report.step >= 3 for report in ray.get(learner.take_reports.remote())[0]))
    begun_s = time.monotonic()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(trained, timeout=20)
    assert time.monotonic() - begun_s < 20
    [saved] = list_checkpoints(tmp_path / "checkpoints")
    assert int(saved.name.removeprefix("step-")) >= 3
    # Its place is taken by a process that has not begun; it goes on from there.
    until(lambda: is_up(learner))
    assert not ray.get(learner.is_training.remote())
    again = learner.train.remote(2)
    until(lambda: bool(ray.get(learner.take_reports.remote())[0]))
    ray.get(learner.stop.remote())
    assert ray.get(again, timeout=60) == "stopped"
    assert len(list_checkpoints(tmp_path / "checkpoints")) == 2
    ray.kill(learner)


def test_of_two_learners_the_one_of_the_earlier_epoch_ends_and_says_so(tmp_path: Path) -> None:
    first, second = start(tmp_path), start(tmp_path)
    ended = first.train.remote(1)
    until(lambda: bool(ray.get(first.take_reports.remote())[0]))
    goes_on = second.train.remote(2)
    said = "epoch 1 of this run is over: a newer learner publishes; this one ends"
    assert ray.get(ended, timeout=120) == said
    assert not ray.wait([goes_on], timeout=0)[0]
    ray.kill(first)
    ray.kill(second)
