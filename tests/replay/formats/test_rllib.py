"""RLlib's packed episodes become episodes, and no pickle in them is ever opened."""

from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.episode import check_episode
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions, Reading
from replay.formats.rllib import read_rllib

HOPPER = TASKS["mujoco/hopper"]
PENDULUM = TASKS["mujoco/inverted-pendulum"]


def encode(value: object) -> object:
    """As msgpack-numpy does it, by which RLlib packs: arrays of objects are pickles there."""
    if isinstance(value, np.ndarray):
        is_plain = value.dtype.kind not in "OV"
        return {
            b"nd": True,
            b"type": value.dtype.str if is_plain else value.dtype.descr,
            b"kind": b"" if is_plain else value.dtype.kind.encode(),
            b"shape": value.shape,
            b"data": value.tobytes() if is_plain or value.dtype.kind == "V" else value.dumps(),
        }
    if isinstance(value, (np.bool_, np.number)):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    return value


def write(path: Path, states: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"item": [msgpack.packb(state, default=encode) for state in states]}),
        path,
        row_group_size=2,
    )
    return path


def hopper_episode(
    steps: int, *, scale: float = 1.0, width: int = 11, size: int = 3, terminated: bool = True
) -> SingleAgentEpisode:
    """Each observation is its own number, each reward its step's."""
    return SingleAgentEpisode(
        id_="e7",
        observations=[np.full(width, step, np.float64) for step in range(steps + 1)],
        actions=[np.full(size, scale * 0.5, np.float32) for _ in range(steps)],
        rewards=[np.float64(step) for step in range(steps)],
        infos=[{"x_position": np.float64(0.5), "names": np.array(["a", {}], object)}]
        + [{}] * steps,
        observation_space=spaces.Box(-np.inf, np.inf, (width,), np.float64),
        action_space=spaces.Box(-1, 1, (size,), np.float32),
        terminated=terminated,
        truncated=not terminated,
        extra_model_outputs={"action_logp": [np.float32(-1.0)] * steps} if steps else None,
        len_lookback_buffer=0,
    )


@pytest.mark.parametrize("form", ["steps", "arrays"])
def test_what_rllib_packs_is_an_episode(tmp_path: Path, form: str) -> None:
    episodes = [hopper_episode(3), hopper_episode(2, terminated=False)]
    if form == "arrays":
        for episode in episodes:
            episode.to_numpy()
    write(
        tmp_path / "hopperenv" / "run-000000-00001" / "0.parquet",
        [episode.get_state() for episode in episodes],
    )
    reading = read_source(str(tmp_path), TASKS)
    assert reading.total == 2
    first, second = reading
    for episode in (first, second):
        check_episode(episode, HOPPER)
    assert first.observations["state"][:, 0].tolist() == [0, 1, 2]
    assert first.actions.tolist() == [[0.5] * 3] * 3
    assert first.rewards.tolist() == [0, 1, 2]
    assert [(e.terminated, e.truncated) for e in (first, second)] == [(True, False), (False, True)]
    assert first.info["rllib_episode"] == "e7"


def test_keys_count_rows_and_known_ones_are_skipped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "hopper-v5.parquet",
        [hopper_episode(steps).get_state() for steps in (1, 2, 3, 4, 5)],
    )
    keys = [e.key for e in read_rllib(path, TASKS)]
    assert [key.rpartition(":")[2] for key in keys] == list("01234")
    reading = read_rllib(path, TASKS, known=set(keys[:3]).__contains__)
    assert [(e.key, e.num_steps) for e in reading] == [(keys[3], 4), (keys[4], 5)]
    assert (reading.num_passed, reading.num_known) == (5, 3)


def test_a_chunk_leaves_out_the_steps_of_the_one_before(tmp_path: Path) -> None:
    episode = hopper_episode(6, terminated=False)
    episode.is_truncated = False
    rest = episode.cut(len_lookback_buffer=2)
    rest.add_env_step(
        np.full(11, 7.0),
        np.full(3, 0.25, np.float32),
        6.0,
        {},
        terminated=True,
        extra_model_outputs={"action_logp": 0.0},
    )
    states = [
        episode.get_state(),
        rest.get_state(),
        hopper_episode(0, terminated=False).get_state(),
    ]
    first, second = read_rllib(write(tmp_path / "hopper.parquet", states), TASKS)
    assert (first.num_steps, first.truncated, "begins" in first.info) == (6, True, False)
    assert second.observations["state"][:, 0].tolist() == [6.0]
    assert second.rewards.tolist() == [6.0]
    assert (second.terminated, second.info["begins"]) == (True, "at step 6 of its episode")


