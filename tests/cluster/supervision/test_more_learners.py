"""A learner of two processes of which one has no place at first: the other trains alone, and both
train once a machine with a place joins the cluster."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.supervision.training import Training
from gato.metrics import LearnerReport
from tests.cluster.supervision.test_several_learners import started, took

PATIENCE_S = 240.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(cluster.address, namespace="test-more-learners")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_learner_without_a_place_joins_when_there_is_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    later = [{"num_cpus": 0, "resources": {"later": 1}}]
    learner = started(tmp_path, 1_000_000, later, num_cpus=0)
    events: list[tuple[str, str]] = []
    reports: list[LearnerReport] = []
    epochs = count(1)
    training = Training(
        learner, lambda: next(epochs), lambda kind, text: events.append((kind, text))
    )

    def trains_in(epoch: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(report.version.epoch == epoch for report in reports):
            assert time.monotonic() < deadline_s, f"it trains in epoch {epoch}"
            assert training.poll(timeout_s=0.1) is None
            reports.extend(took(learner))

    trains_in(1)
    cluster.add_node(num_cpus=1, resources={"later": 1})
    trains_in(2)
    assert [kind for kind, _ in events] == ["learner grows"]
    assert ray.get(ray.get_actor("learner-1-epoch2").pid.remote()) > 0
    # It was no death: nothing was made again, and nothing left out.
    steps = [report.step for report in reports if report.loss.count]
    assert steps == list(range(1, len(steps) + 1))
    training.stop()
    deadline_s = time.monotonic() + PATIENCE_S
    while (ended := training.poll(timeout_s=0.1)) is None:
        assert time.monotonic() < deadline_s, "it stops"
    assert ended == ("stopped", "")
    lines = (tmp_path / "versions").read_text().split("\n")[:-1]
    assert len(set(lines)) == len(lines)
    ray.kill(learner)
