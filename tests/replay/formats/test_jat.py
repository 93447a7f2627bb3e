"""JAT's Parquet files become episodes, or one line says why not."""

import io
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.tasks.atari_table import with_frames
from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.episode import check_episode
from gato.text import bytes_to_text
from replay.formats.detect import read_source
from replay.formats.jat import read_jat
from replay.formats.reader import ImportOptions, Reading

PONG84 = TASKS["atari84/pong"]


def write(
    path: Path, columns: dict, *, rows_in_group: int = 2, schema: pa.Schema | None = None
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=rows_in_group)
    return path


def hopper_rows(lengths: tuple[int, ...], *, width: int = 11) -> dict:
    """Each observation is its episode's number, each reward its step's."""
    return {
        "continuous_observations": [
            [[float(row)] * width] * steps for row, steps in enumerate(lengths)
        ],
        "continuous_actions": [[[0.5, -0.25, 3.0]] * steps for steps in lengths],
        "rewards": pa.array(
            [np.arange(steps, dtype=np.float32) for steps in lengths], pa.list_(pa.float32())
        ),
    }


def hopper_file(tmp_path: Path, lengths: tuple[int, ...] = (3, 1000, 2)) -> Path:
    return write(tmp_path / "mujoco-hopper" / "train-00000-of-00001.parquet", hopper_rows(lengths))


def png(frame: np.ndarray) -> dict:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, format="PNG")
    return {"bytes": out.getvalue(), "path": None}


def refused(reading: Reading) -> list[str]:
    """Why the only episode was not taken."""
    assert list(reading) == []
    assert reading.report.rejected.total() == 1
    return list(reading.report.rejected)


def stacks(steps: int) -> np.ndarray:
    """Frames [T, 84, 84, 4] of which each channel is 10 brighter than the one before, and each step
    1 brighter."""
    base = np.arange(steps)[:, None, None, None] + 10 * np.arange(4)
    return np.broadcast_to(base, (steps, 84, 84, 4)).astype(np.uint8)


@pytest.mark.parametrize("where", ["file", "folder", "folder above"])
def test_a_robots_rows_are_episodes(tmp_path: Path, where: str) -> None:
    file = hopper_file(tmp_path)
    path = {"file": file, "folder": file.parent, "folder above": tmp_path}[where]
    reading = read_source(str(path), TASKS)
    assert reading.total == 3
    first, second, third = reading
    for episode in (first, second, third):
        check_episode(episode, TASKS["mujoco-v4/hopper"])
    assert third.observations["state"].tolist() == [[2.0] * 11] * 2
    assert third.actions.tolist() == [[0.5, -0.25, 1.0]] * 2
    assert third.rewards.tolist() == [0.0, 1.0]
    assert [(e.terminated, e.truncated) for e in (first, second)] == [(True, False), (False, True)]
    assert "Gymnasium v4" in first.info["conventions"]


def test_keys_count_the_rows_of_a_file_and_known_ones_are_skipped(tmp_path: Path) -> None:
    path = hopper_file(tmp_path, (3, 4, 2, 5, 1))
    keys = [e.key for e in read_jat(path, TASKS)]
    assert [key.rpartition(":")[2] for key in keys] == list("01234")
    assert len({key.rpartition(":")[0] for key in keys}) == 1
    # the first group of rows, and half of the second
    reading = read_jat(path, TASKS, known=set(keys[:3]).__contains__)
    assert [(e.key, e.num_steps) for e in reading] == [(keys[3], 5), (keys[4], 1)]
    assert (reading.num_passed, reading.num_known) == (5, 3)


def test_an_ant_of_gymnasium_v4_does_not_fit_the_one_of_v5(tmp_path: Path) -> None:
    rows = hopper_rows((3,), width=27) | {"continuous_actions": [[[0.0] * 8] * 3]}
    path = write(tmp_path / "mujoco-ant" / "test.parquet", rows)
    (episode,) = read_source(str(path), TASKS)
    assert episode.task == "mujoco-v4/ant"
    with pytest.raises(ValueError, match=r"made in Ant-v4, task mujoco/ant is Ant-v5"):
        read_source(str(path), TASKS, TASKS["mujoco/ant"])
    known = ImportOptions(allowed=frozenset({"version"}))
    with pytest.raises(
        ValueError,
        match=r"\(27,\) in each step, task mujoco/ant .* shows \(105,\); JAT is of Gymnasium v4",
    ):
        read_source(str(path), TASKS, TASKS["mujoco/ant"], options=known)


