"""`gato start --from`: whose model a run has, and what is refused before anything starts."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from actors.tasks.resolve import resolve_task
from cluster.control.build_run import make_config
from cluster.control.export import export_policy, policy_of
from cluster.control.initial_weights import InitialWeights, initial_of
from cluster.control.lifecycle import kept_text
from cluster.control.session import Session
from cluster.journal.writer import JournalWriter
from cluster.runs.config import RunConfig
from cluster.runs.config_file import config_to_yaml
from cluster.runs.folder import RunFolder
from cluster.runs.overrides import with_tasks
from cluster.runs.presets import RUNS
from gato.acting.config import ActingConfig
from gato.exported.policy_file import TaskPolicy, write_policy
from learner.checkpoints.files import list_checkpoints
from learner.checkpoints.initial import stored_arrays
from tests.actors.tasks.test_text_encoder import train
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


def spoken_run() -> RunFolder:
    """A trained run whose text is encoded by a SentencePiece model of its own."""
    run = made_run(RUNS["debug"])
    (run.path / "text.model").write_bytes(train())
    run.change_config(lambda config: replace(config, text="text.model"))
    return run


def test_a_run_has_the_text_encoder_of_its_weights(tmp_path: Path) -> None:
    spoken_run()
    assert Path(finetune("debug").text).read_bytes() == train()
    policy, asks = policy_of("debug", command="gato export"), resolve_task("vqa/easy-vqa")
    tasks = {asks.name: TaskPolicy(task=asks, acting=ActingConfig())}
    write_policy(tmp_path / "policy.safetensors", replace(policy, tasks=tasks, text_model=train()))
    config = finetune("policy.safetensors", tasks=["hopper"])
    run = RunFolder.create(config)
    assert kept_text(config.text, run) == "text.model"
    assert (run.path / "text.model").read_bytes() == train()
    made_run(replace(RUNS["debug"], name="plain"))
    assert finetune("plain").text == "bytes"


def test_another_text_encoder_than_that_of_the_weights_is_refused(tmp_path: Path) -> None:
    spoken_run()
    (tmp_path / "same.model").write_bytes(train())

    def given(text: str, weights: str = "debug") -> str:
        return make_config(
            "finetune", name=None, tasks=["hopper"], data=[], settings=[], text=text,
            weights=weights,
        ).text  # fmt: skip

    assert given("same.model") == str(tmp_path / "same.model")
    with pytest.raises(ValueError, match=r"know text by another SentencePiece model, not by bytes"):
        given("bytes")
    made_run(replace(RUNS["debug"], name="robot"))
    assert given("same.model", "robot") == str(tmp_path / "same.model")  # it has seen no text
    made_run(with_tasks(replace(RUNS["debug"], name="seer"), ["vqa/easy-vqa"]))
    with pytest.raises(ValueError, match=r"know text by bytes, not by .*same\.model"):
        given("same.model", "seer")


def test_a_file_with_the_preset_keeps_its_tasks_and_needs_weights(tmp_path: Path) -> None:
    made_run(RUNS["debug"])
    file = tmp_path / "mine.yaml"

    def config(text: str, weights: str | None = "debug") -> RunConfig:
        file.write_text(text)
        return make_config(str(file), name=None, tasks=None, data=[], settings=[], weights=weights)

    whole = config_to_yaml(RUNS["finetune"])
    assert config("preset: finetune\n").tasks == RUNS["debug"].tasks
    assert config("preset: finetune\nname: mine\n").tasks == RUNS["debug"].tasks
    for text in ("preset: finetune\ntasks: [mujoco/hopper]\n", whole):
        assert config(text).tasks == ("mujoco/hopper",)
    for text in ("preset: finetune\nname: mine\n", whole):
        with pytest.raises(ValueError, match=r"with --from RUN\|FILE"):
            config(text, None)
