"""A second import into a data set: what changed is refused, what was stopped goes on, and nothing
is counted twice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from cluster.cli.data import import_data
from cluster.runs.data import dataset_import as importing
from cluster.runs.data import datasets
from cluster.runs.data.datasets import DataSet
from gato.episode import Episode
from replay.formats.detect import read_source
from replay.formats.minari.export import export_minari
from replay.formats.reader import Attempt, Known, Reading, attempt_of
from replay.storage.store import EpisodeStore
from tests.replay.formats.test_records import OPTIONS, table

HOPPER = TASKS["mujoco/hopper"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without data sets."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def write(
    path: Path,
    *,
    episodes: int = 3,
    steps: int = 20,
    sizes: tuple[int, int] = (11, 3),
    seed: int = 0,
) -> Path:
    """A D4RL file of so many episodes of so many steps."""
    rng, rows = np.random.default_rng(seed), episodes * steps
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as out:
        out["observations"], out["actions"] = (
            rng.normal(size=(rows, sizes[0])),
            rng.uniform(-1, 1, (rows, sizes[1])),
        )
        out["rewards"], out["terminals"] = rng.normal(size=rows), np.zeros(rows, np.bool_)
        out["timeouts"] = (np.arange(rows) + 1) % steps == 0
    return path


def imported(
    file: Path, name: str = "mine", task: str | None = None, console: Console | None = None
) -> DataSet:
    return importing.make(
        name,
        lambda known: read_source(str(file), TASKS, TASKS[task] if task else None, known=known),
        TASKS,
        console or Console(quiet=True),
        origin=str(file),
    )


def stored(name: str = "mine") -> list[Episode]:
    store = EpisodeStore(
        datasets.root() / name / "episodes", capacity_bytes=1 << 30, read_only=True
    )
    try:
        return list(store.all_episodes())
    finally:
        store.close()


def test_a_file_that_grew_is_refused_and_nothing_is_stored_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "hopper.hdf5", episodes=3)
    imported(file)
    write(file, episodes=5)
    with pytest.raises(
        ValueError, match=r"changed since it was imported .*give another --name, or remove .*mine"
    ):
        imported(file)
    assert len(stored()) == 3
    assert datasets.find("mine").is_complete


def test_a_file_that_changed_while_its_import_was_stopped_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "hopper.hdf5")
    with pytest.raises(KeyboardInterrupt):
        importing.make("mine", Stopped(file, after=2), TASKS, Console(quiet=True), origin=str(file))
    write(file, episodes=5)
    with pytest.raises(ValueError, match="changed since it was imported"):
        imported(file)
    assert len(stored()) == 2


def test_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    imported(write(tmp_path / "A" / "train.hdf5", seed=1), task="mujoco/hopper")
    other = write(tmp_path / "B" / "train.hdf5", seed=2)
    with pytest.raises(ValueError, match=r"was made of .*/A/train\.hdf5, this is .*/B/train\.hdf5"):
        imported(other, task="mujoco/hopper")
    assert len(stored()) == 3


def test_data_in_another_number_of_shards_are_not_stored_twice(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    for shard, rows in enumerate((["a", "b"], ["c", "d"])):
        table(folder / f"train-{shard:05}-of-00002.parquet", text=rows)
    text = resolve_task("text/mine")

    def imports() -> None:
        importing.make(
            "mine",
            lambda known: read_source(str(folder), {}, text, known=known, options=OPTIONS),
            {text.name: text},
            Console(quiet=True),
            origin=str(folder),
        )

    imports()
    imports()
    assert len(stored()) == 4
    for file in folder.iterdir():
        file.unlink()
    table(folder / "train-00000-of-00001.parquet", text=["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="changed since it was imported"):
        imports()
    assert len(stored()) == 4


def test_a_file_that_was_moved_is_the_same_file(tmp_path: Path) -> None:
    file = write(tmp_path / "A" / "hopper.hdf5")
    with pytest.raises(KeyboardInterrupt):
        importing.make("mine", Stopped(file, after=1), TASKS, Console(quiet=True), origin=str(file))
    moved = tmp_path / "B" / "hopper.hdf5"
    moved.parent.mkdir()
    file.rename(moved)
    assert imported(moved).tasks["mujoco/hopper"]["episodes"] == 3
    assert imported(moved).tasks["mujoco/hopper"]["episodes"] == 3


def test_the_same_file_as_another_task_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "train.hdf5", sizes=(17, 6))
    imported(file, task="mujoco/halfcheetah")
    with pytest.raises(
        ValueError, match=r"as mujoco/halfcheetah; this is mujoco/walker2d: give another --name"
    ):
        imported(file, task="mujoco/walker2d")
    assert {episode.task for episode in stored()} == {"mujoco/halfcheetah"}


class Stopped:
    """A source that somebody stops with Ctrl-C after some episodes."""

    def __init__(self, file: Path, *, after: int) -> None:
        self._file, self._after = file, after

    def __call__(self, known: Known) -> Reading:
        reading = read_source(str(self._file), TASKS, known=known)
        return Reading(
            map(partial(attempt_of, task=HOPPER), self._episodes(reading)), total=reading.total
        )

    def _episodes(self, reading: Reading) -> Iterator[Episode]:
        for count, episode in enumerate(reading):
            if count == self._after:
                raise KeyboardInterrupt
            yield episode


class Folder:
    """A folder of files of one stem or several, each with one episode for each number; asks for
    every key in order."""

    def __init__(self, files: dict[str, int]) -> None:
        self.files = files

    def __call__(self, known: Known) -> Reading:
        return Reading(self._attempts(known), total=None)

    def _attempts(self, known: Known) -> Iterator[Attempt | None]:
        for stream, count in self.files.items():
            for index in range(count):
                key = f"jat:{stream}:{index}"
                yield None if known(key) else attempt_of(an_episode(key), HOPPER)


def an_episode(key: str) -> Episode:
    return Episode(
        key=key,
        task="mujoco/hopper",
        source="file:x",
        seed=0,
        observations={"state": np.zeros((2, 11), np.float32)},
        actions=np.zeros((2, 3), np.float32),
        rewards=np.ones(2, np.float32),
        terminated=True,
        truncated=False,
    )


def of_folder(files: dict[str, int]) -> DataSet:
    return importing.make("mine", Folder(files), TASKS, Console(quiet=True), origin="folder")


def test_a_folder_goes_on_with_further_files_also_with_those_of_the_same_name() -> None:
    of_folder({"train:aa": 2, "train:bb": 1})
    assert (
        of_folder({"train:aa": 2, "train:bb": 1, "test:cc": 1}).tasks["mujoco/hopper"]["episodes"]
        == 4
    )
    assert (
        of_folder({"train:aa": 2, "train:bb": 1, "train:dd": 1}).tasks["mujoco/hopper"]["episodes"]
        == 5
    )
    with pytest.raises(ValueError, match="changed since it was imported"):
        of_folder({"train:aa": 2, "train:ee": 1, "train:dd": 1})
    assert len(stored()) == 5


def test_a_new_text_may_stand_before_one_of_the_same_name(tmp_path: Path) -> None:
    task = resolve_task("text/mine")
    source = tmp_path / "books"

    def with_one_more(folder: str) -> int:
        (source / folder).mkdir(parents=True)
        (source / folder / "notes.txt").write_text(f"of {folder}. " * 40)
        data = importing.make(
            "mine",
            lambda known: read_source(str(source), {}, known=known, options=OPTIONS),
            {task.name: task},
            Console(quiet=True),
            origin=str(source),
        )
        return len(data.tasks[task.name]["returns"])

    assert [with_one_more(folder) for folder in ("a", "c", "b", "d")] == [1, 2, 3, 4]


def test_a_file_under_another_name_is_not_stored_twice() -> None:
    of_folder({"train:aa": 2})
    with pytest.raises(ValueError, match=r"into data set 'mine' before, as train: its episodes"):
        of_folder({"test:aa": 2})
    with pytest.raises(ValueError, match=r"into data set 'mine' before, as train: its episodes"):
        of_folder({"train:aa": 2, "copy:aa": 2})
    assert len(stored()) == 2


def test_recording_again_adds_episodes_of_any_teacher() -> None:
    def record(teacher: str, count: int) -> DataSet:
        keys = [f"record:mujoco/hopper:{teacher}:{seed}" for seed in range(count)]
        source = Reading((attempt_of(an_episode(key), HOPPER) for key in keys), total=count)
        return importing.make(
            "mine", lambda known: source, TASKS, Console(quiet=True), origin="record mujoco/hopper"
        )

    assert record("expert", 2).tasks["mujoco/hopper"]["episodes"] == 2
    assert record("expert", 5).tasks["mujoco/hopper"]["episodes"] == 5
    assert record("random", 1).tasks["mujoco/hopper"]["episodes"] == 6


KILLED = """
import os, signal, sys
from pathlib import Path
from cluster.runs.data import dataset_import as importing
from tests.cluster.runs.data.test_dataset_import import imported
real, importing.GROUP_EPISODES, importing.FIRST_WRITE = importing.EpisodeStore.add_all, 20, 10**9
def add_all(store, records):
    outcomes = real(store, records)
    if len(store.episodes) >= 60:
        os.kill(os.getpid(), signal.SIGKILL)
    return outcomes
