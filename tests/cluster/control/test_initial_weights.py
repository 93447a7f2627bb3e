"""`gato start --from`: whose model a run has, and what is refused before anything starts."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from cluster.control.build_run import make_config
from cluster.control.export import export_policy
from cluster.control.initial_weights import InitialWeights, initial_of
from cluster.control.session import Session
from cluster.journal.writer import JournalWriter
from cluster.runs.config import RunConfig
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from learner.checkpoints.files import list_checkpoints
from learner.checkpoints.initial import stored_arrays
from tests.cluster.control.test_export import made_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


def finetune(weights: str | None, *settings: str, tasks: list[str] | None = None) -> RunConfig:
    return make_config(
        "finetune", name=None, tasks=tasks, data=[], settings=settings, weights=weights
    )


def test_a_run_has_the_model_and_the_weights_of_a_run() -> None:
    trained = made_run(RUNS["debug"])
    config = finetune("debug", tasks=["reacher"])
    assert config.tasks == ("mujoco/reacher",)
    assert config.model == replace(RUNS["debug"].model, dropout=0.1)
    assert config.replay.mix.row_tokens == 48
    assert config.learner.schedule.at(0) == config.learner.schedule.at(9_999) == 1e-5
    run = RunFolder.create(config)
    initial = initial_of(config)
    assert initial is not None
    assert initial.step == 40
    initial.keep(run, config)
    [begun] = list_checkpoints(run.path / "checkpoints")
    [source] = list_checkpoints(trained.path / "checkpoints")
    for name, array in stored_arrays(source).items():
        assert np.array_equal(array, stored_arrays(begun)[name]), name


def test_a_run_begins_with_a_policy_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(RUNS["debug"])
    file = tmp_path / "policy.safetensors"
    policy = export_policy("debug", file)
    config = finetune("policy.safetensors")
    assert config.tasks == RUNS["debug"].tasks
    monkeypatch.chdir("/")  # it is found from wherever the run is started again
    initial = initial_of(config)
    assert initial is not None
    assert initial.arrays.keys() == policy.weights.arrays.keys()
    run = RunFolder.create(config)
    initial.keep(run, config)
    assert len(list_checkpoints(run.path / "checkpoints")) == 1


def test_other_runs_begin_with_trained_weights_too() -> None:
    made_run(RUNS["debug"])
    config = make_config("demo", name=None, tasks=None, data=[], settings=[], weights="debug")
    assert config.model == RUNS["debug"].model
    assert config.learner == RUNS["demo"].learner
    assert config.tasks == RUNS["demo"].tasks


def test_what_cannot_be_is_refused() -> None:
    made_run(RUNS["debug"])
    with pytest.raises(ValueError, match=r"with --from RUN\|FILE"):
        finetune(None)
    with pytest.raises(ValueError, match="no run"):
        finetune("debu")
    with pytest.raises(ValueError, match=r"there is no file x\.safetensors; make one with"):
        finetune("x.safetensors")
    with pytest.raises(ValueError, match="has no part 'head'"):
        finetune("debug", 'learner.frozen=["head"]')
    config = finetune("debug", "model.feedforward=128")
    with pytest.raises(ValueError, match=r"model.feedforward 128 \(the weights have 64\)"):
        initial_of(config)


class _Launched(Exception):
    """The run's parts would be started now."""


def launched(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checkpoints that a learner would begin from, as `gato start` and `gato resume` do."""

    def stop(*_: object, **__: object) -> None:
        raise _Launched

    monkeypatch.setattr("cluster.control.session.launch", stop)
    session = Session(folder, cast("JournalWriter", None), on_cluster=False)
    with pytest.raises(_Launched):
        session.prepare(Console(quiet=True))
    return list_checkpoints(folder.path / "checkpoints")


def test_a_run_that_was_killed_before_it_kept_its_weights_begins_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_run(RUNS["debug"])
    run = RunFolder.create(finetune("debug"))
    [begun] = launched(run, monkeypatch)
    assert begun.name == "step-000000000"
    before = (begun / "checkpoint.json").stat().st_mtime_ns
    assert launched(run, monkeypatch) == [begun]  # once
    assert (begun / "checkpoint.json").stat().st_mtime_ns == before


def test_a_run_whose_weights_cannot_be_kept_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    made_run(RUNS["debug"])
    run = RunFolder.create(finetune("debug"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(InitialWeights, "keep", full)
    session = Session(run, cast("JournalWriter", None), on_cluster=False)
    with pytest.raises(OSError, match="No space left"):
        session.prepare(Console(quiet=True))
