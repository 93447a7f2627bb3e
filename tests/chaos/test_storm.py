"""A run on three machines keeps its promises while its parts are killed and its links are cut."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, redis_away
from tests.chaos.lab import lab, status, wait_for_nodes
from tests.chaos.measure import measure, problems
from tests.chaos.promises import broken_promises
from tests.chaos.storm import storm
from tests.cluster.hosts import missing

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing() or "it can"),
    pytest.mark.timeout(1800),
]
SHORT = ("F01", "F04", "F06", "F07", "F08", "F13")


def test_a_run_keeps_its_promises_in_a_short_storm(tmp_path: Path) -> None:
    """The short form of `make chaos`."""
    with lab(tmp_path) as it:
        faults = [fault for fault in FAULTS if fault.id in SHORT]
        outcome = storm(it, faults, seconds=5.0 * len(faults), seed=0)
    assert outcome.broken == []
    assert sum(outcome.faults.values()) >= len(faults) - 2  # some may wait for a process
    assert outcome.epochs > 1
    assert outcome.acknowledged > 20
    assert (outcome.lost, outcome.doubled) == (0, 0)


@pytest.mark.slow
def test_a_run_loses_each_part_and_a_machine_and_its_redis_and_still_finishes(
    tmp_path: Path,
) -> None:
    with lab(tmp_path, journal_is_there=True) as it:
        assert "wait: the cluster has" in it.head.gato("scale 6").stdout
        before = it.step
        (learner,) = it.pids("ray::LearnerActor")
        os.kill(learner, signal.SIGKILL)
        it.wait("the learner is missed", lambda: it.has_said("learner died", 0.0))
        it.wait("it goes on in its place", lambda: it.step > before + 200)
        it.head.gato("scale 1")
        it.third.kill()
        it.loops.pop("third")
        it.loops.pop("witness")
        it.start_node(it.third)
        redis_away(it)
        wait_for_nodes(it, 3)
        (home_lost,) = [fault for fault in FAULTS if fault.id == "F02 home"]
        assert problems(home_lost, measure(it, home_lost)) == []
        it.head.gato("stop debug")
        step = it.step
        it.head.gato(f"resume debug --updates {step + 400}", timeout_s=400.0)
        it.wait("the run finishes", lambda: status(it)["state"] == "finished")
        assert it.step == step + 400
        assert broken_promises(it) == []
