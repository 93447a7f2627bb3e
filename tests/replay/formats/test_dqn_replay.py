"""The DQN replay data set becomes episodes, streamed, or one line says why not."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from actors.tasks.catalog import TASKS
from gato.episode import check_episode
from replay.formats import dqn_replay
from replay.formats.detect import read_source
from replay.formats.dqn_replay import read_dqn_replay

PONG84 = TASKS["atari84/pong"]
FREEWAY84 = TASKS["atari84/freeway"]


def write_column(folder: Path, name: str, number: int, values: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"$store$_{name}_ckpt.{number}.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        np.save(stream, values)
    return path


def write_checkpoint(
    folder: Path,
    number: int,
    num_steps: int,
    ends: tuple[int, ...],
    *,
    action: int = 1,
    padded: tuple[int, ...] = (),
) -> Path:
    """Frames whose grey is their step's number and one more; `ends` are the last steps of
    episodes."""
    frames = np.zeros((num_steps, 84, 84), np.uint8)
    frames[:] = (np.arange(num_steps) % 250 + 1)[:, None, None]
    actions, rewards = (
        np.full(num_steps, action, np.int32),
        np.arange(num_steps, dtype=np.float32) % 100,
    )
    frames[list(padded)], actions[list(padded)], rewards[list(padded)] = 0, 0, 0
    write_column(folder, "observation", number, frames)
    write_column(folder, "action", number, actions)
    write_column(folder, "reward", number, rewards)
    write_column(folder, "terminal", number, np.isin(np.arange(num_steps), ends).astype(np.uint8))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dqn" / "Pong" / "1" / "replay_logs"


@pytest.mark.parametrize("above", [0, 1])
def test_a_run_is_cut_at_terminals_and_where_a_checkpoint_ends(folder: Path, above: int) -> None:
    write_checkpoint(folder, 0, 10, (3, 6), action=5)
    write_checkpoint(folder, 10, 4, (1, 3))
    write_checkpoint(folder, 2, 3, ())
    episodes = list(read_source(str(folder.parents[above - 1] if above else folder), TASKS))
    for episode in episodes:
        check_episode(episode, PONG84)
    assert [(e.num_steps, e.terminated, e.truncated) for e in episodes] == [
        (4, True, False),
        (3, True, False),
        (3, False, True),
        (3, False, True),
        (2, True, False),
        (2, True, False),
    ]
    assert episodes[1].observations["image"][:, 3, 4].tolist() == [[5] * 3, [6] * 3, [7] * 3]
    assert episodes[1].rewards.tolist() == [4.0, 5.0, 6.0]
    assert episodes[0].actions.tolist() == [12] * 4  # the sixth of Pong's own buttons
    assert ["begins" in e.info for e in episodes] == [False, False, False, True, True, False]
    assert "clipped" in episodes[0].info["conventions"]
    assert "sticky actions 0.25" in episodes[0].info["conventions"]
    assert [e.key.rpartition(":")[2] for e in episodes] == ["0", "1", "2", "0", "0", "1"]
    assert len({e.key.rpartition(":")[0] for e in episodes}) == 3


def test_the_zeros_before_an_episode_are_no_steps_of_it(folder: Path) -> None:
    write_checkpoint(folder, 0, 16, (7,), padded=(0, 1, 2, 8, 9, 10, 15))
    first, second = read_dqn_replay(folder, TASKS)
    assert first.rewards.tolist() == [3, 4, 5, 6, 7]
    assert second.rewards.tolist() == [11, 12, 13, 14, 0]
    write_checkpoint(folder, 0, 10, (7,), padded=(8, 9))
    assert [e.num_steps for e in read_dqn_replay(folder, TASKS)] == [8]


def test_the_last_row_of_a_full_checkpoint_is_an_old_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dqn_replay, "CAPACITY_STEPS", 10)
    write_checkpoint(folder, 0, 10, (3, 9))
    first, second = read_dqn_replay(folder, TASKS)
    assert (first.num_steps, second.num_steps, second.terminated) == (4, 5, False)


def test_known_episodes_are_skipped_and_a_known_checkpoints_frames_not_opened(folder: Path) -> None:
    write_checkpoint(folder, 0, 10, (3, 6))
    write_checkpoint(folder, 1, 10, (3, 6))
    everything = list(read_dqn_replay(folder, TASKS))
    keys = [e.key for e in everything]
    reading = read_dqn_replay(folder, TASKS, known=set(keys[:5]).__contains__)
    (last,) = reading
    assert last.key == keys[5]
    np.testing.assert_array_equal(last.observations["image"], everything[5].observations["image"])
    assert (reading.num_passed, reading.num_known) == (6, 5)
    opened: list[Path] = []
    frames = dqn_replay.Frames
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            dqn_replay,
            "Frames",
            lambda file, num_steps: opened.append(file) or frames(file, num_steps=num_steps),
        )
        list(read_dqn_replay(folder, TASKS, known=set(keys[:4]).__contains__))
    assert opened == [folder / "$store$_observation_ckpt.1.gz"]


def test_memory_holds_one_episode_of_a_large_checkpoint(folder: Path) -> None:
    num_steps, length = 8_000, 100  # 56 MB of frames
    write_checkpoint(folder, 0, num_steps, tuple(range(length - 1, num_steps, length)))
    tracemalloc.start()
    assert sum(1 for _ in read_dqn_replay(folder, TASKS)) == num_steps // length
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # an episode in RGB is 2.1 MB; two are held for a moment
    assert peak_bytes < 12 << 20 < num_steps * 84 * 84 / 4


@pytest.mark.parametrize("game", ["Pong", "Breakout", "SpaceInvaders", "Freeway"])
def test_the_folder_names_the_game(tmp_path: Path, game: str) -> None:
    folder = write_checkpoint(tmp_path / game / "3" / "replay_logs", 0, 3, (2,))
    (episode,) = read_dqn_replay(folder, TASKS)
    assert (
        episode.task == f"atari84/{'space-invaders' if game == 'SpaceInvaders' else game.lower()}"
    )


def test_an_action_that_a_game_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "Freeway" / "1", 0, 3, (2,), action=3)
    reading = read_dqn_replay(folder, TASKS)
    assert list(reading) == []
    assert list(reading.report.rejected) == ["actions: from 3 to 3, but the game has 3 buttons"]


def test_a_folder_that_names_no_game_needs_a_task_of_its_frames(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "mine" / "logs", 0, 3, (2,))
    with pytest.raises(ValueError, match=r"cannot tell the task .*pass --task"):
        read_dqn_replay(folder, {"atari84/freeway": FREEWAY84})
    (episode,) = read_dqn_replay(folder, TASKS, FREEWAY84)
    assert episode.task == "atari84/freeway"
    with pytest.raises(ValueError, match="are those of task atari84/freeway, not of atari/freeway"):
        read_dqn_replay(folder, TASKS, TASKS["atari/freeway"])
    with pytest.raises(ValueError, match="grey frames of 84x84, task mujoco/hopper"):
        read_dqn_replay(folder, TASKS, TASKS["mujoco/hopper"])


def damage(folder: Path, how: str) -> None:
    observations = folder / "$store$_observation_ckpt.0.gz"
    if how == "missing":
        (folder / "$store$_reward_ckpt.0.gz").unlink()
    elif how == "cut":
        noise = np.random.default_rng(0).integers(0, 255, (10, 84, 84), np.uint8)
        write_column(folder, "observation", 0, noise)
        observations.write_bytes(observations.read_bytes()[:40_000])
    elif how == "no gzip":
        observations.write_bytes(b"<html>404</html>")
    elif how == "pickle":
        with gzip.open(folder / "$store$_reward_ckpt.0.gz", "wb") as stream:
            np.save(stream, np.array([{}] * 10, object), allow_pickle=True)
    elif how == "other shape":
        write_column(folder, "observation", 0, np.zeros((10, 84, 84, 3), np.uint8))
    elif how == "lengths":
        write_column(folder, "action", 0, np.zeros(9, np.int32))
    elif how == "fewer frames":
        write_column(folder, "observation", 0, np.zeros((9, 84, 84), np.uint8))


def test_of_a_cut_file_the_episodes_before_the_cut_are_read(folder: Path) -> None:
    damage(write_checkpoint(folder, 0, 10, (3, 6)), "cut")
    reading = read_source(str(folder), TASKS)
    assert [episode.num_steps for episode in reading] == [4]
    ((reason, count),) = reading.report.rejected.items()
    assert (count, "damaged" in reason) == (2, True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"lacks \$store\$_reward_ckpt\.0\.gz; each checkpoint has"),
        ("no gzip", "damaged"),
        ("pickle", "damaged, or not of the DQN replay data set: Object arrays cannot be loaded"),
        ("other shape", r"observations of shape \(10, 84, 84, 3\)"),
        ("lengths", "columns of shapes"),
        ("fewer frames", "has 9 observations, but there are 10 actions"),
    ],
)
def test_damaged_files_are_one_clear_error(folder: Path, how: str, message: str) -> None:
    damage(write_checkpoint(folder, 0, 10, (3, 6)), how)
    with pytest.raises(ValueError, match=message) as error:
        list(read_source(str(folder), TASKS))
    assert "\n" not in str(error.value)
