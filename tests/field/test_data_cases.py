"""Data that people report of other systems, as files: each is accepted, converted or
rejected, and what was done is said."""

import fcntl
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from actors.envs.gymnasium_env import keyword_defaults
from actors.tasks.catalog import TASKS
from cluster.runs.data import dataset_import as importing
from cluster.runs.data.datasets import DataSet, find
from gato.episode import Episode, check_episode
from replay.formats.detect import read_source
from replay.formats.reader import ImportOptions, Reading
from replay.sampling.return_filter import least_return
from replay.storage.changes import changes_of

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "field_cases"


def read(source: Path, *allowed: str, task: str | None = None) -> tuple[list[Episode], Reading]:
    """The episodes that are taken, each checked once more, and what is said of the others."""
    options = ImportOptions(allowed=frozenset(allowed), defaults=keyword_defaults)
    reading = read_source(str(source), TASKS, TASKS[task] if task else None, options=options)
    episodes = list(reading)
    for episode in episodes:
        check_episode(episode, TASKS[episode.task])
    return episodes, reading


def imported(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DataSet, str]:
    """The data set that `gato import` makes, and what it prints."""
    monkeypatch.setenv("GATO_RUNS", str(tmp_path / "runs"))
    console = Console(record=True, width=250)
    options = ImportOptions(defaults=keyword_defaults)
    made = importing.make(
        "mine",
        lambda known: read_source(str(source), TASKS, known=known, options=options),
        TASKS,
        console,
        origin=str(source),
    )
    return made, console.export_text()


def cheetah_file(
    path: Path, *, steps: int = 3000, timeouts: tuple[int, ...], extra: Mapping[str, object]
) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = (
            rng.normal(size=(steps, 17)),
            rng.uniform(-1, 1, (steps, 6)),
        )
        file["rewards"], file["terminals"] = np.full(steps, 2.5), np.zeros(steps, np.bool_)
        file["timeouts"] = np.isin(np.arange(steps), timeouts)
        for name, values in extra.items():
            file[name] = values
    return path


@pytest.mark.report(
    "Farama-Foundation/D4RL#162", "Zhendong-Wang/Diffusion-Policies-for-Offline-RL#6"
)
def test_a_missing_mark_makes_no_episode_longer_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cheetah_file(tmp_path / "halfcheetah_replay-v2.hdf5", timeouts=(999, 2999), extra={})
    made, said = imported(file, tmp_path, monkeypatch)
    returns = np.array(made.tasks["mujoco/halfcheetah"]["returns"])
    assert returns.tolist() == [2500.0] * 3
    assert (returns >= least_return(returns, 0.8)).all()
    assert "2 at the task's limit: the file does not mark their ends" in said
    assert "HalfCheetah-v2 ran on mujoco-py; it becomes HalfCheetah-v5" in said


@pytest.mark.report("Farama-Foundation/D4RL#162")
def test_a_missing_mark_below_the_limit_is_found_by_the_seeds(tmp_path: Path) -> None:
    seeds = np.repeat([7, 8], [400, 2600])
    file = cheetah_file(
        tmp_path / "halfcheetah-v2.hdf5", timeouts=(1399, 2399), extra={"infos/seed": seeds}
    )
    episodes, reading = read(file)
    assert [episode.num_steps for episode in episodes] == [400, 1000, 1000, 600]
    assert any("1 ends of episodes that no mark says" in note for note in reading.report.notes)


@pytest.mark.report("tinkoff-ai/CORL#43", "kzl/decision-transformer#55")
def test_the_steps_after_the_last_mark_are_an_episode_that_was_truncated(tmp_path: Path) -> None:
    episodes, _ = read(
        cheetah_file(tmp_path / "halfcheetah-v2.hdf5", steps=1500, timeouts=(999,), extra={})
    )
    assert [(e.num_steps, e.terminated, e.truncated) for e in episodes] == [
        (1000, False, True),
        (500, False, True),
    ]


def test_shuffled_rows_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    after = rng.normal(size=(3000, 17))
    file = cheetah_file(
        tmp_path / "halfcheetah-v2.hdf5", timeouts=(999,), extra={"next_observations": after}
    )
    with pytest.raises(ValueError, match="is not in order"):
        read(file)
    assert len(read(file, "row-order")[0]) == 3


@pytest.mark.report("kzl/decision-transformer#42", "Farama-Foundation/Gymnasium#1041")
def test_another_version_of_the_robot_is_refused_or_is_its_own_task(tmp_path: Path) -> None:
    extra = {"metadata/env_id": b"HalfCheetah-v4"}
    file = cheetah_file(tmp_path / "halfcheetah.hdf5", timeouts=(999, 1999, 2999), extra=extra)
    assert {episode.task for episode in read(file)[0]} == {"mujoco-v4/halfcheetah"}
    with pytest.raises(
        ValueError, match="made in HalfCheetah-v4, task mujoco/halfcheetah is HalfCheetah-v5"
    ):
        read(file, task="mujoco/halfcheetah")
    episodes, _ = read(file, "version", task="mujoco/halfcheetah")
    assert "versions differ" in episodes[0].info["allowed"]