def test_actions_are_scaled_to_bounds_that_are_not_one(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", [hopper_episode(2, width=4, size=1).get_state()])
    (episode,) = read_rllib(path, TASKS, PENDULUM)
    check_episode(episode, PENDULUM)
    assert episode.actions.tolist() == [[1.5]] * 2
    path = write(
        tmp_path / "p.parquet", [hopper_episode(2, width=4, size=1, scale=9.0).get_state()]
    )
    assert "are of another scale" in refused(read_rllib(path, TASKS, PENDULUM))
    known = ImportOptions(allowed=frozenset({"clipped-actions"}))
    assert next(read_rllib(path, TASKS, PENDULUM, options=known)).actions.tolist() == [[3.0]] * 2


@pytest.mark.parametrize("form", ["steps", "arrays"])
def test_nested_observations_and_discrete_actions(tmp_path: Path, form: str) -> None:
    house = replace(
        HOPPER,
        name="house",
        env_id="House-v0",
        aliases=(),
        observations={
            "in/pose": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,)),
            "room": ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=4),
        },
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=3),
    )
    episode = SingleAgentEpisode(
        observations=[
            {"in": {"pose": np.full(2, step, np.float32)}, "room": step} for step in range(4)
        ],
        actions=[0, 2, 1],
        rewards=[0.0, 0.5, 1.0],
        infos=[{}] * 4,
        truncated=True,
        len_lookback_buffer=0,
    )
    if form == "arrays":
        episode.to_numpy()
    (read,) = read_rllib(
        write(tmp_path / "x.parquet", [episode.get_state()]), {"house": house}, house
    )
    check_episode(read, house)
    assert read.observations["in/pose"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert read.observations["room"].tolist() == [0, 1, 2]
    assert read.actions.tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="shows no state"):
        read_rllib(tmp_path / "x.parquet", TASKS, replace(house, observations=HOPPER.observations))


def refused(reading: Reading) -> str:
    """Why the only episode was not taken."""
    assert list(reading) == []
    ((reason, count),) = reading.report.rejected.items()
    assert count == 1
    return reason


class Bomb:
    """What runs when a pickle of it is opened."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("column", ["observations", "actions", "rewards"])
def test_arrays_of_objects_are_refused_and_never_opened(tmp_path: Path, column: str) -> None:
    state = hopper_episode(2).get_state()
    bombs = np.array([Bomb(), Bomb(), Bomb()], object)
    path = write(tmp_path / "hopper.parquet", [state | {column: state[column] | {"data": bombs}}])
    reason = refused(read_rllib(path, TASKS))
    assert "Python objects; such may run code and is never opened" in reason
    assert "\n" not in reason
    path = write(tmp_path / "hopper.parquet", [state | {"infos": state["infos"] | {"data": bombs}}])
    assert len(list(read_rllib(path, TASKS))) == 1  # what is not needed is not opened either


def test_other_rows_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "hopper.parquet"
    pq.write_table(pa.table({"item": [b"\xc1 nothing"]}), path)
    assert "damaged, or not a packed episode" in refused(read_source(str(path), TASKS))
    assert "expected a single agent's episode" in refused(
        read_source(str(write(path, [{"agent_episodes": {}}])), TASKS)
    )
    state = hopper_episode(2).get_state()
    short = write(path, [state | {"actions": {"data": [np.zeros(3)], "lookback": 0}}])
    assert "3 observations and 1 actions" in refused(read_source(str(short), TASKS))
    with pytest.raises(ValueError, match=r"state .*shape \(17,\) in each step, expected \(11,\)"):
        read_source(str(write(path, [hopper_episode(2, width=17).get_state()])), TASKS)
    pq.write_table(
        pa.table({"eps_id": ["a"], "obs": [[0.0]], "actions": [[0.0]], "rewards": [0.0]}), path
    )
    with pytest.raises(
        ValueError, match="expected 'item'; write episodes with output_write_episodes=True"
    ):
        read_rllib(path, TASKS)
    with pytest.raises(ValueError, match="pass --task"):
        read_source(
            str(write(tmp_path / "mine.parquet", [state])), {"mujoco/ant": TASKS["mujoco/ant"]}
        )
