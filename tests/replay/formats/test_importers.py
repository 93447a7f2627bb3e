"""D4RL files and Minari data sets become episodes, or one line says why not."""

import json
import tracemalloc
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode, check_episode
from gato.text import bytes_to_text
from replay.formats.d4rl import read_d4rl
from replay.formats.detect import read_source
from replay.formats.minari.importer import read_minari
from replay.formats.schema import content_digest
from replay.storage.changes import Clipped, changes_of

HOPPER = TASKS["mujoco/hopper"]
PONG = TASKS["atari/pong"]


def hopper_columns(
    num_rows: int, *, terminals: tuple[int, ...] = (), timeouts: tuple[int, ...] = ()
) -> dict:
    """Rows whose observation and reward are their own number."""
    row = np.arange(num_rows)
    return {
        "observations": np.repeat(row[:, None], 11, axis=1).astype(np.float64),
        "actions": np.full((num_rows, 3), 0.5),
        "rewards": row.astype(np.float64),
        "terminals": np.isin(row, terminals),
        "timeouts": np.isin(row, timeouts),
    }


def write_d4rl(path: Path, columns: Mapping[str, object]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hopper-medium-v2.hdf5"


def box(*shape: int, dtype: str = "float32", bound: float = np.inf) -> str:
    bounds = {"low": np.full(shape, -bound).tolist(), "high": np.full(shape, bound).tolist()}
    return json.dumps({"type": "Box", "dtype": dtype, "shape": shape, **bounds})


def write_minari(
    folder: Path,
    *,
    env_id: str,
    dataset_id: str,
    observations: np.ndarray,
    actions: np.ndarray,
    action_space: str,
) -> Path:
    """A data set with an episode of 2 steps, which terminates, and one of 3, which just ends."""
    lengths = (2, 3)
    (folder / "data").mkdir(parents=True)
    metadata = {
        "total_episodes": len(lengths),
        "total_steps": sum(lengths),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": box(*observations.shape[1:], dtype=str(observations.dtype)),
        "action_space": action_space,
        "env_spec": json.dumps({"id": env_id}),
        "dataset_id": dataset_id,
        "minari_version": "0.5.4",
    }
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for index, length in enumerate(lengths):
            group = file.create_group(f"episode_{index}")
            group.attrs.update({"id": index, "seed": 7 + index, "total_steps": length})
            group["observations"], group["actions"] = observations[: length + 1], actions[:length]
            group["rewards"] = np.ones(length)
            group["terminations"] = np.arange(length) == (length - 1 if index == 0 else -1)
            group["truncations"] = np.zeros(length, np.bool_)
    return folder


def fake_hopper(folder: Path, *, env_id: str = "Hopper-v5") -> Path:
    return write_minari(
        folder,
        env_id=env_id,
        dataset_id="mujoco/hopper/expert-v0",
        action_space=box(3, bound=1.0),
        observations=np.arange(44.0).reshape(4, 11),
        actions=np.full((3, 3), 0.5),
    )


def fake_pong(folder: Path, *, height: int, width: int, num_actions: int = 18) -> Path:
    return write_minari(
        folder,
        env_id="ALE/Pong-v5",
        dataset_id="atari/pong/expert-v0",
        action_space=json.dumps(
            {"type": "Discrete", "dtype": "int64", "start": 0, "n": num_actions}
        ),
        observations=np.full((4, height, width, 3), 9, np.uint8),
        actions=np.array([0, 3, 17]),
    )


def fake_house(folder: Path, *, start: int = 0) -> Path:
    """Nested observations: a text and an array."""
    discrete = json.dumps({"type": "Discrete", "dtype": "int64", "start": start, "n": 4})
    write_minari(
        folder,
        env_id="House-v0",
        dataset_id="house/walk-v0",
        action_space=discrete,
        observations=np.arange(8.0).reshape(4, 2),
        actions=np.array([0, 3, 1]),
    )
    about = folder / "data" / "metadata.json"
    metadata = json.loads(about.read_text())
    inner = {
        "type": "Dict",
        "subspaces": {
            "order": {"type": "Text", "max_length": 9, "min_length": 0, "charset": "abcäé "}
        },
    }
    seen = {
        "type": "Box",
        "dtype": "float64",
        "shape": [2],
        "low": [0.0, -np.inf],
        "high": [3.0, np.inf],
    }
    parts = {"in": inner, "seen": seen}
    about.write_text(
        json.dumps(
            metadata | {"observation_space": json.dumps({"type": "Dict", "subspaces": parts})}
        )
    )
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for group in file.values():
            seen = group["observations"][()]
            del group["observations"]
            group["observations/seen"] = seen
            group["observations/in/order"] = ["", "ab ä", "c", "a"][: len(seen)]
    return folder


def checked(episodes: Iterable[Episode]) -> list[Episode]:
    kept = list(episodes)
    for episode in kept:
        check_episode(episode, TASKS[episode.task])
    return kept


def test_a_d4rl_file_is_cut_at_terminals_and_timeouts_and_its_rest_is_truncated(path: Path) -> None:
    columns = hopper_columns(10, terminals=(2,), timeouts=(6,)) | {
        "infos/seed": np.repeat([5, 6, 7], [3, 4, 3])
    }
    episodes = checked(read_d4rl(write_d4rl(path, columns), TASKS))
    assert [e.rewards.tolist() for e in episodes] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9]]
    assert [e.observations["state"][:, 3].tolist() for e in episodes] == [
        e.rewards.tolist() for e in episodes
    ]
    assert [(e.terminated, e.truncated) for e in episodes] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert [e.seed for e in episodes] == [5, 6, 7]
    assert {(e.task, e.source, e.info["file"]) for e in episodes} == {
        ("mujoco/hopper", f"file:{path.stem}", path.name)
    }


