"""Checkpoints: written beside the loop, verified, kept; damaged ones and changed settings named."""

from __future__ import annotations

import errno
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gato.files import DamagedFile
from gato.network.model import Gato
from learner.checkpoints.files import keep_as_best, list_checkpoints
from learner.checkpoints.resume import settings_hash
from learner.checkpoints.saving import Saver
from learner.checkpoints.state import (
    Progress,
    checkpoint_path,
    load_checkpoint,
    read_record,
    save_checkpoint,
)
from learner.optimiser import make_optimiser
from tests.learner.test_learner import CONFIG, MODEL, make, weights_of


def names(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 8 and 12."""
    list(make(tmp_path).run())
    assert names(tmp_path) == ["step-000000008", "step-000000012"]
    return tmp_path


def flip_a_bit(file: Path, at: int = -5) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors"])
def test_a_flipped_bit_is_found_by_the_checksum(trained: Path, name: str) -> None:
    path = list_checkpoints(trained)[-1]
    flip_a_bit(path / name)
    model = Gato(MODEL)
    with pytest.raises(DamagedFile, match=f"{name} is damaged .*SHA-256"):
        load_checkpoint(path, model, make_optimiser(model, CONFIG))


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_used(trained: Path) -> None:
    before = make(trained).progress
    assert before.step == 12
    flip_a_bit(trained / "step-000000012" / "optimiser.safetensors")
    learner = make(trained, epoch=2)
    assert learner.progress.step == 8
    [(kind, text)] = learner.notes
    assert kind == "problem"
    assert "step-000000012 is not used" in text
    assert "optimiser.safetensors is damaged" in text
    assert names(trained) == ["step-000000008"]
    assert (trained / "damaged-step-000000012").is_dir()
    whole = make(trained.parent / "whole")
    list(whole.run())
    list(learner.run())
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(learner)[name]), name


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(trained: Path) -> None:
    for path in list_checkpoints(trained):
        flip_a_bit(path / "model.safetensors")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole"):
        make(trained)


def test_the_newest_k_are_kept(tmp_path: Path) -> None:
    list(make(tmp_path, config=replace(CONFIG, keep_checkpoints=1)).run())
    assert names(tmp_path) == ["step-000000012"]
    list(make(tmp_path / "all", config=replace(CONFIG, keep_checkpoints=5)).run())
    assert names(tmp_path / "all") == ["step-000000004", "step-000000008", "step-000000012"]


def test_the_best_checkpoint_stays_when_it_is_not_among_the_newest_any_more(trained: Path) -> None:
    learner = make(trained, config=replace(CONFIG, num_updates=24), epoch=2)
    assert keep_as_best(checkpoint_path(trained, 8), {"score": 0.5})
    assert not keep_as_best(checkpoint_path(trained, 4), {"score": 0.9})
    list(learner.run())
    assert names(trained) == ["step-000000020", "step-000000024"]
    best = trained / "best"
    assert json.loads((best / "best.json").read_text()) == {"score": 0.5}
    assert load_checkpoint(best, Gato(MODEL)).step == 8
    assert keep_as_best(checkpoint_path(trained, 24), {"score": 0.7})
    assert load_checkpoint(best, Gato(MODEL)).step == 24


def test_a_record_says_what_the_run_was_trained_with(trained: Path) -> None:
    record = read_record(trained / "step-000000012")
    assert record["learner"]["max_rate"] == CONFIG.max_rate
    assert record["settings_sha256"] == settings_hash(record["learner"], record["model"])
    assert record["seed"] == 5
    assert record["versions"]["torch"] == torch.__version__
    assert set(record["files"]) == {"model.safetensors", "optimiser.safetensors"}


def test_changed_settings_are_named_with_what_they_mean(trained: Path) -> None:
    longer = replace(CONFIG, num_updates=24, weight_decay=0.2)
    [(kind, text)] = make(trained, config=longer, epoch=2).notes
    assert kind == "settings changed"
    assert text.startswith("since update 12: ")
    assert "learner.num_updates 12 -> 24" in text
    assert "learner.weight_decay 0.1 -> 0.2" in text
    before, after = CONFIG.schedule.at(12), longer.schedule.at(12)
    assert f"the schedule is longer, and the rate of the next update is {after:.3g}" in text
    assert f"instead of {before:.3g}" in text


def test_a_checkpoint_from_before_records_told_settings_still_resumes(trained: Path) -> None:
    for path in list_checkpoints(trained):
        record = read_record(path)
        old = {name: record[name] for name in ("format", "step", "number", "model")}
        (path / "checkpoint.json").write_text(json.dumps(old))
    learner = make(trained, config=replace(CONFIG, num_updates=24), epoch=2)
    assert learner.progress.step == 12
    assert not learner.notes


def test_what_killed_processes_left_is_cleaned_up(trained: Path) -> None:
    draft = trained / ".draft-999999999"
    draft.mkdir()
    (trained / "step-000000012").rename(trained / ".replaced-step-000000012")
    learner = make(trained, epoch=2)
    assert learner.progress.step == 12
    assert names(trained) == ["step-000000008", "step-000000012"]
    assert not draft.exists()


def test_a_checkpoint_that_cannot_be_read_now_stays(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("learner.checkpoints.state.read_tensors", read)
        with pytest.raises(ValueError, match=r"cannot read .*step-000000012 \(Too many open files"):
            make(trained, epoch=2)
    assert names(trained) == ["step-000000008", "step-000000012"]
    assert make(trained, epoch=2).progress.step == 12


def test_the_best_checkpoint_outlives_a_kill_while_it_is_replaced(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keep_as_best(checkpoint_path(trained, 8), {"score": 0.5})
    rename = Path.rename

    class Killed(BaseException):
        pass

    def kill(path: Path, target: Path) -> Path:
        if target.name == "best":
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", kill)
        with pytest.raises(Killed):
            keep_as_best(checkpoint_path(trained, 12), {"score": 0.7})
    make(trained, epoch=2)
    assert load_checkpoint(trained / "best", Gato(MODEL)).step == 8
    assert keep_as_best(checkpoint_path(trained, 12), {"score": 0.7})
    assert load_checkpoint(trained / "best", Gato(MODEL)).step == 12
    assert not list(trained.glob(".*"))


def test_a_checkpoint_has_the_state_of_its_step_though_the_model_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is held until the model has changed."""
    from learner.checkpoints import files

    model = Gato(MODEL)
    optimiser = make_optimiser(model, CONFIG)
    saver = Saver(tmp_path, keep=2, more={})
    real, goes_on = files.save_file, threading.Event()

    def held(tensors: dict[str, torch.Tensor], path: Path) -> None:
        assert goes_on.wait(60)
        real(tensors, path)

    monkeypatch.setattr(files, "save_file", held)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    saver.save(model, optimiser, Progress(step=1, number=0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    goes_on.set()
    saver.wait()
    loaded = Gato(MODEL)
    load_checkpoint(list_checkpoints(tmp_path)[0], loaded)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_writer_that_fails_for_another_reason_than_the_disk_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the writer is broken")

    monkeypatch.setattr("learner.checkpoints.files.save_file", broken)
    with pytest.raises(RuntimeError, match="the writer is broken"):
        list(make(tmp_path).run())
    assert not list(tmp_path.glob(".draft-*"))


def test_a_folder_that_cannot_be_made_is_a_problem_and_not_an_end(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    learner = make(tmp_path / "checkpoints")
    reports = list(learner.run())
    assert reports[-1].step == 12
    assert learner.problems[0].startswith("checkpoint of step 4 not written: ")


def test_the_one_just_written_is_never_removed(tmp_path: Path) -> None:
    """A learner that went back writes lower steps than those that are there."""
    model = Gato(MODEL)
    optimiser = make_optimiser(model, CONFIG)
    for step in (8, 12, 4):
        save_checkpoint(tmp_path, model, optimiser, Progress(step=step, number=1), keep=2)
    assert names(tmp_path) == ["step-000000004", "step-000000008", "step-000000012"]
