"""What is exported, Minari opens, and it imports as the same episodes."""

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import minari
import numpy as np
import pytest

from actors.envs.provenance import env_spec_of
from actors.tasks.catalog import TASKS
from gato.array_spec import ArraySpec, Kind
from gato.episode import BadEpisode, Episode
from gato.task import Task
from gato.text import text_to_bytes
from replay.formats.detect import read_source
from replay.formats.minari.export import export_minari
from replay.formats.minari.importer import read_minari

HOPPER, PONG, PONG84 = TASKS["mujoco/hopper"], TASKS["atari/pong"], TASKS["atari84/pong"]
HOUSE = replace(
    HOPPER,
    name="house/walk",
    env_id="House-v0",
    family="gymnasium",
    aliases=(),
    observations={
        "in/order": ArraySpec(kind=Kind.TEXT, shape=(18,), max_tokens=4),
        "in/eye": ArraySpec(kind=Kind.IMAGE, shape=(40, 36, 3)),
        "seen": ArraySpec(kind=Kind.CONTINUOUS, shape=(2,), low=(0.0, -np.inf), high=(3.0, np.inf)),
        "room": ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(4, 3)),
    },
    action=ArraySpec(kind=Kind.DISCRETE, shape=(), num_values=4),
)


def some(spec: ArraySpec, steps: int, rng: np.random.Generator) -> np.ndarray:
    if spec.kind is Kind.TEXT:
        return text_to_bytes(
            [["", "ab ä", "日本"][step % 3] for step in range(steps)], spec.shape[0]
        )
    if spec.kind is Kind.DISCRETE:
        return rng.integers(0, spec.counts.reshape(spec.shape), (steps, *spec.shape), np.int64)
    if spec.kind is Kind.IMAGE:
        return rng.integers(0, 256, (steps, *spec.shape), np.uint8)
    return rng.uniform(0, 1, (steps, *spec.shape)).astype(np.float32)


def episodes_of(task: Task, lengths: tuple[int, ...] = (3, 1, 5)) -> Iterator[Episode]:
    for index, steps in enumerate(lengths):
        rng = np.random.default_rng([len(task.name), index])
        yield Episode(
            key=f"w0.{index}",
            task=task.name,
            source="agent",
            seed=90 + index,
            info={"engine": "x"},
            observations={name: some(spec, steps, rng) for name, spec in task.observations.items()},
            actions=some(task.action, steps, rng),
            rewards=rng.normal(size=steps).astype(np.float32),
            labels=some(task.action, steps, rng) if index == 1 else None,
            terminated=index != 2,
            truncated=index == 2,
        )