def test_without_timeouts_an_episode_ends_after_1000_steps_or_at_a_terminal(path: Path) -> None:
    columns = hopper_columns(3500, terminals=(999, 1499))
    del columns["timeouts"]
    episodes = list(read_d4rl(write_d4rl(path, columns), TASKS))
    assert [e.num_steps for e in episodes] == [1000, 500, 1000, 1000]
    assert [e.terminated for e in episodes] == [True, True, False, False]
    assert [e.seed for e in episodes] == [0] * 4


def test_a_v0_file_without_timeouts_is_cut_where_its_next_observations_go_elsewhere(
    path: Path,
) -> None:
    columns = hopper_columns(700, terminals=(299,))
    del columns["timeouts"]
    columns["observations"][500:] += 1000.0  # as where a medium file ends and an expert one begins
    after = np.concatenate([columns["observations"][1:], columns["observations"][-1:]])
    after[[299, 499, 699]] += 7.0
    columns |= {
        "next_observations": after,
        "infos/qpos": np.zeros((700, 6)),
        "infos/action_log_probs": np.zeros(700),
    }
    episodes = checked(read_d4rl(write_d4rl(path, columns), TASKS))
    assert [(e.num_steps, e.terminated) for e in episodes] == [
        (300, True),
        (200, False),
        (200, False),
    ]
    columns["timeouts"] = np.zeros(700, np.bool_)  # which lack the mark at 499
    reading = read_d4rl(write_d4rl(path, columns), TASKS)
    assert [e.num_steps for e in reading] == [300, 200, 200]
    assert any("1 ends of episodes that no mark says" in note for note in reading.report.notes)


def test_what_is_known_is_not_read_again(path: Path) -> None:
    write_d4rl(path, hopper_columns(10, terminals=(2,), timeouts=(6,)))
    keys = [e.key for e in read_d4rl(path, TASKS)]
    reading = read_d4rl(path, TASKS, known={keys[0], keys[2]}.__contains__)
    assert reading.total == 3
    assert [e.key for e in reading] == [keys[1]]
    assert (reading.num_passed, reading.num_known) == (3, 2)
    assert [key.rpartition(":")[2] for key in keys] == ["0", "1", "2"]
    assert len({key.rpartition(":")[0] for key in keys}) == 1


def test_a_large_d4rl_file_is_read_an_episode_at_a_time(path: Path) -> None:
    rows = 200_000  # 56 MB
    with h5py.File(path, "w") as file:
        for name, shape in {
            "observations": (11,),
            "actions": (3,),
            "next_observations": (11,),
        }.items():
            file.create_dataset(name, data=np.zeros((rows, *shape)))
        file["rewards"], file["terminals"] = np.zeros(rows), np.zeros(rows, np.bool_)
        file["timeouts"] = np.arange(1, rows + 1) % 1000 == 0
    tracemalloc.start()
    assert sum(1 for _ in read_d4rl(path, TASKS)) == 200
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20 < path.stat().st_size / 4


