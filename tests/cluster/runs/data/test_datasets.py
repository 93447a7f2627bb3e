"""What a data set says of itself, and how it is filled."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from actors.tasks.catalog import TASKS
from cluster.cli.replay import maintain
from cluster.runs.data import dataset_import as importing
from cluster.runs.data import datasets
from cluster.runs.data.datasets import DataSet, mean_returns
from cluster.runs.folder import RunFolder
from cluster.runs.overrides import override, with_tasks
from cluster.runs.presets import RUNS
from cluster.sweep.merge import merge_data
from gato.episode import Episode
from replay.formats.detect import read_source
from replay.formats.reader import Attempt, Known, Reading, attempt_of
from replay.ingest import Added
from replay.storage.store import EpisodeStore


def test_the_teachers_return_is_the_mean_of_the_episodes_that_are_read() -> None:
    sets = [
        DataSet(name="good", path=Path(), tasks={"mujoco/hopper": {"returns": [3000.0, 3200.0]}}),
        DataSet(name="mixed", path=Path(), tasks={"mujoco/hopper": {"returns": [500.0, 2800.0]}}),
    ]
    assert mean_returns(sets, 0.8) == {"mujoco/hopper": 3000.0}
    assert mean_returns(sets, None) == {"mujoco/hopper": 2375.0}


LENGTHS = (3, 5, 2, 4)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A D4RL file of four episodes, and a home without data sets."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    path, rows = tmp_path / "hopper-medium-v2.hdf5", sum(LENGTHS)
    with h5py.File(path, "w") as out:
        out["observations"], out["actions"] = np.zeros((rows, 11)), np.zeros((rows, 3))
        out["rewards"], out["terminals"] = (
            np.ones(rows),
            np.isin(np.arange(rows), np.cumsum(LENGTHS) - 1),
        )
        out["timeouts"] = np.zeros(rows, np.bool_)
    return path


class Interrupted:
    """A source that somebody stops after some episodes, as with Ctrl-C; `read` are those it read
    from the file."""

    def __init__(
        self, file: Path, *, after: int | None = None, problem: BaseException | None = None
    ) -> None:
        self._file, self._after, self._problem = file, after, problem or KeyboardInterrupt()
        self.read: list[str] = []

    def __call__(self, known: Known) -> Reading:
        reading = read_source(str(self._file), TASKS, known=known)
        return Reading(map(attempt, self._episodes(reading)), total=reading.total)

    def _episodes(self, reading: Reading) -> Iterator[Episode]:
        for count, episode in enumerate(reading):
            if count == self._after:
                raise self._problem
            self.read.append(episode.key)
            yield episode


def attempt(episode: Episode) -> Attempt:
    return attempt_of(episode, TASKS[episode.task])


def make(source: Callable[[Known], Reading], file: Path) -> tuple[DataSet, str]:
    console = Console(record=True, width=200)
    return importing.make("mine", source, TASKS, console, origin=str(file)), console.export_text()


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), ValueError("the file is damaged")])
def test_an_interrupted_import_keeps_what_was_stored_and_goes_on_from_there(
    file: Path, problem: BaseException
) -> None:
    first, second = Interrupted(file, after=2, problem=problem), Interrupted(file)
    with pytest.raises(type(problem)):
        make(first, file)
    assert datasets.find("mine").tasks["mujoco/hopper"]["episodes"] == 2
    made, _ = make(second, file)
    assert len(first.read) == 2
    assert len(second.read) == 2
    assert not set(first.read) & set(second.read)
    assert made.tasks["mujoco/hopper"]["returns"] == [float(length) for length in LENGTHS]


def test_ctrl_c_says_how_to_go_on(file: Path) -> None:
    console = Console(record=True, width=200)
    with pytest.raises(KeyboardInterrupt):
        importing.make("mine", Interrupted(file, after=1), TASKS, console, origin=str(file))
    assert (
        "stopped: 1 new episodes are stored; run the same command again to go on"
        in console.export_text()
    )


def test_a_second_import_reads_nothing_and_says_how_many_were_there(file: Path) -> None:
    make(Interrupted(file), file)
    made, said = make(lambda known: read_source(str(file), TASKS, known=known), file)
    assert made.tasks["mujoco/hopper"]["episodes"] == 4
    assert "(4 were there already)" in said


def test_a_source_that_cannot_be_read_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        make(lambda known: read_source(str(tmp_path / "none.hdf5"), TASKS, known=known), file)
    assert not (tmp_path / "runs" / "data").exists()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hopper_expert-v2.hdf5", "hopper_expert-v2"),
        ("minari:mujoco/hopper/expert-v0", "mujoco-hopper-expert-v0"),
        ("sets/jat/mujoco-hopper/", "jat-mujoco-hopper"),
        ("jat/train-00000-of-00003.parquet", "train-00000-of-00003"),
        ("dqn/Pong/1/replay_logs", "Pong-1"),
    ],
)
def test_a_data_set_is_called_after_its_source(source: str, name: str) -> None:
    assert datasets.name_of(source) == name


class Refusing:
    """A sink that gives one answer."""

    def __init__(self, added: Added) -> None:
        self._added = added

    def add(self, episode: Episode) -> Added:
        return self._added


def imported(file: Path, name: str, console: Console | None = None) -> DataSet:
    return importing.make(
        name,
        lambda known: read_source(str(file), TASKS, known=known),
        TASKS,
        console or Console(quiet=True),
        origin=str(file),
    )


def test_a_data_set_is_handed_in_whole_or_the_run_does_not_begin(file: Path) -> None:
    data = imported(file, "whole")
    with pytest.raises(ValueError, match="could not be inserted whole: writers are held back"):
        datasets.hand_in(
            data,
            Refusing(Added(status="wait", reason="writers are held back")),
            Console(quiet=True),
        )
    datasets.hand_in(data, Refusing(Added(status="duplicate")), Console(quiet=True))


@pytest.mark.parametrize("name", ["../escape", "a b", "", ".", "x" * 65])
def test_a_data_sets_name_stays_in_its_folder(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a data set"):
        imported(file, name)
    assert not (file.parent / "runs").exists()


def test_a_name_that_is_taken_is_refused(file: Path) -> None:
    imported(file, "mine")
    imported(file, "mine")  # the same file again
    other = file.with_name("hopper-expert-v2.hdf5")
    other.write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"was made of 'hopper-medium-v2\.hdf5'"):
        imported(other, "mine")
    RunFolder.create(replace(RUNS["debug"], name="a-run"))
    with pytest.raises(ValueError, match="name of a run"):
        imported(file, "a-run")
    with pytest.raises(ValueError, match="nothing to import"):
        datasets.name_of("minari:")


def flip_a_bit(data: DataSet, file: Path, row: int) -> None:
    """In the stored observation of a row of the file."""
    stored = data.path / "episodes" / "data.mdb"
    content = bytearray(stored.read_bytes())
    with h5py.File(file) as opened:
        needle = np.asarray(opened["observations"])[row].astype(np.float32).tobytes()
    content[content.index(needle)] ^= 1
    stored.write_bytes(content)


@pytest.fixture
def varied(file: Path) -> Path:
    """The file, with rows that differ."""
    with h5py.File(file, "r+") as opened:
        shape = np.asarray(opened["observations"]).shape
        opened["observations"][...] = np.random.default_rng(0).normal(size=shape)  # pyright: ignore[reportIndexIssue]
    return file


class Taking:
    def __init__(self) -> None:
        self.taken: list[int] = []

    def add(self, episode: Episode) -> Added:
        self.taken.append(episode.num_steps)
        return Added(status="stored")


def test_a_flipped_bit_costs_a_run_the_episode_that_it_is_in(varied: Path) -> None:
    data, _ = make(Interrupted(varied), varied)
    flip_a_bit(data, varied, 4)  # of the second episode
    sink, console = Taking(), Console(record=True, width=200)
    datasets.hand_in(data, sink, console)
    assert sink.taken == [3, 2, 4]
    assert "not taken: 1 x episode" in console.export_text()


def test_a_repair_keeps_the_key_of_an_episode_that_was_imported_again(varied: Path) -> None:
    data, _ = make(Interrupted(varied), varied)
    quiet = Console(record=True, width=200)
    flip_a_bit(data, varied, 4)
    maintain.verify("mine", repairs=True, console=quiet)
    data, _ = make(Interrupted(varied), varied)
    flip_a_bit(data, varied, 9)  # of the third
    maintain.verify("mine", repairs=True, console=quiet)
    assert maintain.verify("mine", repairs=False, console=quiet)
    maintain.compact("mine", console=quiet)


@pytest.mark.parametrize("setting", ["replay.num_shards=2", "replay.capacity_bytes=2097152"])
def test_a_sweeps_data_sets_are_merged_whole_whatever_replay_the_run_has(
    varied: Path, tmp_path: Path, setting: str
) -> None:
    make(Interrupted(varied), varied)
    config = replace(with_tasks(RUNS["clone"], ["mujoco/hopper"]), data=("mine",))
    merge_data(override(config, [setting]), tmp_path / "merged", Console(record=True))
    with closing(
        EpisodeStore(tmp_path / "merged", capacity_bytes=1 << 30, read_only=True)
    ) as store:
        assert sorted(header.steps for header in store.episodes.values()) == sorted(LENGTHS)
