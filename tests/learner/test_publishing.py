"""Publishing beside the loop: in order, fenced, and done before the run reports its end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gato.weights import Weights
from learner.publishing import Fenced
from tests.learner.test_learner import ListSink, make


class HeldSink(ListSink):
    """Takes the first version at once, and the others when it may."""

    def __init__(self, *, refuse_after: int | None = None) -> None:
        super().__init__(refuse_after=refuse_after)
        self.may_go_on = threading.Event()

    def publish(self, weights: Weights) -> bool:
        assert not self.published or self.may_go_on.wait(60)
        return super().publish(weights)


def test_the_loop_goes_on_while_a_version_is_published(tmp_path: Path) -> None:
    sink = HeldSink()
    for report in make(tmp_path, sink=sink).run():
        if report.step < 8:  # the publication of step 4 is held; that of step 8 would wait for it
            assert len(sink.published) == 1
            assert report.version.number == 1
            if report.step == 6:
                sink.may_go_on.set()
    assert [weights.learner_step for weights in sink.published] == [0, 4, 8, 12, 12]
    assert [weights.version.number for weights in sink.published] == [1, 2, 3, 4, 5]
    assert report.version == sink.published[-1].version


def test_a_version_has_the_weights_of_its_step(tmp_path: Path) -> None:
    sink, held = ListSink(), HeldSink()
    list(make(tmp_path / "plain", sink=sink).run())
    for report in make(tmp_path / "held", sink=held).run():
        if report.step == 6:
            held.may_go_on.set()
    for one, other in zip(sink.published, held.published, strict=True):
        for name, array in one.arrays.items():
            assert (array == other.arrays[name]).all()


def test_a_learner_that_is_fenced_beside_the_loop_ends_at_the_next_update(tmp_path: Path) -> None:
    sink = HeldSink(refuse_after=1)
    steps: list[int] = []

    def train() -> None:
        for report in make(tmp_path, sink=sink).run():
            steps.append(report.step)
            if report.step == 6:
                sink.may_go_on.set()

    with pytest.raises(Fenced, match="epoch 1 of this run is over"):
        train()
    assert steps == [3, 6]


def test_a_sink_that_fails_ends_the_learner_with_its_error(tmp_path: Path) -> None:
    class Broken(ListSink):
        def publish(self, weights: Weights) -> bool:
            if weights.learner_step == 4:
                raise ConnectionError("the store is gone")
            return super().publish(weights)

    with pytest.raises(ConnectionError, match="the store is gone"):
        list(make(tmp_path, sink=Broken()).run())