def test_a_large_file_is_digested_in_part_and_still_by_its_content(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(bytes(10_000))
    whole = content_digest(path)
    monkeypatch.setattr("replay.formats.schema.DIGESTED_BYTES", 4096)
    monkeypatch.setattr("replay.formats.schema.LEAST_PIECE_BYTES", 1)
    digests = {whole, content_digest(path), content_digest(path, path)}
    for change in (
        bytes(9_999),
        b"x" + bytes(9_999),
        bytes(9_999) + b"x",
        bytes(5_000) + bytes([1] * 200) + bytes(4_800),
    ):
        path.write_bytes(change)
        digests.add(content_digest(path))
    assert len(digests) == 7


def test_keys_stay_when_a_file_is_read_again_and_change_with_its_content(path: Path) -> None:
    def keys() -> list[str]:
        return [e.key for e in read_d4rl(path, TASKS)]

    write_d4rl(path, hopper_columns(10, timeouts=(4,)))
    first = keys()
    assert keys() == first
    assert len(set(first)) == 2
    assert first[0].startswith(f"d4rl:{path.stem}:")
    assert first[0].endswith(":0")
    write_d4rl(path, hopper_columns(10, timeouts=(4,)) | {"actions": np.zeros((10, 3))})
    assert not set(first) & set(keys())


def test_a_long_name_still_makes_a_key(tmp_path: Path) -> None:
    path = write_d4rl(tmp_path / f"hopper-{'é' * 100}.hdf5", hopper_columns(3))
    assert len(checked(list(read_d4rl(path, TASKS)))) == 1


def test_actions_are_clipped_to_the_bounds_of_the_task(path: Path) -> None:
    columns = hopper_columns(2) | {"actions": np.array([[-3.0, 0.25, 0.5]] * 2)}
    (episode,) = checked(read_d4rl(write_d4rl(path, columns), TASKS))
    assert episode.actions.tolist() == [[-1.0, 0.25, 0.5]] * 2
    assert changes_of(episode.info).clipped == Clipped(values=6, outside=2, furthest=2.0)


def test_an_episode_that_is_not_finite_is_refused_and_the_others_are_read(path: Path) -> None:
    columns = hopper_columns(9, timeouts=(2, 5, 8))
    columns["observations"][4, 0] = np.nan
    reading = read_d4rl(write_d4rl(path, columns), TASKS)
    assert [e.rewards.tolist() for e in checked(reading)] == [[0, 1, 2], [6, 7, 8]]
    assert dict(reading.report.rejected) == {"state is not finite": 1}


@pytest.mark.parametrize("missing", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_column_is_named(path: Path, missing: str) -> None:
    columns = hopper_columns(4)
    del columns[missing]
    with pytest.raises(
        ValueError, match=f"has no {missing}; a D4RL file holds observations, actions, rewards"
    ) as error:
        read_d4rl(write_d4rl(path, columns), TASKS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"observations": np.zeros((10, 17))},
            r"observations of shape \(17,\) .*mujoco/hopper.* \(11,\)",
        ),
        ({"actions": np.zeros((10, 6))}, r"actions of shape \(6,\) .*mujoco/hopper.* \(3,\)"),
        ({"rewards": np.zeros(9)}, "different lengths"),
        ({"rewards": np.zeros((10, 2))}, "one number a step"),
        ({"terminals": np.full(10, 0.5)}, "terminals other than 0 and 1, such as 0.5"),
        (
            {"metadata/env_id": b"Walker2d-v5"},
            r"observations of shape \(11,\) .*mujoco/walker2d.* \(17,\)",
        ),
    ],
)
def test_columns_that_do_not_fit_are_refused_at_once(
    path: Path, columns: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_d4rl(write_d4rl(path, hopper_columns(10) | columns), TASKS)


def test_a_task_of_another_robot_than_the_file_says_is_refused(path: Path) -> None:
    write_d4rl(path, hopper_columns(3) | {"metadata/env_id": b"Hopper-v5"})
    with pytest.raises(ValueError, match="made in Hopper-v5, task mujoco/walker2d"):
        read_d4rl(path, TASKS, TASKS["mujoco/walker2d"])


@pytest.mark.parametrize(
    "name", ["hopper_expert-v5", "hopper-medium-v2", "hopper", "Hopper-v3", "hopper-mine_2"]
)
def test_the_name_of_a_file_tells_its_task(tmp_path: Path, name: str) -> None:
    (episode,) = read_d4rl(write_d4rl(tmp_path / f"{name}.hdf5", hopper_columns(3)), TASKS)
    assert episode.task == "mujoco/hopper"


def test_a_name_that_tells_nothing_needs_a_task(tmp_path: Path) -> None:
    path = write_d4rl(tmp_path / "mine.hdf5", hopper_columns(3))
    with pytest.raises(ValueError, match="pass --task"):
        read_d4rl(path, TASKS)
    assert [e.task for e in read_d4rl(path, TASKS, HOPPER)] == ["mujoco/hopper"]
    with pytest.raises(ValueError, match="use a Minari data set"):
        read_d4rl(path, TASKS, PONG)


def test_what_is_not_hdf5_or_not_there_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        read_d4rl(path, TASKS)
    path.write_text("a web page that says 404")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        read_d4rl(path, TASKS)
    write_d4rl(path, hopper_columns(1000))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged"):
        read_d4rl(path, TASKS)
    with pytest.raises(ValueError, match="empty"):
        read_d4rl(write_d4rl(path, hopper_columns(0)), TASKS)


def test_a_minari_folder_gives_episodes_without_the_last_observation(tmp_path: Path) -> None:
    folder = fake_hopper(tmp_path / "set")
    first, second = checked(read_minari(folder, TASKS))
    assert (first.num_steps, second.num_steps) == (2, 3)
    assert second.observations["state"][:, 0].tolist() == [0, 11, 22]
    assert first.actions.max() == 0.5
    assert [(e.terminated, e.truncated, e.seed) for e in (first, second)] == [
        (True, False, 7),
        (False, True, 8),
    ]
    assert first.source == "file:mujoco/hopper/expert-v0"
    assert [e.key for e in read_minari(folder / "data", TASKS)] == [first.key, second.key]


def test_a_minari_id_is_found_under_the_datasets_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hopper(tmp_path / "mujoco/hopper/expert-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    by_id = [e.key for e in read_minari("mujoco/hopper/expert-v0", TASKS)]
    assert [e.key for e in read_source("minari:mujoco/hopper/expert-v0", TASKS)] == by_id
    monkeypatch.setattr("replay.formats.minari.folder.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"no data set 'mujoco/hopper/none-v0'.*pip install 'minari\[hf\]'"
    ):
        read_source("minari:mujoco/hopper/none-v0", TASKS)


def test_a_minari_set_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="made in Hopper-v3, task mujoco/hopper is Hopper-v5"):
        read_minari(fake_hopper(tmp_path / "three", env_id="Hopper-v3"), TASKS)
    four = fake_hopper(tmp_path / "four", env_id="Hopper-v4")
    assert [episode.task for episode in read_minari(four, TASKS)] == ["mujoco-v4/hopper"] * 2
    with pytest.raises(ValueError, match="made in Hopper-v4, task mujoco/hopper is Hopper-v5"):
        read_minari(four, TASKS, HOPPER)


def test_a_minari_set_of_an_unknown_environment_names_it(tmp_path: Path) -> None:
    tasks = {"atari/pong": PONG}
    with pytest.raises(ValueError, match=r"cannot tell the task .*Hopper-v5.*pass --task"):
        read_minari(fake_hopper(tmp_path / "set"), tasks)


def test_frames_of_the_tasks_size_stay_as_they_are(tmp_path: Path) -> None:
    episodes = checked(read_minari(fake_pong(tmp_path / "set", height=64, width=80), TASKS))
    assert episodes[1].observations["image"].shape == (3, 64, 80, 3)
    assert episodes[1].actions.tolist() == [0, 3, 17]


def test_smaller_frames_and_other_actions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images of size 60x80x3"):
        read_minari(fake_pong(tmp_path / "small", height=60, width=80), TASKS)
    with pytest.raises(ValueError, match="5 values of actions"):
        read_minari(fake_pong(tmp_path / "few", height=64, width=80, num_actions=5), TASKS)


def test_nested_observations_and_text_of_minari_fit_a_task_of_the_same_keys(tmp_path: Path) -> None:
    observations = {
        "in/order": ArraySpec(kind=Kind.TEXT, shape=(18,), max_tokens=4),
        "seen": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(0.0, -np.inf), high=(3.0, np.inf)),
    }
    house = replace(
        HOPPER,
        name="house",
        env_id="House-v0",
        observations=observations,
        action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=4),
    )
    _, episode = read_minari(fake_house(tmp_path / "set"), {"house": house})
    check_episode(episode, house)
    assert [bytes_to_text(row) for row in episode.observations["in/order"]] == ["", "ab ä", "c"]
    # beyond its bounds, as it was shown
    assert episode.observations["seen"].tolist() == [[0, 1], [2, 3], [4, 5]]
    reading = read_minari(fake_house(tmp_path / "shifted", start=-1), {"house": house})
    assert list(reading) == []  # 3 became 4, which is none of 0 to 3
    assert set(reading.report.rejected) == {"action has values outside 0..3: 4"}
    wrong = replace(house, observations=dict.fromkeys(observations, observations["seen"]))
    with pytest.raises(ValueError, match="a Text space as in/order, task house continuous"):
        read_minari(tmp_path / "set", {"house": wrong})