@pytest.mark.report("Farama-Foundation/Gymnasium#569", "polixir/NeoRL#8")
def test_actions_are_scaled_from_the_bounds_that_a_data_set_declares() -> None:
    folder = DATA / "04-minari-rescaled-actions" / "rescaled-v0"
    episodes, reading = read(folder)
    with h5py.File(folder / "data" / "main_data.hdf5") as file:
        np.testing.assert_allclose(
            episodes[0].actions, file["episode_0/actions"][()] / 10.0, rtol=1e-6
        )
    assert any("scaled from [-10, 10]" in note for note in reading.report.notes)
    assert all(changes_of(episode.info).is_scaled for episode in episodes)


@pytest.mark.report("vwxyzjn/cleanrl#556")
def test_normalised_observations_are_refused_by_the_name_of_the_wrapper() -> None:
    folder = DATA / "05-minari-normalised-observations" / "normobs-v0"
    with pytest.raises(
        ValueError, match="behind the wrapper NormalizeObservation, which changes observations"
    ):
        read(folder)
    episodes, _ = read(folder, "wrapper:NormalizeObservation")
    assert "NormalizeObservation" in episodes[0].info["allowed"]


@pytest.mark.report("Farama-Foundation/Minari#304")
def test_keywords_that_change_the_environment_are_refused_by_name() -> None:
    folder = DATA / "06-minari-env-kwargs" / "kw-v0"
    with pytest.raises(
        ValueError, match=r"frame_skip=1, task mujoco/hopper has 4; .*healthy_reward=100"
    ):
        read(folder)
    with pytest.raises(ValueError, match=r"healthy_reward") as error:
        read(folder, "keyword:frame_skip")
    assert "frame_skip" not in str(error.value)


@pytest.mark.report("Farama-Foundation/Minari#302")
def test_the_monitor_of_another_library_changes_nothing_and_an_unknown_wrapper_is_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(DATA / "05-minari-normalised-observations" / "normobs-v0", folder)
    file = folder / "data" / "metadata.json"
    about = json.loads(file.read_text())

    def wrap(name: str, entry_point: str) -> None:
        spec = json.loads(about["env_spec"])
        spec["additional_wrappers"] = [{"name": name, "entry_point": entry_point, "kwargs": None}]
        file.write_text(json.dumps(about | {"env_spec": json.dumps(spec)}))

    wrap("Monitor", "stable_baselines3.common.monitor:Monitor")
    assert len(read(folder)[0]) == 2
    # of the same name, whose effect is unknown
    wrap("Monitor", "my_project.wrappers:Monitor")
    with pytest.raises(
        ValueError, match=r"the wrapper Monitor, which is unknown here.*--allow wrapper:Monitor"
    ):
        read(folder)


