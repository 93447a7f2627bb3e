"""Minari's storages, encodings and downloads, with data sets that Minari itself writes."""

import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import cv2
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from gato.array_spec import ArraySpec, Kind
from gato.episode import check_episode
from gato.task import References, Task
from replay.formats.detect import read_source
from replay.formats.minari import storage as minari_storage
from replay.formats.minari.importer import read_minari
from replay.formats.reader import ImportOptions

PONG = TASKS["atari/pong"]
SEEN = spaces.Dict(
    {
        "arm": spaces.Dict({"pose": spaces.Box(-np.inf, np.inf, (2,), np.float32)}),
        "eye": spaces.Box(0, 255, (40, 36, 3), np.uint8),
        "pair": spaces.Tuple((spaces.Discrete(5), spaces.Box(-1, 1, (3,), np.float32))),
        "order": spaces.Text(max_length=9, min_length=0, charset="abcäé "),
    }
)
ROBOT = Task(
    name="house/robot",
    env_id="House-v0",
    family="gymnasium",
    observations={
        "arm/pose": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,)),
        "eye": ArraySpec(kind=Kind.IMAGE, shape=(40, 36, 3)),
        "pair/0": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=5),
        "pair/1": ArraySpec(kind=Kind.CONTINUOUS, shape=(3,), low=-1.0, high=1.0),
        "order": ArraySpec(kind=Kind.TEXT, shape=(18,), max_tokens=4),
    },
    action=ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=-1.0, high=1.0),
    references=References(random=0.0, expert=1.0, source="made up"),
    max_steps=100,
)


def picture(step: int, height: int = 40, width: int = 36) -> np.ndarray:
    """Smooth, so that JPEG keeps it nearly; each step another."""
    across, down = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    return np.stack([across, down, np.full_like(across, 20 * step)], axis=-1).astype(np.uint8)


def write(
    folder: Path,
    data_format: str,
    buffers: list[EpisodeBuffer],
    *,
    env_id: str,
    jpeg: bool,
    **about: object,
) -> Path:
    """A data set written by Minari's own storage."""
    (folder / "data").mkdir(parents=True)
    storage = MinariStorage.new(
        folder / "data",
        about["observation_space"],
        about["action_space"],
        data_format=data_format,
        jpeg_encoding=jpeg,  # type: ignore[arg-type]
    )
    storage.update_episodes(buffers)
    file = folder / "data" / "metadata.json"
    kwargs = about.get("env_kwargs", {})
    extra = {
        "dataset_id": "house/robot-v0",
        "env_spec": json.dumps({"id": env_id, "kwargs": kwargs, "additional_wrappers": []}),
        "minari_version": "0.5.4",
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | extra))
    return folder


def robot_set(folder: Path, data_format: str, *, jpeg: bool) -> Path:
    buffers = [
        EpisodeBuffer(
            id=index,
            seed=30 + index,
            observations={
                "arm": {"pose": np.arange(2.0 * length + 2, dtype=np.float32).reshape(-1, 2)},
                "eye": np.stack([picture(step) for step in range(length + 1)]),
                "pair": (np.arange(length + 1) % 5, np.full((length + 1, 3), 0.5, np.float32)),
                "order": ["", "ab ä", "c", "a é"][: length + 1],
            },
            actions=np.full((length, 2), 0.25, np.float32),
            rewards=[1.5] * length,
            terminations=[step == length - 1 and index == 0 for step in range(length)],
            truncations=[step == length - 1 and index == 1 for step in range(length)],
        )
        for index, length in enumerate((2, 3))
    ]
    return write(
        folder,
        data_format,
        buffers,
        env_id="House-v0",
        jpeg=jpeg,
        observation_space=SEEN,
        action_space=spaces.Box(-1, 1, (2,), np.float32),
    )