def test_a_folder_that_is_no_data_set_or_is_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no data/metadata\.json"):
        read_minari(tmp_path, TASKS)
    (tmp_path / "metadata.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no main_data\.hdf5"):
        read_minari(tmp_path, TASKS)
    (tmp_path / "main_data.hdf5").write_bytes(b"")
    with pytest.raises(ValueError, match="lacks 'dataset_id'"):
        read_minari(tmp_path, TASKS)
    folder = fake_hopper(tmp_path / "set")
    (folder / "data" / "main_data.hdf5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged"):
        list(read_minari(folder, TASKS))


def test_the_form_of_a_source_picks_its_importer(tmp_path: Path) -> None:
    file = write_d4rl(tmp_path / "hopper.h5", hopper_columns(3))
    assert [e.key[:5] for e in read_source(str(file), TASKS)] == ["d4rl:"]
    assert [e.key[:7] for e in read_source(str(fake_hopper(tmp_path / "set")), TASKS)] == [
        "minari:"
    ] * 2
    for source in ("mujoco/hopper/expert-v0", "hopper.csv", "https://example.org/hopper"):
        with pytest.raises(ValueError, match=r"\*\.hdf5.*folder.*minari:ID"):
            read_source(source, TASKS)


def test_real_d4rl_and_minari_files_of_hopper_agree(shared_data: Path) -> None:
    d4rl = checked(read_source(str(shared_data / "d4rl" / "hopper_expert-v5.hdf5"), TASKS))
    assert len(d4rl) == 100
    assert sum(e.num_steps for e in d4rl) == 90_322
    assert np.mean([e.episode_return for e in d4rl]) == pytest.approx(3307.1, abs=0.5)
    minari = checked(
        read_source(str(shared_data / "minari" / "mujoco" / "hopper" / "expert-v0"), TASKS)
    )
    assert [e.episode_return for e in minari] == pytest.approx([e.episode_return for e in d4rl])
    assert [(e.seed, e.terminated, e.truncated) for e in minari] == [
        (e.seed, e.terminated, e.truncated) for e in d4rl
    ]


def test_real_frames_of_pong_fit_the_task(shared_data: Path) -> None:
    episodes = read_source(str(shared_data / "minari" / "atari" / "pong" / "random-v0"), TASKS)
    shapes = []
    for episode in episodes:
        check_episode(episode, PONG)
        shapes.append(episode.observations["image"].shape)
    assert len(shapes) == 5
    assert sum(shape[0] for shape in shapes) == 5079
    assert {shape[1:] for shape in shapes} == {(64, 80, 3)}


def test_every_real_file_tells_its_task_and_fits_it(shared_data: Path) -> None:
    for file in sorted((shared_data / "d4rl").glob("*.hdf5")):
        episode = next(read_source(str(file), TASKS))
        check_episode(episode, TASKS[episode.task])
        assert episode.task == f"mujoco/{file.stem.split('_')[0]}"
