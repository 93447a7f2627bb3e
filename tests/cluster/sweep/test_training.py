"""A trial without Ray: its slices, where it goes on, and what is shared with nobody."""

from pathlib import Path

import pytest
import torch

from cluster.sweep.folder import SweepFolder
from cluster.sweep.plan import SweepConfig
from cluster.sweep.state import trials_in
from cluster.sweep.training import Slice, train
from learner.checkpoints.files import list_checkpoints
from tests.cluster.command import gato
from tests.cluster.sweep.sweeps import TASK, planned, record, sweep_of
from tests.replay.formats.test_records import questions


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATO_RUNS", str(folder))
        record()
        record("more", seed=50)
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATO_RUNS", str(place))


def made(sweep: SweepConfig) -> tuple[SweepFolder, Path]:
    """The sweep's folder and that of its first trial."""
    folder = planned(sweep)
    trial = trials_in(folder.journal.read())[1]
    folder.make_trial(sweep, trial)
    return folder, folder.trial_path(1, 0)


def test_a_trial_is_trained_and_evaluated_in_slices() -> None:
    sweep = sweep_of(updates=5, evaluate_every=2)
    _, path = made(sweep)
    slices = list(train(path, sweep, reported_step=0))
    assert [part.step for part in slices] == [2, 4, 5]
    assert [part.is_last for part in slices] == [False, False, True]
    assert all(part.returns[TASK] > 0 and part.loss is not None for part in slices)
    losses = [part.loss or 0.0 for part in slices]
    assert losses == sorted(losses, reverse=True)


def test_a_trial_that_is_ended_goes_on_with_the_same_numbers() -> None:
    sweep = sweep_of(updates=6, evaluate_every=2)
    _, path = made(sweep)
    unbroken = list(train(path, sweep, reported_step=0))
    _, path = made(sweep)
    first = train(path, sweep, reported_step=0)
    broken = [next(first)]
    first.close()
    second = train(path, sweep, reported_step=broken[-1].step)
    broken += [next(second)]
    second.close()
    broken += list(train(path, sweep, reported_step=broken[-1].step))
    assert broken == unbroken


def test_a_checkpoint_that_was_not_reported_is_evaluated_first() -> None:
    sweep = sweep_of(updates=4, evaluate_every=2)
    _, path = made(sweep)
    unbroken: list[Slice] = list(train(path, sweep, reported_step=0))
    again = list(train(path, sweep, reported_step=2))  # killed between its last save and report
    assert [(part.step, part.score, part.is_last) for part in again] == [
        (4, unbroken[-1].score, True)
    ]
    assert again[0].loss is None
    assert list(train(path, sweep, reported_step=4)) == []


def test_a_generation_goes_on_from_the_donors_checkpoint() -> None:
    sweep = sweep_of(updates=6, evaluate_every=2, scheduler="pbt")
    folder, path = made(sweep)
    slices = train(path, sweep, reported_step=0)
    next(slices)
    slices.close()
    (donor,) = list_checkpoints(path / "checkpoints")
    trial = trials_in(folder.journal.read())[2]
    folder.make_trial(sweep, trial, checkpoint=donor)
    parts = list(train(folder.trial_path(2, 0), sweep, reported_step=2))
    assert [part.step for part in parts] == [4, 6]


def test_two_processes_do_not_train_one_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_of()
    _, path = made(sweep)
    first = train(path, sweep, reported_step=0)
    next(first)
    monkeypatch.setattr("cluster.sweep.training.PREDECESSOR_WAIT_S", 0.3)
    with pytest.raises(ValueError, match="another process trains the trial"):
        next(train(path, sweep, reported_step=0))
    first.close()


def test_a_filter_that_lets_nothing_through_is_one_error() -> None:
    sweep = sweep_of(settings=["replay.mix.min_demonstration_score=9"])
    _, path = made(sweep)
    with pytest.raises(ValueError, match=r"no stored episode of .* may be drawn"):
        next(train(path, sweep, reported_step=0))


def test_a_trial_computes_with_the_threads_of_its_cpus() -> None:
    sweep = sweep_of(cpus=1)
    _, path = made(sweep)
    torch.set_num_threads(2)
    slices = train(path, sweep, reported_step=0)
    next(slices)
    assert torch.get_num_threads() == 1
    slices.close()


def test_a_trial_is_evaluated_on_records_that_were_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions(tmp_path / "q")
    status, _, err = gato(monkeypatch, capsys, "import", str(tmp_path / "q"), "--name", "q")
    assert status == 0, err
    room = ["model.context_tokens=96", "replay.mix.row_tokens=96"]
    sweep = sweep_of(data=["q"], settings=room, updates=2, evaluate_every=1, episodes=3)
    _, path = made(sweep)
    _, last = train(path, sweep, reported_step=0)
    assert last.returns.keys() == {"vqa/q"}
    assert 0.0 <= last.returns["vqa/q"] <= 1.0
