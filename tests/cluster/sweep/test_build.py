"""What a user asks for, as a sweep; each mistake is one clear error before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from cluster.runs.config_file import read_config
from cluster.runs.folder import RunFolder
from cluster.runs.presets import RUNS
from cluster.runs.replay_location import find_place, opened
from cluster.sweep.build import best_config, check_trials, start_words
from cluster.sweep.carry_out import Where
from cluster.sweep.folder import SweepFolder, find_sweep
from cluster.sweep.merge import merge_data
from cluster.sweep.nodes import _has_room
from cluster.sweep.state import trials_in
from tests.cluster.sweep.sweeps import TASK, planned, record, sweep_of


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


def test_a_sweep_reads_the_data_where_it_lies(place: Path) -> None:
    sweep = sweep_of()
    assert sweep.stores == (str((place / "data" / "poles" / "episodes").resolve()),)
    assert sweep.base.tasks == (TASK,)
    assert sweep.scales[TASK].teacher_return == 1000.0
    assert sweep.updates == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": []}, "a sweep trains on stored episodes"),
        ({"data": ["pols"]}, "did you mean 'poles'"),
        ({"base": "dbug"}, "did you mean 'debug'"),
        ({"base": "missing.yaml"}, "there is no config file missing.yaml"),
        ({"over": []}, "nothing is varied"),
        ({"over": ["learner.rate=log:1:2"]}, "did you mean 'learner.max_rate'"),
        ({"over": ["tasks=choice:a,b"]}, "a sweep cannot vary tasks"),
        ({"over": ["learner.max_rate=log:1:2", "learner.max_rate=log:1:3"]}, "given twice"),
        ({"settings": ["learner.max_rate=1"]}, "both set and varied"),
        ({"over": ["seed=int:0:3"], "seed": 1}, "both set and varied"),
        ({"reduction": 2, "scheduler": "none"}, "--reduction is asha's"),
        ({"scheduler": "pbt", "over": ["model.width=choice:32,64"]}, "take --scheduler asha"),
        ({"evaluate_every": 7}, "lower --evaluate-every or raise --updates"),
    ],
)
def test_a_mistake_is_one_clear_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as problem:
        sweep_of(**changes)
    assert message in str(problem.value)
    assert "\n" not in str(problem.value)


def test_settings_that_do_not_fit_the_task_are_named() -> None:
    sweep = sweep_of(over=["replay.mix.row_tokens=choice:3,48"])
    with pytest.raises(ValueError, match=r"with replay.mix.row_tokens=3: .* needs rows of"):
        check_trials(sweep, [{"replay.mix.row_tokens": 3}])


def test_a_file_names_its_base_and_what_is_varied(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    plain = {
        "preset": "debug",
        "learner": {"weight_decay": 0.5},
        "over": {"learner.max_rate": "log:1e-4:1e-3", "replay.mix.rows": [8, 16]},
    }
    file.write_text(yaml.safe_dump(plain))
    sweep = sweep_of(base=str(file), over=["seed=int:0:9"], updates=None, evaluate_every=None)
    assert dict(sweep.over) == {
        "learner.max_rate": "log:0.0001:0.001",
        "replay.mix.rows": "choice:8,16",
        "seed": "int:0:9",
    }
    assert sweep.base.learner.weight_decay == 0.5
    assert sweep.evaluate_every == 6  # a sixth of the preset's
    assert start_words(sweep, {"seed": 3}) == []  # the file itself is no run


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (3, "expected a mapping of settings"),
        ({"learner.max_rate": 3}, "expected a text such as log:1e-4:3e-3"),
        ({"learner.max_rate": [1]}, "needs two values or more"),
        ({"learner.max_rate": "lg:1:2"}, "unknown distribution"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path: Path, over: object, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"preset": "debug", "over": over}))
    with pytest.raises(ValueError, match=message) as problem:
        sweep_of(base=str(file))
    assert str(file) in str(problem.value)


def test_a_run_that_has_ended_can_be_swept_and_one_that_goes_on_cannot(place: Path) -> None:
    run = RunFolder.create(replace(RUNS["debug"], name="old"))
    (run.path / "replay").symlink_to(place / "data" / "poles" / "episodes")
    with pytest.raises(ValueError, match="gato stop"):
        sweep_of(data=[run.name])
    run.set_state("stopped")
    sweep = sweep_of(data=[run.name])
    assert sweep.base.tasks == run.config().tasks
    assert sweep.base.data == ()
    with pytest.raises(ValueError, match="read alone"):
        sweep_of(data=[f"{run.name},poles"])


def test_several_data_sets_become_one_store_and_count_once(tmp_path: Path) -> None:
    sweep = sweep_of(data=["poles,more"])
    assert sweep.stores == ()
    for _ in range(2):  # a merge that was killed is made again
        merge_data(sweep.base, tmp_path / "replay", Console(quiet=True))
    with opened(find_place(str(tmp_path / "replay"))) as (store,):
        assert len(store.episodes) == 4


def test_the_best_settings_are_a_command_and_a_file(tmp_path: Path) -> None:
    sweep = sweep_of(settings=["learner.weight_decay=0.5"])
    settings = {"learner.max_rate": 2e-3}
    assert start_words(sweep, settings) == [
        "gato", "start", "debug", "--data", "poles", "--set", "learner.weight_decay=0.5",
        "--set", "learner.num_updates=6", "--set", "learner.max_rate=0.002",
    ]  # fmt: skip
    config = best_config(sweep, settings)
    assert (config.learner.max_rate, config.learner.num_updates) == (2e-3, 6)
    assert config.learner.report_every == RUNS["debug"].learner.report_every
    assert config.data == ("poles",)


def test_the_command_is_shown_only_where_it_starts_the_run_that_was_swept() -> None:
    sweep = sweep_of(base="demo", over=["replay.mix.rows=choice:8,16"], updates=None)
    assert sweep.base.replay.limiter != RUNS["demo"].replay.limiter  # it follows from the task
    assert start_words(sweep, {"learner.max_rate": 2e-3})[:5] == [
        "gato", "start", "demo", "--data", "poles",
    ]  # fmt: skip
    assert start_words(sweep, {"replay.mix.rows": 8}) == []  # so would the limiter


def test_a_sweep_needs_weights_where_the_run_does(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: finetune\nname: mine\n")
    for base in ("finetune", str(file)):
        with pytest.raises(ValueError, match=r"begins with a trained model.*--from RUN\|FILE"):
            sweep_of(base=base)


def test_a_file_in_the_place_of_the_sweeps_is_named(place: Path) -> None:
    (place / "sweeps").touch()
    with pytest.raises(ValueError, match=r"cannot make .*sweeps.*; set GATO_RUNS"):
        SweepFolder.create(sweep_of(name="mine"))
    (place / "sweeps").unlink()


def test_pbt_keeps_the_checkpoint_that_was_evaluated_beside_a_newer_one() -> None:
    for scheduler, kept in (("pbt", 2), ("none", 1)):
        sweep = sweep_of(settings=["learner.keep_checkpoints=1"], scheduler=scheduler)
        assert sweep.config_of({}, name="x").learner.keep_checkpoints == kept


def test_a_folder_is_private_numbered_and_found_again() -> None:
    first, second = (SweepFolder.create(sweep_of(name="mine")) for _ in range(2))
    assert (first.name, second.name) == ("mine", "mine-2")
    assert first.path.stat().st_mode & 0o077 == 0
    assert second.plan().name == "mine-2"
    assert find_sweep("mine") == first
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        find_sweep("mien")


def test_one_process_carries_a_sweep_out() -> None:
    folder = SweepFolder.create(sweep_of(name="alone"))
    assert not folder.is_active
    with folder.alone():
        assert folder.is_active
        with pytest.raises(ValueError, match="carried out by another process"), folder.alone():
            pass


def test_a_trials_folder_is_a_runs_folder() -> None:
    sweep = sweep_of(name="folders")
    folder = planned(sweep)
    folder.make_trial(sweep, trials_in(folder.journal.read())[2])
    path = folder.trial_path(2, 0)
    assert read_config(path / "config.yaml").learner.checkpoint_every == 2
    assert (path / "replay" / "data.mdb").is_file()
    assert RunFolder(path.parent, path.name).info().state == "stopped"


def test_where_a_sweep_is_carried_out_is_checked() -> None:
    sweep = sweep_of(scheduler="pbt", trials=4)
    with pytest.raises(ValueError, match="leave --parallel out"):
        Where(address="head:6379", parallel=2).check(sweep)
    with pytest.raises(ValueError, match="--parallel 0"):
        Where(parallel=0).check(sweep)
    node = {"Resources": {"CPU": 2.0}}
    assert _has_room(node, 2, 0)
    assert not _has_room(node, 3, 0)
    assert not _has_room(node, 1, 1)