def image_columns(form: str, steps: int) -> tuple[dict, pa.Schema | None]:
    frames = stacks(steps)
    rest = {"discrete_actions": [[0, 2, 5][:steps]], "rewards": [[1.0] * steps]}
    if form == "png":
        return {"image_observations": [[png(frame) for frame in frames]], **rest}, None
    if form == "lists":
        return {"image_observations": [frames.tolist()], **rest}, None
    if form == "channels first":
        return {"image_observations": [np.moveaxis(frames, 3, 1).tolist()], **rest}, None
    kind = pa.uint8()
    for _ in range(4):
        kind = pa.list_(kind)
    schema = pa.schema(
        [
            ("image_observations", kind),
            ("discrete_actions", pa.list_(pa.int64())),
            ("rewards", pa.list_(pa.float32())),
        ]
    )
    return {"image_observations": [frames.tolist()], **rest}, schema


@pytest.mark.parametrize("form", ["png", "lists", "channels first", "lists of bytes"])
def test_of_stacked_grey_frames_the_newest_is_shown_in_three_channels(
    tmp_path: Path, form: str
) -> None:
    columns, schema = image_columns(form, 3)
    path = write(tmp_path / "atari-pong" / "train.parquet", columns, schema=schema)
    (episode,) = read_source(str(path), TASKS)
    check_episode(episode, PONG84)
    assert episode.observations["image"][:, 5, 7].tolist() == [[30] * 3, [31] * 3, [32] * 3]
    assert episode.actions.tolist() == [0, 3, 12]  # of the 18, those of Pong's own six


def test_a_task_of_several_frames_gets_those_of_the_steps_before(tmp_path: Path) -> None:
    columns, _ = image_columns("png", 3)
    path = write(tmp_path / "atari-pong" / "train.parquet", columns)
    task = with_frames(PONG84, frames=3)
    reading = read_source(str(path), TASKS, task)
    (episode,) = reading
    check_episode(episode, task)
    seen = {name: image[:, 5, 7, 0].tolist() for name, image in episode.observations.items()}
    assert seen == {"image/0": [30, 30, 30], "image/1": [30, 30, 31], "image/2": [30, 31, 32]}
    assert "the 3 frames of a step are those of the steps before" in str(reading.report.notes)


def test_a_file_with_more_actions_than_the_game_has_buttons_counts_all_eighteen(
    tmp_path: Path,
) -> None:
    columns, _ = image_columns("png", 3)
    path = write(
        tmp_path / "atari-pong" / "train.parquet", columns | {"discrete_actions": [[0, 2, 17]]}
    )
    (episode,) = read_jat(path, TASKS)
    assert episode.actions.tolist() == [0, 2, 17]


def test_frames_of_different_sizes_in_one_episode_are_rejected(tmp_path: Path) -> None:
    columns, _ = image_columns("png", 3)
    columns["image_observations"][0][1] = png(np.zeros((80, 84, 4), np.uint8))
    (reason,) = refused(read_jat(write(tmp_path / "atari-pong.parquet", columns), TASKS))
    assert "images of shape (84, 84, 3) and of (80, 84, 3)" in reason
    columns["image_observations"][0][1] = {"bytes": b"no image", "path": None}
    (reason,) = refused(read_jat(write(tmp_path / "atari-pong.parquet", columns), TASKS))
    assert "damaged" in reason


def test_memory_holds_one_episode_of_a_row_group(tmp_path: Path) -> None:
    rows, steps = 200, 500
    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=steps).astype(np.float32) for _ in range(rows)]
    seen = [rng.normal(size=(steps, 11)).tolist() for _ in range(rows)]  # 44 kB an episode
    columns = {
        "continuous_observations": seen,
        "continuous_actions": [[[0.0] * 3] * steps] * rows,
        "rewards": rewards,
    }
    path = write(tmp_path / "hopper.parquet", columns, rows_in_group=rows)
    size_bytes = path.stat().st_size
    del columns, seen
    usual = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(usual)
    tracemalloc.start()
    pa.set_memory_pool(counted)
    assert sum(1 for _ in read_jat(path, TASKS)) == rows
    pa.set_memory_pool(usual)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1 << 20
    assert counted.max_memory() < size_bytes / 2