@pytest.mark.report("huggingface/lerobot#3522", "huggingface/lerobot#4143", "ray-project/ray#46721")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty_episode", "has nothing in continuous_actions"),
        ("rewards_one_short", "has 5 actions but {'rewards': 4}"),
        ("rewards_short_in_2nd_of_3", "has 5 actions but {'rewards': 3}"),
        ("zero-length_episode_in_the_midst", "has no steps"),
        ("null_rewards_in_2nd", "has nothing in rewards"),
        ("one_of_three_with_N_obs_(antmaze-umaze-v0)", "6 observations and 6 actions"),
    ],
)
def test_one_bad_episode_is_refused_and_the_rest_is_read(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, said = imported(DATA / "14-one-bad-episode-ends-the-import" / name, tmp_path, monkeypatch)
    ((found, count),) = made.refused.items()
    assert (count, reason in found) == (1, True)
    (values,) = made.tasks.values()
    assert values["episodes"] == 2
    assert "refused" in said
    assert any("1 episodes of its source were refused" in line for line in find("mine").doubts)


@pytest.mark.report("takuseno/d3rlpy#460")
def test_an_environment_that_is_null_is_one_that_is_not_stated() -> None:
    folder = DATA / "15-tracebacks-of-importers" / "env_spec_the_string_null"
    with pytest.raises(
        ValueError, match=r"cannot tell the task .*environment not stated.*pass --task"
    ) as error:
        read(folder)
    assert len(str(error.value)) < 300  # and not the names of all tasks
    episodes, reading = read(folder, task="mujoco/hopper")
    assert episodes
    assert any("does not say in which environment" in note for note in reading.report.notes)


@pytest.mark.report("ray-project/ray#48818", "ray-project/ray#50390")
def test_a_row_a_step_is_one_line_that_says_what_is_expected() -> None:
    with pytest.raises(ValueError, match="its rows are steps, but a JAT file has an episode a row"):
        read(DATA / "15-tracebacks-of-importers" / "one_row_a_step")


@pytest.mark.report("tensorflow/datasets#3182")
@pytest.mark.parametrize("name", ["hopper_n1-v2.hdf5", "rewards_(N,1)"])
def test_columns_of_one_number_a_row_are_squeezed(name: str) -> None:
    episodes, reading = read(DATA / "16-d4rl-rewards-n-by-1" / name)
    assert all(episode.rewards.ndim == 1 for episode in episodes)
    assert len(episodes) == reading.total


@pytest.mark.report("Farama-Foundation/Minari#106")
def test_episodes_behind_the_count_of_the_metadata_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DATA / "21-minari-total-episodes-too-small" / "total_episodes_says_fewer"
    made, said = imported(folder, tmp_path, monkeypatch)
    assert "counts 1 episodes, the files hold 3" in said
    assert any("the files hold 3" in line for line in made.doubts)


@pytest.mark.report("Farama-Foundation/Minari#286")
@pytest.mark.parametrize(
    ("limit", "says"), [(5000, "longer episodes are cut there"), (7, "its episodes end earlier")]
)
def test_another_limit_of_steps_is_said(tmp_path: Path, limit: int, says: str) -> None:
    folder = tmp_path / "set"
    shutil.copytree(DATA / "04-minari-rescaled-actions" / "rescaled-v0", folder)
    file = folder / "data" / "metadata.json"
    about = json.loads(file.read_text())
    spec = json.loads(about["env_spec"]) | {"max_episode_steps": limit}
    file.write_text(json.dumps(about | {"env_spec": json.dumps(spec)}))
    _, reading = read(folder)
    assert any(
        f"its limit was {limit:,} steps" in note and says in note for note in reading.report.notes
    )


@pytest.mark.report("liuzuxin/DSRL#5", "Farama-Foundation/Minari#127")
def test_actions_outside_of_the_bounds_are_clipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cheetah_file(tmp_path / "halfcheetah-v2.hdf5", timeouts=(999, 1999, 2999), extra={})
    with h5py.File(file, "a") as opened:
        opened["actions"][:600, 0] = 1.5
    _, said = imported(file, tmp_path, monkeypatch)
    assert "1: 10.00% of their action values, by up to 0.5" in said


@pytest.mark.report("huggingface/lerobot#4404")
def test_actions_of_another_scale_are_refused(tmp_path: Path) -> None:
    file = cheetah_file(tmp_path / "halfcheetah-v2.hdf5", timeouts=(999, 1999, 2999), extra={})
    with h5py.File(file, "a") as opened:
        opened["actions"][:] = opened["actions"][:] * 20.0
    episodes, reading = read(file)
    assert not episodes
    assert all("of another scale" in reason for reason in reading.report.rejected)
    assert len(read(file, "clipped-actions")[0]) == 3


@pytest.mark.report("google-deepmind/mujoco_playground#240", "openai/gym#1184")
@pytest.mark.parametrize("reward", [np.nan, np.inf, 1e38, -1e12, 1e7])
def test_a_reward_that_cannot_be_is_refused_with_its_episode(tmp_path: Path, reward: float) -> None:
    file = cheetah_file(tmp_path / "halfcheetah-v2.hdf5", timeouts=(999, 1999, 2999), extra={})
    with h5py.File(file, "a") as opened:
        opened["rewards"][1500] = reward
    episodes, reading = read(file)
    assert len(episodes) == 2
    (reason,) = reading.report.rejected
    assert "not finite" in reason or "cannot be believed" in reason


@pytest.mark.report("h5py/h5py#1101", "pdebench/PDEBench#17", "theislab/ehrdata#275")
def test_a_locked_file_is_not_called_damaged(tmp_path: Path) -> None:
    path = cheetah_file(tmp_path / "halfcheetah-v2.hdf5", timeouts=(999,), extra={})
    with path.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as HDF5 does for who writes
        with pytest.raises(ValueError, match="is locked: another program writes to it"):
            read(path)


@pytest.mark.report("danijar/dreamerv2#19")
def test_what_the_filter_leaves_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cheetah_file(tmp_path / "halfcheetah-v2.hdf5", timeouts=(999, 1999, 2999), extra={})
    with h5py.File(file, "a") as opened:
        opened["rewards"][:2000] = 1.0
    _, said = imported(file, tmp_path, monkeypatch)
    assert (
        "2 of 3 episodes (2,000 steps) are not read: below 80% of the best demonstrations' return"
        in said
    )


@pytest.mark.parametrize("case", ["01-d4rl-missing-timeout-mark/halfcheetah_replay-v2.hdf5"])
def test_the_reported_file_itself_keeps_all_of_its_episodes(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (SHARED / case).is_file():
        pytest.skip(f"no demonstration data at {SHARED}")
    made, _ = imported(SHARED / case, tmp_path, monkeypatch)
    returns = np.array(made.tasks["mujoco/halfcheetah"]["returns"])
    assert len(returns) == 20
    assert (returns >= least_return(returns, 0.8)).all()