@pytest.mark.parametrize("task", [HOPPER, PONG, PONG84, HOUSE], ids=lambda task: task.name)
def test_what_is_exported_comes_back_equal(tmp_path: Path, task: Task) -> None:
    written = export_minari(episodes_of(task), task, tmp_path / "out" / "mine")
    assert (written.num_episodes, written.num_steps) == (3, 9)
    assert written.dataset_id == f"{task.name}/mine-v0"
    read = list(read_minari(written.folder, {**TASKS, task.name: task}))
    for before, after in zip(episodes_of(task), read, strict=True):
        assert (after.task, after.seed, after.terminated, after.truncated) == (
            before.task,
            before.seed,
            before.terminated,
            before.truncated,
        )
        for name, values in before.observations.items():
            np.testing.assert_array_equal(after.observations[name], values)
        np.testing.assert_array_equal(after.actions, before.actions)
        np.testing.assert_array_equal(after.rewards, before.rewards)
        np.testing.assert_array_equal(after.labels, before.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", [HOPPER, PONG, HOUSE], ids=lambda task: task.name)
def test_minari_itself_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    written = export_minari(
        episodes_of(task), task, "minari:gato/mine-v3", description="Played by a test."
    )
    assert written.folder == tmp_path / "gato" / "mine-v3"
    opened = minari.load_dataset("gato/mine-v3")
    assert (opened.total_episodes, opened.total_steps) == (3, 9)
    assert opened.env_spec is not None
    assert opened.env_spec.id == task.env_id
    for before, after in zip(episodes_of(task), opened.iterate_episodes(), strict=True):
        if task is not HOUSE:
            (values,) = before.observations.values()
            np.testing.assert_array_equal(after.observations[:-1], values)
            np.testing.assert_array_equal(after.observations[-1], values[-1])
        np.testing.assert_array_equal(after.actions, before.actions)
        assert after.terminations[-1] == before.terminated
        assert opened.observation_space.contains(_last(after.observations))
    metadata = json.loads((written.folder / "data" / "metadata.json").read_text())
    assert metadata["description"].startswith(
        "Played by a test. An episode of T steps has T+1 observations"
    )
    assert [about["seed"] for about in opened.storage.get_episode_metadata(range(3))] == [
        90,
        91,
        92,
    ]
    assert len(list(read_source("minari:gato/mine-v3", {**TASKS, task.name: task}))) == 3


def _last(observations: object) -> object:
    """The last step of nested observations, as an environment would show it."""
    if isinstance(observations, dict):
        return {name: _last(part) for name, part in observations.items()}
    return observations[-1]  # type: ignore[index]


@pytest.mark.parametrize("name", ["mujoco/hopper", "atari/pong"])
def test_minari_makes_the_environment_again(tmp_path: Path, name: str) -> None:
    task = TASKS[name]
    written = export_minari(
        episodes_of(task), task, tmp_path / "mine-v0", env_spec=env_spec_of(task)
    )
    env = minari.MinariDataset(written.folder / "data").recover_environment()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    assert len(list(read_minari(written.folder, TASKS))) == 3


def test_nothing_is_left_of_an_export_that_fails(tmp_path: Path) -> None:
    def broken() -> Iterator[Episode]:
        yield from episodes_of(HOPPER)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        export_minari(broken(), HOPPER, tmp_path / "mine")
    with pytest.raises(ValueError, match="no episodes of mujoco/hopper"):
        export_minari([], HOPPER, tmp_path / "mine")
    with pytest.raises(BadEpisode, match="of task 'atari/pong', not 'mujoco/hopper'"):
        export_minari(episodes_of(PONG), HOPPER, tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_users_mistakes_are_value_errors(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="is there already; remove it"):
        export_minari(episodes_of(HOPPER), HOPPER, tmp_path / "there")
    for wrong in ("mine", "../mine-v0", "a//b-v0", "/mine-v0"):
        with pytest.raises(ValueError, match="no id of a Minari data set"):
            export_minari(episodes_of(HOPPER), HOPPER, wrong)
    with pytest.raises(ValueError, match="no id of a Minari data set"):
        export_minari(episodes_of(HOPPER), HOPPER, tmp_path / "mine", dataset_id="no version")
    with pytest.raises(ValueError, match="leave out dataset_id"):
        export_minari(episodes_of(HOPPER), HOPPER, "gato/a-v0", dataset_id="gato/b-v0")


@pytest.mark.parametrize(
    ("name", "folder", "dataset_id"),
    [
        ("myenvs:Lift-v0", "mine-v0", "myenvs/Lift-v0/mine-v0"),
        ("my_pkg.envs:robots/Lift-v0", "mine", "my_pkg-envs/robots/Lift-v0/mine-v0"),
        ("atari/pong?sticky=0.25", "my set-v2", "atari/pong-sticky-0-25/my-set-v2"),
        ("house/walk", "x", "house/walk/x-v0"),
    ],
)
def test_an_id_is_made_of_any_names_of_task_and_folder(
    tmp_path: Path, name: str, folder: str, dataset_id: str
) -> None:
    task = replace(HOUSE, name=name)
    written = export_minari(episodes_of(task), task, tmp_path / folder)
    assert (written.folder, written.dataset_id) == (tmp_path / folder, dataset_id)
    assert len(list(read_minari(written.folder, {name: task}))) == 3
    minari.MinariDataset(written.folder / "data")  # Minari takes the id
    with pytest.raises(ValueError, match=rf"such as {dataset_id.rpartition('/')[0]}/mine-v0"):
        export_minari(episodes_of(task), task, tmp_path / "other", dataset_id="no version")


def test_memory_holds_one_episode(tmp_path: Path) -> None:
    steps, count = 100, 30  # 1.5 MB an episode
    tracemalloc.start()
    export_minari(episodes_of(PONG, (steps,) * count), PONG, tmp_path / "mine")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20 < steps * count * 64 * 80 * 3 / 4


def test_a_real_data_set_goes_out_and_comes_back(tmp_path: Path, shared_data: Path) -> None:
    source = str(shared_data / "d4rl" / "hopper_medium-v5.hdf5")
    if not Path(source).is_file():
        source = str(sorted((shared_data / "d4rl").glob("hopper*"))[0])
    written = export_minari(read_source(source, TASKS), HOPPER, tmp_path / "hopper-again-v0")
    for before, after in zip(
        read_source(source, TASKS), read_minari(written.folder, TASKS), strict=True
    ):
        np.testing.assert_array_equal(after.observations["state"], before.observations["state"])
        np.testing.assert_array_equal(after.actions, before.actions)
        assert (after.seed, after.terminated, after.episode_return) == (
            before.seed,
            before.terminated,
            before.episode_return,
        )
