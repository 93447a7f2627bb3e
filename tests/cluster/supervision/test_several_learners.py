"""A learner of two processes on a local Ray: one of them is killed, and both go on from the last
checkpoint."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.nodes.connect import connect_ray
from cluster.supervision.learner_place import free_places, learner_places
from cluster.supervision.training import Training
from gato.metrics import LearnerReport
from gato.version import Version
from gato.weights import Weights
from learner.checkpoints.files import list_checkpoints
from learner.remote import RemoteLearner
from learner.remote_ranks import RankOptions
from tests.learner.parallel.runs import CONFIG, MODEL, SEED, TASKS, MixedSource

PATIENCE_S = 120.0
BACK_S = 60.0
"""Until a learner of two processes trains again after one was killed."""


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect_ray(None, namespace="test-learners")
    yield
    ray.shutdown()


class FileSink:
    """Writes a line for each version that is published, in whatever process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def publish(self, weights: Weights) -> bool:
        with self._file.open("a") as lines:
            lines.write(f"{weights.version.epoch} {weights.version.number}\n")
        return True


def started(folder: Path, updates: int, others: list[RankOptions], **options: Any) -> Any:
    """A learner of two processes, with its versions and checkpoints in `folder`."""
    return RemoteLearner.options(
        name="learner", max_concurrency=8, max_restarts=-1, **options
    ).remote(
        replace(CONFIG, num_updates=updates, num_learners=2),
        MODEL,
        MixedSource((1, 0, 2)),
        FileSink(folder / "versions"),
        folder / "checkpoints",
        [task.name for task in TASKS],
        SEED,
        others,
    )


@pytest.mark.slow
def test_two_processes_go_on_from_the_last_checkpoint_after_kill_9_of_one(tmp_path: Path) -> None:
    first, *others = learner_places(2, 1, on_cluster=False)
    learner = started(tmp_path, 100_000, others, **first)
    events: list[str] = []
    reports: list[LearnerReport] = []
    epochs = count(1)

    training = Training(learner, lambda: next(epochs), lambda kind, text: events.append(kind))

    def trains_until(is_so: str, epoch: int, step: int) -> None:
        """Poll until a report of this epoch is behind `step`."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(r.version.epoch == epoch and r.step > step for r in reports):
            assert time.monotonic() < deadline_s, is_so
            assert training.poll(timeout_s=0.1) is None
            reports.extend(took(learner))

    trains_until("it trains", 1, 10)
    rank = ray.get_actor("learner-1-epoch1")
    os.kill(ray.get(rank.pid.remote()), signal.SIGKILL)
    killed_s = time.monotonic()
    saved = max(int(path.name.split("-")[1]) for path in list_checkpoints(tmp_path / "checkpoints"))
    trains_until("it trains again", 2, saved + 1)
    assert time.monotonic() - killed_s < BACK_S
    assert "learner died" in events
    # From the last checkpoint, in the order of versions, and none twice.
    again = [report for report in reports if report.version.epoch == 2]
    assert again[0].step - 1 >= saved
    assert (again[0].step - 1) % CONFIG.checkpoint_every == 0
    training.stop()
    deadline_s = time.monotonic() + PATIENCE_S
    while (ended := training.poll(timeout_s=0.1)) is None:
        assert time.monotonic() < deadline_s, "it stops"
    assert ended == ("stopped", "")
    lines = (tmp_path / "versions").read_text().split("\n")[:-1]
    versions = [Version(*map(int, line.split())) for line in lines]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(versions)
    ray.kill(learner)


def took(learner: object) -> list[LearnerReport]:
    """The learner's new reports; none while it is away."""
    try:
        return ray.get(learner.take_reports.remote(), timeout=5.0)[0]  # pyright: ignore
    except ray.exceptions.RayError:
        return []


def test_places_on_a_cluster_are_reserved_and_the_first_is_at_home() -> None:
    places = learner_places(2, 1, on_cluster=True)
    try:
        strategies = [place["scheduling_strategy"] for place in places]
        assert [one.placement_group_bundle_index for one in strategies] == [0, 1]
        home, other = strategies[0].placement_group.bundle_specs
        assert [place["num_cpus"] for place in places] == [1, 1]
        assert home["CPU"] == other["CPU"] == 1
        assert f"node:{ray.util.get_node_ip_address()}" in home
        cores = ray.cluster_resources()["CPU"]
        assert ray.available_resources().get("CPU", 0) == cores - 2
        # Whoever takes over the run gets the same places.
        again = learner_places(2, 1, on_cluster=True)[0]["scheduling_strategy"].placement_group
        assert again.id == strategies[0].placement_group.id
    finally:
        free_places()


def test_more_learners_than_gpus_or_cores_are_refused_in_one_line() -> None:
    cores = int(ray.cluster_resources()["CPU"])
    with pytest.raises(
        ValueError,
        match=f"num_learners is {cores + 1}, and the cluster has {cores} cores for them; lower",
    ):
        learner_places(cores + 1, 1, on_cluster=True)