@pytest.mark.parametrize("jpeg", [True, False])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_every_storage_gives_the_same_episodes_with_decoded_frames(
    tmp_path: Path, data_format: str, jpeg: bool
) -> None:
    folder = robot_set(tmp_path / "set", data_format, jpeg=jpeg)
    first, second = read_minari(folder, {ROBOT.name: ROBOT})
    for episode in (first, second):
        check_episode(episode, ROBOT)
    assert [(e.num_steps, e.terminated, e.truncated, e.seed) for e in (first, second)] == [
        (2, True, False, 30),
        (3, False, True, 31),
    ]
    assert second.rewards.tolist() == [1.5] * 3
    assert second.observations["arm/pose"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert second.observations["pair/0"].tolist() == [0, 1, 2]
    assert [bytes(row).rstrip(b"\0").decode() for row in second.observations["order"]] == [
        "",
        "ab ä",
        "c",
    ]
    expected = np.stack([picture(step) for step in range(3)])
    distance = np.abs(second.observations["eye"].astype(int) - expected)
    assert distance.max() <= (20 if jpeg else 0)
    theirs = next(iter(MinariDataset(folder / "data").iterate_episodes([1])))
    np.testing.assert_array_equal(second.observations["eye"], theirs.observations["eye"][:-1])


def test_a_note_in_the_folder_does_not_make_it_a_text(tmp_path: Path) -> None:
    folder = robot_set(tmp_path / "set", "hdf5", jpeg=False)
    (folder / "README.txt").write_text("Recorded on a Tuesday.\n")
    options = ImportOptions(name="set", find_task=resolve_task)
    read = read_source(str(folder), {ROBOT.name: ROBOT}, options=options)
    assert (read.report.task, read.total) == (ROBOT.name, 2)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_known_episodes_are_skipped_before_they_are_decoded(
    tmp_path: Path, data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = robot_set(tmp_path / "set", data_format, jpeg=True)
    keys = [e.key for e in read_minari(folder, {ROBOT.name: ROBOT})]
    assert [key.rpartition(":")[2] for key in keys] == ["0", "1"]
    decoded: list[int] = []
    decode = minari_storage._decoded
    monkeypatch.setattr(
        minari_storage, "_decoded", lambda images: decoded.append(len(images)) or decode(images)
    )
    reading = read_minari(folder, {ROBOT.name: ROBOT}, known={keys[0]}.__contains__)
    assert [e.key for e in reading] == [keys[1]]
    assert (reading.total, reading.num_passed, reading.num_known) == (2, 2, 1)
    assert decoded == [3]


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_damage_is_one_clear_line_and_costs_what_it_struck(
    tmp_path: Path, data_format: str
) -> None:
    folder = robot_set(tmp_path / "set", data_format, jpeg=True)
    file = next(iter((folder / "data").glob("0/*.arrow" if data_format == "arrow" else "*.hdf5")))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    if data_format == "hdf5":  # nothing of it can be opened
        with pytest.raises(ValueError, match="damaged") as error:
            read_minari(folder, {ROBOT.name: ROBOT})
        assert "\n" not in str(error.value)
        return
    reading = read_minari(folder, {ROBOT.name: ROBOT})
    assert [episode.num_steps for episode in reading] == [3]  # the other episode is whole
    (reason,) = reading.report.rejected
    assert reason.startswith("damaged")
    assert "\n" not in reason


def atari_set(folder: Path, *, jpeg: bool, num_actions: int = 6) -> tuple[Path, np.ndarray]:
    frames = np.stack([picture(step, 210, 160) for step in range(5)])
    buffer = EpisodeBuffer(
        id=0,
        observations=frames,
        actions=[0, 1, 2, num_actions - 1],
        rewards=[0.0, 1.0, 0.0, -1.0],
        terminations=[False, False, False, True],
        truncations=[False] * 4,
    )
    made = write(
        folder,
        "hdf5",
        [buffer],
        env_id="ALE/Pong-v5",
        jpeg=jpeg,
        observation_space=spaces.Box(0, 255, (210, 160, 3), np.uint8),
        action_space=spaces.Discrete(num_actions),
        env_kwargs={"frameskip": 4, "repeat_action_probability": 0.0},
    )
    return made, frames


def test_frames_of_ataris_own_size_are_shrunk_as_the_environment_does_it(tmp_path: Path) -> None:
    folder, frames = atari_set(tmp_path / "set", jpeg=False)
    (episode,) = read_minari(folder, TASKS)
    check_episode(episode, PONG)
    expected = [cv2.resize(frame, (80, 64), interpolation=cv2.INTER_AREA) for frame in frames[:-1]]
    np.testing.assert_array_equal(episode.observations["image"], expected)
    assert episode.info["frames"] == "210x160x3 shrunk by area to 64x80x3"
    assert json.loads(episode.info["env_kwargs"])["repeat_action_probability"] == 0.0


def test_large_frames_are_shrunk_a_block_at_a_time(tmp_path: Path) -> None:
    folder, _ = atari_set(tmp_path / "set", jpeg=False)
    steps = 900  # 91 MB of frames
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0"]
        group = file.create_group("episode_0")
        group.create_dataset(
            "observations",
            (steps + 1, 210, 160, 3),
            np.uint8,
            chunks=(8, 210, 160, 3),
            compression="gzip",
        )
        for name, dtype in {
            "actions": "i8",
            "rewards": "f8",
            "terminations": "?",
            "truncations": "?",
        }.items():
            group[name] = np.zeros(steps, dtype)
    tracemalloc.start()
    (episode,) = read_minari(folder, TASKS)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert episode.num_steps == steps
    assert peak_bytes < 36 << 20 < steps * 210 * 160 * 3 / 2


def test_actions_that_count_a_games_own_buttons_become_those_of_all_eighteen(
    tmp_path: Path,
) -> None:
    folder, _ = atari_set(tmp_path / "set", jpeg=True)
    (episode,) = read_minari(folder, TASKS)
    assert episode.actions.tolist() == [0, 1, 3, 12]
    assert "6 buttons" in episode.info["actions"]


def test_frames_that_others_have_shrunk_are_of_the_task_that_says_so_or_of_none(
    tmp_path: Path,
) -> None:
    buffer = EpisodeBuffer(
        id=0,
        observations=np.zeros((3, 84, 84, 3), np.uint8),
        actions=[0, 17],
        rewards=[0.0, 1.0],
        terminations=[False, True],
        truncations=[False, False],
    )
    folder = write(
        tmp_path / "set",
        "hdf5",
        [buffer],
        env_id="ALE/Pong-v5",
        jpeg=False,
        action_space=spaces.Discrete(18),
        observation_space=spaces.Box(0, 255, (84, 84, 3), np.uint8),
    )
    with pytest.raises(
        ValueError, match=r"images of size 84x84x3 in each step, task atari/pong \(64, 80, 3\)"
    ):
        read_minari(folder, TASKS)
    (episode,) = read_minari(folder, TASKS, TASKS["atari84/pong"])
    check_episode(episode, TASKS["atari84/pong"])


class FakeHubError(Exception):
    """As the hub's HTTP library has one: no OSError, nor a ValueError."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A hub that can be reached; `huggingface_hub` itself is not needed by the tests."""
    package, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    errors.HTTPError = FakeHubError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    monkeypatch.setattr("replay.formats.minari.folder.find_spec", lambda name: object())
    monkeypatch.setattr("replay.formats.minari.folder._reach_hub", lambda: None)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return package


@pytest.mark.parametrize(
    "problem",
    [
        FakeHubError("[Errno -2] Name or\nservice not known"),
        OSError("no route"),
        ValueError("no such set"),
    ],
)
def test_a_download_that_fails_says_so_in_one_line(
    hub: ModuleType, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def fail(dataset_id: str, force_download: bool = False) -> None:
        raise problem

    monkeypatch.setattr(minari, "download_dataset", fail)
    with pytest.raises(
        ValueError,
        match=r"no data set 'mujoco/hopper/expert-v0'.*cannot be downloaded: .*; try again",
    ) as error:
        read_minari("minari:mujoco/hopper/expert-v0", TASKS)
    assert "\n" not in str(error.value)


def test_a_hub_out_of_reach_is_not_waited_for(
    hub: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach() -> None:
        raise FakeHubError("[Errno -2] Name or service not known")

    monkeypatch.setattr("replay.formats.minari.folder._reach_hub", out_of_reach)
    monkeypatch.setattr(
        minari, "download_dataset", lambda *args, **options: pytest.fail("it was tried")
    )
    with pytest.raises(ValueError, match="Name or service not known"):
        read_minari("minari:mujoco/hopper/expert-v0", TASKS)


def test_a_download_that_was_interrupted_goes_on(
    hub: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[bool] = []

    def download(dataset_id: str, force_download: bool = False) -> None:
        asked.append(force_download)
        if len(asked) == 2:
            robot_set(tmp_path / "sets" / dataset_id, "hdf5", jpeg=True)
        else:
            (tmp_path / "sets" / dataset_id).mkdir(parents=True)
            raise OSError("interrupted")

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(ValueError, match="interrupted"):
        read_minari("minari:house/robot-v0", {ROBOT.name: ROBOT})
    assert len(list(read_minari("minari:house/robot-v0", {ROBOT.name: ROBOT}))) == 2
    assert asked == [False, True]
