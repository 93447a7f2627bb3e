"""LeRobot data sets: each step where it belongs, from images and from films, under one task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.tasks.resolve import resolve_task
from gato.array_spec import Kind
from gato.episode import is_held_out
from gato.text import bytes_to_text
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions, Reading, nothing_known
from tests.replay.formats.lerobot_files import TASKS, lerobot, shade

OPTIONS = ImportOptions(name="arm", find_task=resolve_task)


def reading(path: Path) -> Reading:
    return read_source(str(path), {}, None, known=nothing_known, options=OPTIONS)


@pytest.mark.parametrize("video", [False, True])
def test_each_step_has_its_own_numbers_picture_and_instruction(tmp_path: Path, video: bool) -> None:
    found = list(read := reading(lerobot(tmp_path / "arm", video=video)))
    assert [e.num_steps for e in found] == [5, 4, 6]
    for number, episode in enumerate(found):
        assert episode.task == read.report.task
        state = episode.observations["state"]
        np.testing.assert_array_equal(state[:, 0], number)
        np.testing.assert_array_equal(state[:, 1], np.arange(episode.num_steps))
        np.testing.assert_allclose(episode.actions[:, 0], np.arange(len(state)) / 10 - 0.2, 1e-6)
        said = {bytes_to_text(row) for row in episode.observations["task"]}
        assert said == {TASKS[number % 2]}
        frames = episode.observations["images.top"]
        assert frames.shape == (episode.num_steps, 64, 64, 3)
        wanted = np.array([shade(number, step) for step in range(episode.num_steps)])
        # A film is compressed; a step changes the grey by 3.
        assert np.abs(frames[:, 32, 32, 0].astype(int) - wanted).max() <= (1 if video else 0)
        assert (frames[:, :6] <= 1).all()  # 64x48 stands between black bars
    assert [is_held_out(e.source) for e in found] == [False, False, True]


def test_the_name_of_the_task_says_what_the_robot_shows_and_takes(tmp_path: Path) -> None:
    read = reading(lerobot(tmp_path / "arm"))
    assert read.report.task == "lerobot/arm?action=-0.2:0.3,0:10&shows=state:3,images.top"
    task = resolve_task(read.report.task)
    assert task.name == read.report.task
    assert not task.has_environment
    assert {name: spec.kind for name, spec in task.observations.items()} == {
        "state": Kind.CONTINUOUS,
        "images.top": Kind.IMAGE,
        "task": Kind.TEXT,
    }
    assert (task.action.low, task.action.high) == ((-0.2, 0.0), (0.3, 10.0))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lerobot/arm", "does not say its action"),
        ("lerobot/arm?action=1&shows=state:2", "cannot be read; write it as -1:1"),
        ("lerobot/arm?action=-1:1&shows=a:b", "shows=a:b of lerobot/arm cannot be read"),
        ("lerobot/arm?action=-1:1&shows=a:2&x=1", "no option 'x'"),
        ("lerobot/arm?action=-1:1&shows=state:2,state:3", "names 'state' twice"),
        ("lerobot/arm?action=-1:1&shows=task:3", "'task' is the name of the instruction"),
        ("lerobot/arm?action=-1:inf&shows=a:2", "not finite"),
        ("lerobot/arm?action=-1:1&shows=top&image=30", "not a multiple of 16"),
    ],
)
def test_a_name_that_says_too_little_or_too_much_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        resolve_task(name)


def test_another_version_is_named_with_what_converts_it(tmp_path: Path) -> None:
    file = lerobot(tmp_path / "arm") / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"codebase_version": "v2.1"}))
    with pytest.raises(ValueError, match=r"format v2\.1, expected v3\.x; convert it"):
        reading(tmp_path / "arm")


def test_an_episode_whose_film_is_short_or_missing_is_refused_by_name(tmp_path: Path) -> None:
    folder = lerobot(tmp_path / "arm", video=True)
    (film,) = folder.rglob("*.mp4")
    longer = lerobot(tmp_path / "other", video=True, lengths=(5, 4))
    film.write_bytes(next(longer.rglob("*.mp4")).read_bytes())
    read = reading(folder)
    assert [e.num_steps for e in read] == [5, 4]
    assert "film file-000.mp4" in next(iter(read.report.rejected))
    film.unlink()
    read = reading(folder)
    assert not list(read)
    assert read.report.rejected == {"film file-000.mp4 is not there": 3}


def test_steps_that_meta_does_not_count_are_refused(tmp_path: Path) -> None:
    folder = lerobot(tmp_path / "arm", lengths=(5, 4))
    shorter = lerobot(tmp_path / "other", lengths=(5, 3))
    part = "data/chunk-000/file-000.parquet"
    (folder / part).write_bytes((shorter / part).read_bytes())
    read = reading(folder)
    assert [e.num_steps for e in read] == [5]
    assert "has 3 steps in file-000.parquet, meta says 4" in next(iter(read.report.rejected))


def changed(path: Path, change: Callable[[pa.Table], pa.Table], **features: object) -> Path:
    """A data set with other columns, and what its info says of them."""
    file = path / "data" / "chunk-000" / "file-000.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    info = path / "meta" / "info.json"
    plain = json.loads(info.read_text())
    plain["features"] |= features
    info.write_text(json.dumps(plain))
    return path


def test_whole_numbers_and_booleans_are_numbers_and_the_rest_is_said(tmp_path: Path) -> None:
    def more(table: pa.Table) -> pa.Table:
        steps = list(range(len(table)))
        table = table.append_column("observation.gripper", pa.array(steps))
        table = table.append_column("observation.contact", pa.array([s % 2 == 0 for s in steps]))
        return table.append_column("observation.note", pa.array(["hi"] * len(steps)))

    path = changed(
        lerobot(tmp_path / "arm"),
        more,
        **{
            "observation.gripper": {"dtype": "int64", "shape": [1], "names": None},
            "observation.contact": {"dtype": "bool", "shape": [1], "names": None},
            "observation.note": {"dtype": "string", "shape": [1], "names": None},
        },
    )
    first, *_ = (read := reading(path))
    assert first.observations["gripper"].tolist() == [[0], [1], [2], [3], [4]]
    assert first.observations["contact"].tolist() == [[1], [0], [1], [0], [1]]
    assert read.report.left_out == ["observation.note"]


def test_an_action_of_one_whole_number(tmp_path: Path) -> None:
    def whole(table: pa.Table) -> pa.Table:
        at = table.column_names.index("action")
        return table.set_column(at, "action", pa.array(range(len(table))))

    path = changed(
        lerobot(tmp_path / "arm"), whole, action={"dtype": "int64", "shape": [1], "names": None}
    )
    assert [e.actions[:, 0].tolist()[0] for e in reading(path)] == [0, 5, 9]


def test_images_that_are_not_in_the_file_are_said(tmp_path: Path) -> None:
    def elsewhere(table: pa.Table) -> pa.Table:
        name = "observation.images.top"
        paths = [{"bytes": None, "path": f"{i}.png"} for i in range(len(table))]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        return table.set_column(table.column_names.index(name), name, pa.array(paths, kind))

    assert not list(read := reading(changed(lerobot(tmp_path / "arm"), elsewhere)))
    assert all("kept outside of the file" in reason for reason in read.report.rejected)


def test_an_action_that_is_no_number_costs_its_episode_alone(tmp_path: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        values = [[float("nan"), 0.0], *table["action"].to_pylist()[1:]]
        return table.set_column(table.column_names.index("action"), "action", pa.array(values))

    read = reading(changed(lerobot(tmp_path / "arm"), spoil))
    assert [e.num_steps for e in read] == [4, 6]
    assert sum(read.report.rejected.values()) == 1


def test_what_the_meta_data_lack_is_said(tmp_path: Path) -> None:
    path = lerobot(tmp_path / "arm")
    file = path / "meta" / "tasks.parquet"
    pq.write_table(pq.read_table(file).slice(0, 1), file)
    about = json.loads((path / "meta" / "info.json").read_text())
    (path / "meta" / "info.json").write_text(json.dumps(about | {"total_episodes": 5}))
    read = reading(path)
    assert len(list(read)) == 2  # the second is of task 1
    assert "meta/tasks.parquet does not have" in str(read.report.rejected)
    assert read.report.left_out == ["2 of 5 episodes, which meta/episodes lacks"]
