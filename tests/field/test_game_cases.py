"""Atari and RLlib data that people report: frames, sticky actions, buttons, lives, clipped rewards,
and scales of actions."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import h5py
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from actors.envs.gymnasium_env import keyword_defaults
from actors.tasks.catalog import TASKS
from actors.tasks.resolve import resolve_task
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription, Wrapper
from gato.task import Task
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions, Reading
from tests.replay.formats.test_rllib import encode

PONG = TASKS["atari/pong"]
STEPS = 3
ALE = {"game": "pong", "frameskip": 4, "repeat_action_probability": 0.0, "full_action_space": True}


def pong_set(
    folder: Path,
    *,
    kwargs: dict,
    wrappers: list | None = None,
    num_actions: int = 18,
    env_id: str = "ALE/Pong-v5",
) -> Path:
    (folder / "data").mkdir(parents=True)
    spec = {"id": env_id, "kwargs": kwargs, "additional_wrappers": wrappers or []}
    frame = {"type": "Box", "dtype": "uint8", "shape": [64, 80, 3], "low": 0, "high": 255}
    about = {
        "dataset_id": "mine/pong-v0", "data_format": "hdf5", "total_episodes": 1,
        "env_spec": json.dumps(spec),
        "observation_space": json.dumps(frame), "action_space": json.dumps({"type": "Discrete",
        "n": num_actions}),
    }  # fmt: skip
    (folder / "data" / "metadata.json").write_text(json.dumps(about))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        group = file.create_group("episode_0")
        group["observations"], group["actions"] = (
            np.zeros((STEPS + 1, 64, 80, 3), np.uint8),
            np.array([0, 2, 5]),
        )
        group["rewards"], group["terminations"] = np.zeros(STEPS), np.arange(STEPS) == STEPS - 1
        group["truncations"] = np.zeros(STEPS, np.bool_)
    return folder


def read(source: Path, *allowed: str, task: Task | None = None) -> Reading:
    options = ImportOptions(allowed=frozenset(allowed), defaults=keyword_defaults)
    return read_source(str(source), TASKS, task, options=options)


@pytest.mark.report("openai/atari-py#77")
def test_sticky_actions_that_the_task_does_not_have_are_refused_with_the_task_that_has_them(
    tmp_path: Path,
) -> None:
    folder = pong_set(tmp_path / "set", kwargs=ALE | {"repeat_action_probability": 0.25})
    with pytest.raises(
        ValueError, match=r"sticky with chance 0\.25.*atari/pong\?sticky=0\.25.*--allow sticky"
    ):
        read(folder)
    sticky = resolve_task("pong?sticky=0.25")
    (episode,) = read(folder, task=sticky)
    assert episode.task == "atari/pong?sticky=0.25"
    (episode,) = read(folder, "sticky")
    assert "sticky" in episode.info["allowed"]


@pytest.mark.parametrize(
    ("kwargs", "wrappers", "refused"),
    [
        ({"frameskip": 1}, [], "an action lasted 1 frames"),
        ({"frameskip": [2, 5]}, [], "an action lasted"),
        ({"frameskip": 1}, [{"name": "MaxAndSkipObservation", "kwargs": {"skip": 4}}], None),
        (
            {"frameskip": 4},
            [{"name": "MaxAndSkipObservation", "kwargs": {"skip": 4}}],
            "an action lasted 16 frames",
        ),
        ({"mode": 1}, [], "mode=1"),
        ({"mode": 0, "difficulty": 0}, [], None),
        ({"difficulty": 3}, [], "difficulty=3"),
        ({"game": "breakout"}, [], "of the game breakout"),
        ({"obs_type": "ram"}, [], "obs_type"),
        ({"obs_type": "grayscale"}, [], "obs_type"),
        (
            {},
            [{"name": "StickyAction", "kwargs": {"repeat_action_probability": 0.5}}],
            "the wrapper StickyAction, which changes actions",
        ),
        (
            {},
            [{"name": "AtariPreprocessing", "kwargs": {"terminal_on_life_loss": True}}],
            "AtariPreprocessing",
        ),
        (
            {},
            [{"name": "FrameStackObservation", "kwargs": {"stack_size": 4}}],
            "FrameStackObservation",
        ),
        (
            {},
            [{"name": "ClipReward", "kwargs": {"min_reward": -1, "max_reward": 1}}],
            "which changes rewards",
        ),
    ],
)
def test_what_a_game_is_played_with_is_compared(
    kwargs: dict, wrappers: list, refused: str | None, tmp_path: Path
) -> None:
    entry = [w | {"entry_point": f"gymnasium.wrappers:{w['name']}"} for w in wrappers]
    folder = pong_set(tmp_path / "set", kwargs=ALE | kwargs, wrappers=entry)
    if refused is None:
        assert len(list(read(folder))) == 1
        return
    with pytest.raises(ValueError, match="contradicts the task") as error:
        read(folder)
    assert refused in str(error.value)


@pytest.mark.parametrize(
    ("env_id", "refused"),
    [
        ("PongNoFrameskip-v4", ["frameskip"]),
        ("PongDeterministic-v4", []),
        ("PongDeterministic-v0", ["sticky"]),
        ("Pong-v4", ["frameskip"]),
        ("BreakoutDeterministic-v4", ["environment"]),
    ],
)
def test_what_the_older_ids_of_a_game_stand_for_is_compared(
    env_id: str, refused: list[str]
) -> None:
    found = compare(EnvDescription(where="x", env_id=env_id), PONG)
    assert [difference.subject for difference in found.rejected] == refused


def test_grey_frames_are_refused_for_a_game_that_is_shown_in_colour(tmp_path: Path) -> None:
    folder = pong_set(tmp_path / "set", kwargs=ALE)
    file = folder / "data" / "metadata.json"
    grey = {"type": "Box", "dtype": "uint8", "shape": [64, 80, 1], "low": 0, "high": 255}
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"observation_space": json.dumps(grey)})
    )
    with pytest.raises(ValueError, match="images of size 64x80x1"):
        read(folder)


@pytest.mark.report("google-research/batch_rl#40")
def test_which_buttons_actions_count_is_said(tmp_path: Path) -> None:
    folder = pong_set(tmp_path / "set", kwargs=ALE | {"full_action_space": False}, num_actions=6)
    reading = read(folder)
    (episode,) = reading
    assert episode.actions.tolist() == [0, 3, 12]
    assert any("actions count the 6 buttons of the game" in note for note in reading.report.notes)


@pytest.mark.report("ray-project/rl-experiments#1", "google-research/batch_rl#40")
def test_the_conventions_of_dqn_replay_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "Pong" / "1" / "replay_logs"
    folder.mkdir(parents=True)
    ends = np.arange(4) == 3
    for name, values in {
        "observation": np.ones((4, 84, 84), np.uint8),
        "action": np.ones(4, np.int32),
        "reward": np.ones(4, np.float32),
        "terminal": ends.astype(np.uint8),
    }.items():
        with gzip.open(folder / f"$store$_{name}_ckpt.0.gz", "wb") as stream:
            np.save(stream, values)
    reading = read(folder)
    assert len(list(reading)) == 1
    said = " ".join(reading.report.notes)
    assert "rewards clipped to [-1, 1], sticky actions 0.25" in said
    assert "the game's own 6 buttons" in said


def rllib_file(path: Path, *, action: float, low: float, high: float, width: int = 4) -> Path:
    episode = SingleAgentEpisode(
        observations=[np.zeros(width) for _ in range(STEPS + 1)],
        actions=[np.full(1, action, np.float32) for _ in range(STEPS)],
        rewards=[1.0] * STEPS,
        infos=[{}] * (STEPS + 1),
        observation_space=spaces.Box(-np.inf, np.inf, (width,), np.float64),
        action_space=spaces.Box(low, high, (1,), np.float32),
        terminated=True,
        len_lookback_buffer=0,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"item": [msgpack.packb(episode.get_state(), default=encode)]}), path)
    return path


@pytest.mark.report("ray-project/ray#27335", "ray-project/ray#16531", "ray-project/ray#21417")
def test_rllibs_normalised_actions_are_scaled_and_raw_ones_are_refused(tmp_path: Path) -> None:
    task = TASKS["mujoco/inverted-pendulum"]
    reading = read(rllib_file(tmp_path / "a.parquet", action=0.5, low=-3, high=3), task=task)
    assert next(reading).actions.tolist() == [[1.5]] * STEPS
    assert any("between -1 and 1 (normalize_actions)" in note for note in reading.report.notes)
    raw = read(rllib_file(tmp_path / "b.parquet", action=2.5, low=-3, high=3), task=task)
    assert list(raw) == []
    assert "of another scale" in next(iter(raw.report.rejected))


def test_other_spaces_in_rllibs_state_are_converted_or_refused(tmp_path: Path) -> None:
    task = TASKS["mujoco/inverted-pendulum"]
    reading = read(rllib_file(tmp_path / "a.parquet", action=0.5, low=-10, high=10), task=task)
    assert any(
        "declares actions in [-10, 10], the task's are in [-3, 3]" in note
        for note in reading.report.notes
    )
    bounded = replace(task.observations["state"], low=-1.0, high=1.0)
    with pytest.raises(ValueError, match=r"declares state in \[-inf, inf\], task .* in \[-1, 1\]"):
        read(
            rllib_file(tmp_path / "b.parquet", action=0.5, low=-3, high=3),
            task=replace(task, observations={"state": bounded}),
        )


@pytest.mark.parametrize("name", ["TimeLimit", "OrderEnforcing", "RecordEpisodeStatistics"])
def test_wrappers_that_change_nothing_pass(name: str) -> None:
    said = EnvDescription(where="x", env_id="Hopper-v5", wrappers=(Wrapper(name=name),))
    assert compare(said, TASKS["mujoco/hopper"]).differences == ()


def test_a_keyword_at_its_default_passes() -> None:
    hopper = TASKS["mujoco/hopper"]
    said = EnvDescription(
        where="x", env_id="Hopper-v5", kwargs={"frame_skip": 4, "healthy_z_range": [0.7, np.inf]}
    )
    assert compare(said, hopper, defaults=keyword_defaults).differences == ()
    assert [found.subject for found in compare(said, hopper).rejected] == [
        "keyword:frame_skip",
        "keyword:healthy_z_range",
    ]