def test_frames_do_not_fit_the_task_of_another_size_that_was_asked_for(tmp_path: Path) -> None:
    columns, _ = image_columns("png", 2)
    path = write(tmp_path / "atari-pong" / "train.parquet", columns)
    with pytest.raises(
        ValueError, match="are those of task atari84/pong, not of atari/pong; pass that --task"
    ):
        read_jat(path, TASKS, TASKS["atari/pong"])


def test_babyai_needs_a_task_of_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "babyai-go-to-local" / "train.parquet",
        {
            "text_observations": [["go to the red ball", "go to é"]],
            "discrete_observations": [[[1, 2, 3], [4, 5, 6]]],
            "discrete_actions": [[0, 6]],
            "rewards": [[0.0, 0.9]],
        },
    )
    with pytest.raises(ValueError, match=r"cannot tell the task .*pass --task"):
        read_jat(path, TASKS)
    maze = replace(
        PONG84, name="babyai/go-to-local", env_id="BabyAI-GoToLocal-v0", family="gymnasium",
        observations={
            "mission": ArraySpec(kind=Kind.TEXT, shape=(64,), max_tokens=8),
            "grid": ArraySpec(kind=Kind.DISCRETE, shape=(3,), num_values=11),
        },
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=7), aliases=(),
    )  # fmt: skip
    (episode,) = read_jat(path, TASKS, maze)
    check_episode(episode, maze)
    assert [bytes_to_text(row) for row in episode.observations["mission"]] == [
        "go to the red ball",
        "go to é",
    ]
    assert episode.observations["grid"].tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(
        ValueError, match=r"shows .*discrete_observations.*task mujoco/hopper observes"
    ):
        read_jat(path, TASKS, TASKS["mujoco/hopper"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [[0.0] * 2, [0.0] * 1000, [0.0] * 2]}, "rewards"),
        (
            {
                "continuous_observations": [
                    [[0.0] * 11, [0.0] * 10, [0.0] * 11],
                    [[0.0] * 11],
                    [[0.0] * 11],
                ]
            },
            "lists of",
        ),
        ({"continuous_observations": [[[0.0] * 11] * 2, [[0.0] * 11], [[0.0] * 11]]}, "state"),
    ],
)
def test_rows_that_do_not_fit_together_are_rejected_and_the_others_read(
    tmp_path: Path, change: dict, message: str
) -> None:
    reading = read_jat(
        write(tmp_path / "hopper.parquet", hopper_rows((3, 1000, 2)) | change), TASKS
    )
    refused = sum(1 for _ in reading), reading.report.rejected
    assert refused[0] + refused[1].total() == 3
    assert refused[1].total() >= 1
    assert any(message in reason for reason in refused[1])


def test_other_or_damaged_files_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"columns a; a JAT file holds rewards"):
        read_source(str(write(tmp_path / "x" / "hopper.parquet", {"a": [1]})), TASKS)
    path = hopper_file(tmp_path / "good")
    other = write(path.parent / "other.parquet", {"a": [1]})
    with pytest.raises(ValueError, match="hold different things"):
        read_source(str(path.parent), TASKS)
    other.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        ValueError, match=r"other\.parquet is damaged, or not a Parquet file"
    ) as error:
        read_source(str(path.parent), TASKS)
    assert "\n" not in str(error.value)
    other.unlink()
    content = bytearray(path.read_bytes())
    content[200:600] = bytes(400)
    path.write_bytes(content)
    reading = read_source(str(path), TASKS)
    assert [episode.num_steps for episode in reading] == [2]  # of the group that is whole
    ((reason, count),) = reading.report.rejected.items()
    assert (count, "damaged" in reason) == (2, True)


def test_an_empty_folder_or_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        read_source(str(tmp_path / "hopper.parquet"), TASKS)
    with pytest.raises(ValueError, match=r"no data/metadata\.json"):
        read_source(str(tmp_path), TASKS)
    with pytest.raises(ValueError, match="empty"):
        read_source(
            str(
                write(
                    tmp_path / "hopper.parquet",
                    {name: values[:0] for name, values in hopper_rows((1,)).items()},
                )
            ),
            TASKS,
        )