importing.EpisodeStore.add_all = add_all
imported(Path(sys.argv[1]))
"""


def test_a_killed_import_loses_no_episode_and_no_warning(tmp_path: Path, runs: Path) -> None:
    file = write(tmp_path / "hopper.hdf5", episodes=100, steps=4)
    with h5py.File(file, "a") as out:
        states = out["observations"]
        assert isinstance(states, h5py.Dataset)
        # of the first 40 episodes, which the killed import stores
        states[:160] = 1e6 * states[:160]
    whole = imported(file, "whole")
    assert "% of the values are clipped" in whole.warnings[0]
    env = {
        **os.environ,
        "GATO_RUNS": str(runs),
        "PYTHONPATH": str(Path(importing.__file__).parents[3]),
    }
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], env=env, check=False)
    assert killed.returncode == -signal.SIGKILL
    found = datasets.find("mine")
    # the rows are read in parts as they come: a part more on a busy machine
    assert not found.is_complete
    assert 60 <= found.tasks["mujoco/hopper"]["episodes"] < 100
    resumed = imported(file)
    assert resumed.tasks == whole.tasks
    assert resumed.warnings == whole.warnings
    assert imported(file).warnings == whole.warnings  # nothing is counted again


def test_a_data_set_of_an_older_release_goes_on_and_is_counted_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "hopper.hdf5")
    made = imported(file)
    about = made.path / "about.json"
    plain = json.loads(about.read_text())
    about.write_text(json.dumps({"origin": plain["origin"], "tasks": plain["tasks"]}))
    assert imported(file).tasks == made.tasks
    again = json.loads(about.read_text())
    assert again["coverage"] == plain["coverage"]
    about.write_text(json.dumps({"tasks": plain["tasks"]}))  # without even an origin
    assert imported(file).tasks == made.tasks


def test_groups_are_bounded_and_all_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = EpisodeStore.add_all

    def add_all(store: EpisodeStore, records: list) -> list:  # type: ignore[type-arg]
        sizes.append(len(records))
        return real(store, records)

    monkeypatch.setattr(EpisodeStore, "add_all", add_all)
    monkeypatch.setattr(importing, "GROUP_S", 1e9)
    monkeypatch.setattr(importing, "GROUP_EPISODES", 4)
    imported(write(tmp_path / "hopper.hdf5", episodes=10), "by-count")
    monkeypatch.setattr(importing, "GROUP_BYTES", 1)
    imported(write(tmp_path / "hopper.hdf5", episodes=2), "by-bytes")
    assert sizes == [4, 4, 2, 1, 1]
    assert len(stored("by-count")) == 10


@pytest.mark.parametrize(
    "broken",
    [
        {"coverage": []},
        {"coverage": None},
        {"refused": None},
        {"refused": [1]},
        {"left_out": None},
        {"warnings": None},
        {"warnings": "x"},
        {"tasks": {"mujoco/hopper": 3}},
        {"tasks": None},
        {"tasks": {"mujoco/hopper": {}}},
        {"origin": None},
        {"source": 1},
        {"covered": []},
    ],
)
def test_a_damaged_about_json_is_one_line_with_the_fix(
    tmp_path: Path, broken: dict[str, object]
) -> None:
    file = write(tmp_path / "hopper.hdf5")
    about = imported(file).path / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), **broken}))
    for attempt in (lambda: datasets.find("mine"), lambda: imported(file)):
        with pytest.raises(
            ValueError, match=r"about\.json is damaged .*remove .*mine and import it again"
        ):
            attempt()


@pytest.mark.parametrize("odd", [{}, {"a": 1}, {"state": {}}, {"state": []}, 3])
def test_coverage_of_another_form_is_counted_anew(tmp_path: Path, odd: object) -> None:
    file = write(tmp_path / "hopper.hdf5")
    about = imported(file).path / "about.json"
    plain = json.loads(about.read_text())
    about.write_text(json.dumps({**plain, "coverage": {"mujoco/hopper": odd}}))
    imported(file)
    assert json.loads(about.read_text())["coverage"] == plain["coverage"]


def test_a_name_of_other_letters_asks_for_a_name() -> None:
    with pytest.raises(ValueError, match=r"漢字.*give --name"):
        datasets.name_of("名 前/漢字")


def test_what_was_allowed_and_is_not_needed_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "hopper.hdf5")
    with h5py.File(file, "a") as out:
        out["metadata/env_id"] = "Hopper-v4"
    console = Console(record=True, width=200)
    import_data(
        str(file),
        task="mujoco/hopper",
        name="mine",
        allowed=["version", "version ", "wrapper:Nope"],
        console=console,
    )
    said = console.export_text()
    assert "nothing of this source needs --allow wrapper:Nope" in said
    assert "nothing of this source needs --allow 'version '" in said
    assert said.count("nothing of this source") == 2  # `version` is needed


def test_what_a_folder_holds_of_another_form_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "mujoco-hopper"
    write(folder / "hopper.hdf5")
    columns = {
        "continuous_observations": [np.zeros((3, 11)).tolist()],
        "continuous_actions": [np.zeros((3, 3)).tolist()],
        "rewards": [[1.0, 1.0, 1.0]],
    }
    pq.write_table(pa.table(columns), folder / "train.parquet")
    made = importing.make(
        "mine",
        lambda known: read_source(str(folder), TASKS, known=known),
        TASKS,
        Console(quiet=True),
        origin=str(folder),
    )
    assert "also holds 1 file of HDF5 (hopper.hdf5) which was not read" in made.left_out[0]
    assert made.left_out[0] in made.doubts


@pytest.mark.parametrize("name", ["hopper-v0", "."])
def test_a_minari_folder_passes_nothing_over_of_its_own(tmp_path: Path, name: str) -> None:
    written = export_minari([an_episode("a:0")], HOPPER, tmp_path / "hopper-v0")
    source = written.folder if name != "." else written.folder / "data"
    assert not read_source(str(source), TASKS).report.left_out
    write(written.folder / "more" / "hopper.h5")
    assert len(read_source(str(written.folder), TASKS).report.left_out) == 1
