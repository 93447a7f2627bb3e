"""What an attack on the importers found: each input is accepted rightly, rejected alone, or one
line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces, wrappers

from actors.envs.gymnasium_env import keyword_defaults, task_of
from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription, Wrapper
from gato.episode import check_episode
from gato.task import Task
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions, Reading

PENDULUM = task_of("Pendulum-v1", name="Pendulum-v1")
STEPS = 6


def read(source: Path, task: Task | None = None, *allowed: str) -> Reading:
    known = {**TASKS, task.name: task} if task else TASKS
    options = ImportOptions(allowed=frozenset(allowed), defaults=keyword_defaults)
    return read_source(str(source), known, task, options=options)


def plain(space: spaces.Space) -> dict[str, Any]:
    """A space as Minari writes it."""
    match space:
        case spaces.Box():
            bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
            return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
        case spaces.Discrete():
            return {
                "type": "Discrete",
                "dtype": "int64",
                "n": int(space.n),
                "start": int(space.start),
            }
        case spaces.MultiDiscrete():
            return {
                "type": "MultiDiscrete",
                "dtype": "int64",
                "nvec": space.nvec.tolist(),
                "start": space.start.tolist(),
            }
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "dtype": "int8", "n": space.n}
    raise AssertionError(space)


def minari_set(
    folder: Path,
    *,
    env: gymnasium.Env,
    observation: Callable[[], np.ndarray],
    action: Callable[[], np.ndarray],
    episodes: int = 3,
    **about: object,
) -> Path:
    """A data set that says what its environment is, wrappers and all."""
    (folder / "data").mkdir(parents=True)
    spec = env.spec.to_json() if env.spec is not None else json.dumps({"id": "Mine-v0"})
    metadata = {
        "dataset_id": "mine/set-v0", "data_format": "hdf5", "total_episodes": episodes,
        "env_spec": spec,
        "observation_space": json.dumps(plain(env.observation_space)),
        "action_space": json.dumps(plain(env.action_space)),
    }  # fmt: skip
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata | about))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index in range(episodes):
            group = file.create_group(f"episode_{index}")
            group["observations"] = np.stack([observation() for _ in range(STEPS + 1)])
            group["actions"] = np.stack([action() for _ in range(STEPS)])
            group["rewards"], group["terminations"] = np.ones(STEPS), np.arange(STEPS) == STEPS - 1
            group["truncations"] = np.zeros(STEPS, np.bool_)
    return folder


def pendulum_set(
    folder: Path, env: gymnasium.Env | None = None, value: float = 0.5, **about: object
) -> Path:
    return minari_set(
        folder, env=env or gymnasium.make("Pendulum-v1"), observation=lambda: np.array([0.1, 0.2,
        0.3], np.float32),
        action=lambda: np.array([value], np.float32), **about,
    )  # fmt: skip


@pytest.mark.parametrize("times", [1, 2])
def test_actions_behind_clip_action_are_scaled_from_the_bounds_of_the_rescaling_inside(
    tmp_path: Path, times: int
) -> None:
    env = gymnasium.make("Pendulum-v1")
    for _ in range(times):
        env = wrappers.RescaleAction(env, -1, 1)
    reading = read(pendulum_set(tmp_path / "set", wrappers.ClipAction(env)), PENDULUM)
    assert {episode.actions[0].item() for episode in reading} == {1.0}
    assert any("scaled from [-1, 1]" in note for note in reading.report.notes)


def test_integers_in_place_of_numbers_are_refused(tmp_path: Path) -> None:
    rounded = plain(PENDULUM_SPACE) | {"dtype": "int32"}
    with pytest.raises(ValueError, match="declares state of int32, task Pendulum-v1 of float32"):
        read(pendulum_set(tmp_path / "set", observation_space=json.dumps(rounded)), PENDULUM)


@pytest.mark.parametrize(
    ("name", "entry_point"),
    [
        ("OrderEnforcing", "gymnasium.wrappers.stateful_observation:NormalizeObservation"),
        ("TimeLimit", "my_project.wrappers:TimeLimit"),
        ("StickyAction", "gymnasium.wrappers.stateful_action:StickyAction"),
    ],
)
def test_a_wrapper_is_the_class_that_it_is_called(name: str, entry_point: str) -> None:
    kwargs = {"repeat_action_probability": 0.25}
    wrapped = (Wrapper(name=name, entry_point=entry_point, kwargs=kwargs),)
    found = compare(
        EnvDescription(where="x", env_id="ALE/Pong-v5", wrappers=wrapped), TASKS["atari/pong"]
    )
    assert [difference.subject for difference in found.rejected] == [f"wrapper:{name}"]


@pytest.mark.parametrize(
    ("said", "subject"),
    [
        ({"env_id": "Pendulum-v1", "entry_point": "evil.mod:Pendulum"}, "entry-point"),
        ({"env_id": "other_pkg:Pendulum-v1"}, "environment"),
        ({"env_id": "Pendulum-v1", "kwargs": {"g": 10**400}}, "keyword:g"),
        (
            {"env_id": "Pendulum-v1", "action_bounds": (np.array([-np.inf]), np.array([2.0]))},
            "action-bounds",
        ),
        (
            {"env_id": "Pendulum-v1", "action_bounds": (np.array([np.nan]), np.array([2.0]))},
            "action-bounds",
        ),
    ],
)
def test_what_names_another_environment_is_refused(said: dict, subject: str) -> None:
    found = compare(EnvDescription(where="x", **said), PENDULUM, defaults=keyword_defaults)
    assert [difference.subject for difference in found.rejected] == [subject]


def break_rewards(group: Any) -> None:
    del group["rewards"]
    group["rewards"] = 1.0


def break_actions(group: Any) -> None:
    del group["actions"]
    group.create_group("actions")


def break_ends(group: Any) -> None:
    del group["terminations"]
    group["terminations"] = np.array([(1, 2)] * STEPS, np.dtype([("a", "i4"), ("b", "i4")]))


def break_observations(group: Any) -> None:
    del group["observations"]
    group["observations"] = h5py.Empty("f4")


@pytest.mark.parametrize("damage", [break_rewards, break_actions, break_ends, break_observations])
def test_a_malformed_episode_costs_itself_alone(
    tmp_path: Path, damage: Callable[[Any], None]
) -> None:
    folder = pendulum_set(tmp_path / "set")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        damage(file["episode_1"])
    reading = read(folder, PENDULUM)
    assert [episode.key.rpartition(":")[2] for episode in reading] == ["0", "2"]
    assert reading.report.rejected.total() == 1


@pytest.mark.parametrize("total", [10**12, 5, 2])
def test_a_count_of_the_metadata_that_is_wrong_is_said_and_ends(tmp_path: Path, total: int) -> None:
    reading = read(pendulum_set(tmp_path / "set", total_episodes=total), PENDULUM)
    assert len(list(reading)) == min(total, 3)
    assert f"counts {total:,} episodes" in reading.report.left_out[0]


@pytest.mark.parametrize(
    "about",
    [
        [1, 2],
        None,
        {"total_episodes": 3.7},
        {"total_episodes": -3},
        {"total_episodes": True},
        {"dataset_id": None},
        {"dataset_id": 5},
        {"env_spec": "[1]"},
        {"env_spec": json.dumps({"id": [1], "additional_wrappers": 5})},
        {
            "env_spec": json.dumps(
                {
                    "id": "Pendulum-v1",
                    "additional_wrappers": [{"name": "TimeLimit", "kwargs": [50]}],
                }
            )
        },
        {"observation_space": json.dumps({"type": "Box", "dtype": "float32", "shape": 1})},
        {"observation_space": json.dumps({"type": "Dict", "subspaces": [1]})},
        {
            "action_space": json.dumps(
                {"type": "Box", "shape": [1], "dtype": "float32", "low": "x", "high": {}}
            )
        },
        {"action_space": json.dumps({"type": "MultiDiscrete", "nvec": "x"})},
    ],
)
def test_odd_metadata_is_one_line(tmp_path: Path, about: Any) -> None:
    folder = pendulum_set(tmp_path / "set")
    file = folder / "data" / "metadata.json"
    good = json.loads(file.read_text())
    file.write_text(json.dumps(good | about if isinstance(about, dict) else about))
    with pytest.raises(ValueError, match=r"\S") as error:
        list(read(folder, PENDULUM))
    assert "\n" not in str(error.value)


class Mine(gymnasium.Env):
    """Any spaces."""

    def __init__(self, observation: spaces.Space, action: spaces.Space) -> None:
        self.observation_space, self.action_space = observation, action


@pytest.mark.parametrize(
    ("observation", "spec", "shown", "expected"),
    [
        (
            spaces.MultiBinary(4),
            ArraySpec(kind=Kind.DISCRETE, shape=(4,), num_values=2),
            np.ones(4, np.int8),
            1,
        ),
        (
            spaces.Discrete(3, start=-1),
            ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=3),
            np.int64(-1),
            0,
        ),
        (
            spaces.MultiDiscrete([2, 3], start=[5, 7]),
            ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(2, 3)),
            np.array([6, 8]),
            1,
        ),
        (
            spaces.Box(-5, 5, (2,), np.int32),
            ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=11),
            np.full(2, -5, np.int32),
            0,
        ),
        (
            spaces.Box(0, np.inf, (2,)),
            ArraySpec(kind=Kind.CONTINUOUS, shape=(2,)),
            np.full(2, 3, np.float32),
            3,
        ),
        (
            spaces.Box(0, 255, (16, 16, 1), np.uint8),
            ArraySpec(kind=Kind.IMAGE, shape=(16, 16, 3)),
            np.full((16, 16, 1), 9, np.uint8),
            9,
        ),
        (
            spaces.Box(0, 255, (16, 16), np.uint8),
            ArraySpec(kind=Kind.IMAGE, shape=(16, 16, 3)),
            np.full((16, 16), 9, np.uint8),
            9,
        ),
        (
            spaces.Box(0, 255, (3, 16, 12), np.uint8),
            ArraySpec(kind=Kind.IMAGE, shape=(16, 12, 3)),
            np.full((3, 16, 12), 9, np.uint8),
            9,
        ),
    ],
)
def test_what_the_environments_adapter_takes_an_import_takes(
    tmp_path: Path, observation: spaces.Space, spec: ArraySpec, shown: np.ndarray, expected: int
) -> None:
    name = "image" if spec.kind is Kind.IMAGE else "state"
    task = replace(
        PENDULUM, name="mine", env_id="Mine-v0", observations={name: spec}, env_kwargs={}
    )
    env = Mine(observation, spaces.Box(-2.0, 2.0, (1,), np.float32))
    folder = minari_set(
        tmp_path / "set", env=env, observation=lambda: shown, action=lambda: np.zeros(1, np.float32)
    )
    episodes = list(read(folder, task))
    assert len(episodes) == 3
    for episode in episodes:
        check_episode(episode, task)
        assert (episode.observations[name] == expected).all()


def test_other_numbers_of_values_are_refused(tmp_path: Path) -> None:
    action = ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(3, 4))
    task = replace(PENDULUM, name="mine", env_id="Mine-v0", action=action, env_kwargs={})
    env = Mine(PENDULUM_SPACE, spaces.MultiDiscrete([2, 9]))
    folder = minari_set(
        tmp_path / "set",
        env=env,
        observation=lambda: np.zeros(3, np.float32),
        action=lambda: np.zeros(2, np.int64),
    )
    with pytest.raises(ValueError, match=r"has \[2, 9\] values of actions, task mine \[3, 4\]"):
        read(folder, task)


PENDULUM_SPACE = spaces.Box(np.array([-1, -1, -8], np.float32), np.array([1, 1, 8], np.float32))


def jat(path: Path, *, widths: tuple[int, ...] = (17,), actions: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "continuous_observations": [np.zeros((STEPS, width)).tolist() for width in widths],
        "continuous_actions": [np.zeros((STEPS, actions)).tolist()] * len(widths),
        "rewards": [[1.0] * STEPS] * len(widths),
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_a_folder_of_several_tasks_is_refused(tmp_path: Path) -> None:
    for name in ("mujoco-halfcheetah", "mujoco-walker"):
        jat(tmp_path / "two" / name / "train.parquet")
    with pytest.raises(
        ValueError, match=r"holds files of several tasks: .*halfcheetah.*import them one by one"
    ):
        read(tmp_path / "two")
    (episode,) = read(tmp_path / "two" / "mujoco-walker")
    assert episode.task == "mujoco-v4/walker2d"


def test_a_row_that_does_not_fit_is_refused_alone_wherever_it_stands(tmp_path: Path) -> None:
    for widths in ((10, 11, 11), (11, 11, 10)):
        reading = read(jat(tmp_path / "mujoco-hopper.parquet", widths=widths, actions=3))
        assert len(list(reading)) == 2
        assert reading.report.rejected.total() == 1
    with pytest.raises(ValueError, match=r"\(10,\) in each step"):
        read(jat(tmp_path / "mujoco-hopper.parquet", widths=(10, 10), actions=3))


@pytest.mark.parametrize(
    ("name", "task"), [("hopper-medium-v4", "mujoco-v4/hopper"), ("hopper_x-v9", None)]
)
def test_the_version_in_a_files_name_counts(tmp_path: Path, name: str, task: str | None) -> None:
    path = tmp_path / f"{name}.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((STEPS, 11)), np.zeros((STEPS, 3))
        file["rewards"], file["terminals"] = np.ones(STEPS), np.arange(STEPS) == STEPS - 1
    if task is None:
        with pytest.raises(ValueError, match="made in Hopper-v9, task mujoco/hopper is Hopper-v5"):
            read(path)
        return
    assert [episode.task for episode in read(path)] == [task]


def test_what_a_file_says_of_its_environment_is_read_in_an_array_too(tmp_path: Path) -> None:
    path = tmp_path / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((STEPS, 17)), np.zeros((STEPS, 6))
        file["rewards"], file["terminals"] = np.ones(STEPS), np.arange(STEPS) == STEPS - 1
        file["metadata/env_id"] = np.array([b"HalfCheetah-v5"])
    assert [episode.task for episode in read(path)] == ["mujoco/halfcheetah"]
    with h5py.File(path, "a") as file:
        file["metadata/env_spec"] = json.dumps([{"id": "HalfCheetah-v5"}])
    with pytest.raises(ValueError, match="expected a mapping in JSON"):
        read(path)


def test_one_joint_of_another_scale_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hopper-v5.hdf5"
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 3)) * [1, 1, 100]
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((60, 11)), actions
        file["rewards"], file["terminals"] = np.ones(60), np.arange(60) == 59
    reading = read(path)
    assert list(reading) == []
    assert "of another scale" in next(iter(reading.report.rejected))


def test_reasons_that_differ_in_numbers_count_together(tmp_path: Path) -> None:
    path = tmp_path / "hopper-v5.hdf5"
    rows = 50
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((rows, 11)), np.zeros((rows, 3))
        file["rewards"], file["terminals"] = 1e9 + 1e7 * np.arange(rows), np.ones(rows, np.bool_)
    reading = read(path)
    assert list(reading) == []
    assert list(reading.report.rejected.values()) == [rows]


def test_a_data_set_is_copied_and_still_the_same(tmp_path: Path) -> None:
    one = pendulum_set(tmp_path / "a")
    shutil.copytree(one, tmp_path / "b")
    assert [e.key for e in read(one, PENDULUM)] == [e.key for e in read(tmp_path / "b", PENDULUM)]
