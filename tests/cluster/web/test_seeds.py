"""Averages over seeds are on the scales that the runs have, however late those are read."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.written_runs import (
    BEGIN_S,
    SCALE,
    STEP_S,
    append,
    evaluation,
    make_run,
    write_scales,
)
from cluster.journal.records import Event
from cluster.web.follower import Follower, page_folder
from cluster.web.kept import read_history
from cluster.web.seeds import Seeds
from gato.metrics import Evaluation
from gato.version import Version
from tests.cluster.wait import until

HOPPER = "mujoco/hopper"


def last_value(text: str) -> float:
    (group,) = json.loads(text)["groups"]
    return group["bands"][HOPPER]["y"][-1]


def test_averages_are_computed_anew_once_scales_are_there(tmp_path: Path) -> None:
    run = make_run(tmp_path, "one", tasks=(HOPPER,), reports=20)
    (run.path / "scales.json").unlink()
    follower, seeds = Follower(run), Seeds()
    follower.start()
    until(lambda: follower.summary.state == "finished")
    raw = last_value(seeds.averages([follower], "step"))
    assert raw > 100
    write_scales(run, (HOPPER,))
    until(lambda: bool(follower.summary.scales))
    span = SCALE.teacher_return - SCALE.random_return
    expected = pytest.approx((raw - SCALE.random_return) / span)
    assert last_value(seeds.averages([follower], "step")) == expected
    follower.close()


def test_a_history_that_was_kept_is_read_on_its_scales_from_the_first_moment_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, "one", tasks=(HOPPER,), reports=20)
    first = Follower(run)
    first.start()
    until(lambda: first.summary.state == "finished")
    first.close()
    assert read_history(page_folder(run), run.info().id or run.name) is not None
    again, seen, ends = Follower(run), list[bool](), threading.Event()

    def read() -> None:
        seen.append(bool(again.summary.scales) and again.last > 0)
        ends.wait(20)

    monkeypatch.setattr(again, "_read_until_closed", read)
    again.start()
    until(lambda: bool(seen))
    assert seen == [True]
    ends.set()
    again.close()


def test_who_follows_takes_the_curves_anew_after_weights_were_lost(tmp_path: Path) -> None:
    run = make_run(tmp_path, "one", tasks=(HOPPER,), reports=20, ends=False)
    follower = Follower(run)
    follower.start()
    until(lambda: follower.since(0) is not None and follower.last > 100)
    until(lambda: json.loads(follower.snapshot(100))["now"]["problem"] == "")
    last = follower.last
    rng = np.random.default_rng(0)
    begun = evaluation(HOPPER, 21, 5.0, rng)
    resumed = Evaluation(
        task=HOPPER, version=Version(2, 21), learner_step=100, returns=begun.returns
    )
    append(run, [(BEGIN_S + 21 * STEP_S, resumed)])
    until(lambda: follower.last > last)
    assert follower.since(last) is None
    snapshot = json.loads(follower.snapshot(100))
    assert [row[0] for row in snapshot["curves"][HOPPER]] == [*range(10, 110, 10)]
    append(run, [(BEGIN_S + 22 * STEP_S, Event(kind="scaled", text="to 4"))])
    until(lambda: follower.last > last + 1)
    _, changes = follower.since(last + 1) or (0, [])
    assert len(changes) == 1
    follower.close()
