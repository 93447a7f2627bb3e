"""A trace of a few updates."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from learner.config import LearnerConfig
from learner.profiler import SKIPPED
from tests.learner.test_learner import CONFIG, make


def test_a_trace_has_the_updates_by_their_parts(tmp_path: Path) -> None:
    learner = make(tmp_path, config=replace(CONFIG, profile_updates=3))
    list(learner.run())
    first, last = SKIPPED + 1, SKIPPED + 3
    file = tmp_path / "traces" / f"learner-{first}-{last}.json.gz"
    [said] = [text for _, text in learner.notes if "trace" in text]
    assert said.startswith(f"trace of updates {first} to {last}: ")
    assert said.endswith(f"traces/{file.name}")
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    for part in ("forward", "backward", "optimiser"):
        spans = [e for e in events if e.get("name") == part and e.get("ph") == "X"]
        assert len(spans) == 3, part


def test_a_run_that_ends_before_leaves_no_trace(tmp_path: Path) -> None:
    learner = make(tmp_path, config=replace(CONFIG, profile_updates=100))
    list(learner.run())
    assert not (tmp_path / "traces").exists()
    assert not [text for kind, text in learner.notes if "trace" in text]


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="profile_updates is -1"):
        LearnerConfig(num_updates=1, profile_updates=-1)
