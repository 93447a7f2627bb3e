"""Playing: episodes whole and in order, one for each seed, however many environments play them."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.envs.env import EnvFailedError
from actors.envs.factory import make_envs
from actors.players.player import Player
from actors.rollout import play
from actors.tasks.catalog import TASKS
from gato.episode import Episode, check_episode
from gato.version import Version
from tests.actors.fakes import COUNTING, EchoPlayer, RandomPlayer, counting_envs


def played(num_envs: int, seeds: list[int], player: Player, **options: int) -> list[Episode]:
    numbers = count(1)
    return list(
        play(
            counting_envs(num_envs),
            player,
            seeds,
            source="agent",
            new_key=lambda: f"w.i.{next(numbers)}",
            version=Version(1, 2),
            **options,
        )
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 40), max_size=12, unique=True))
def test_an_episode_is_kept_whole_and_in_order(num_envs: int, seeds: list[int]) -> None:
    episodes = played(num_envs, seeds, EchoPlayer())
    assert sorted(episode.seed for episode in episodes) == sorted(seeds)
    for episode in episodes:
        length = 3 + episode.seed % 5
        steps = np.arange(length, dtype=np.float32)
        check_episode(episode, COUNTING)
        np.testing.assert_array_equal(
            episode.observations["state"][:, 0], np.full(length, episode.seed)
        )
        np.testing.assert_array_equal(episode.observations["state"][:, 1], steps)
        # each answer to what was shown in its step
        np.testing.assert_array_equal(episode.actions[:, 0], steps)
        np.testing.assert_array_equal(episode.rewards, steps + 1)  # and the pay of that action
        assert episode.terminated == (episode.seed % 2 == 0)
        assert episode.truncated == (episode.seed % 2 == 1)
        assert episode.version == Version(1, 2)


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_an_episode_of_several_blocks_is_whole(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.rollout.BLOCK_STEPS", steps)
    lengths = {3: 6, 4: 7, 10: 3}
    episodes = played(2, list(lengths), EchoPlayer())
    assert {episode.seed: episode.num_steps for episode in episodes} == lengths
    for episode in episodes:
        state = episode.observations["state"]
        np.testing.assert_array_equal(state[:, 0], np.full(lengths[episode.seed], episode.seed))
        np.testing.assert_array_equal(state[:, 1], np.arange(lengths[episode.seed]))
        assert state.dtype == np.float32


def test_episodes_are_cut_off_as_truncated_ones() -> None:
    whole = {3: 6, 4: 7, 10: 3}  # steps by seed
    episodes = played(2, list(whole), EchoPlayer(), max_steps=6)
    assert {episode.seed: episode.num_steps for episode in episodes} == {3: 6, 4: 6, 10: 3}
    ends = {episode.seed: (episode.terminated, episode.truncated) for episode in episodes}
    assert ends == {3: (False, True), 4: (False, True), 10: (True, False)}
    for episode in episodes:
        check_episode(episode, COUNTING)


def test_each_episode_has_a_unique_key_and_records_its_environment() -> None:
    episodes = played(2, [1, 2, 3, 4, 5], EchoPlayer())
    assert len({episode.key for episode in episodes}) == 5
    assert episodes[0].info["env_id"] == "Counting-v0"
    assert episodes[0].info["engine"].startswith("mujoco ")


def test_a_player_is_told_which_rows_begin_and_of_which_seeds() -> None:
    player = EchoPlayer()
    played(2, [0, 4, 10], player)  # of 3, 7 and 3 steps
    assert player.begun[0] == ([0, 1], [0, 4])
    assert player.begun[1] == ([0], [10])


def test_more_rows_than_seeds_leave_the_rest_idle() -> None:
    assert [episode.seed for episode in played(4, [8], EchoPlayer())] == [8]
    assert played(3, [], EchoPlayer()) == []


def test_only_a_player_that_asks_for_extras_gets_them() -> None:
    blind, cheat = EchoPlayer(), EchoPlayer()
    played(2, [1, 2], blind)
    played(2, [1, 2], cheat, with_extras=True)
    assert all(not extras for extras in blind.seen_extras)
    assert cheat.seen_extras[0]["secret"].shape == (2, 1)


def test_a_broken_environment_ends_the_play_after_what_was_whole() -> None:
    episodes = play(
        counting_envs(1, breaks_at_seed=2),
        EchoPlayer(),
        [1, 2, 3],
        source="agent",
        new_key=lambda: "k",
    )
    assert next(episodes).seed == 1
    with pytest.raises(EnvFailedError, match="step 2"):
        next(episodes)


@pytest.mark.parametrize(
    ("name", "seeds", "tolerance"),
    [
        ("mujoco/hopper", range(12), 15.0),
        ("mujoco/inverted-pendulum", range(30), 3.0),
        ("mujoco/walker2d", range(12), 8.0),
        ("mujoco/reacher", range(10), 8.0),
        ("atari/breakout", range(6), 2.0),
    ],
)
def test_random_play_returns_about_the_random_reference(
    name: str, seeds: range, tolerance: float
) -> None:
    task = TASKS[name]
    envs = make_envs(task, 2)
    episodes = list(
        play(envs, RandomPlayer(task), list(seeds), source="agent", new_key=lambda: "k")
    )
    envs.close()
    for episode in episodes:
        check_episode(episode, task)
    # D4RL's -20.3 was measured on Hopper-v2
    reference = task.references.random if name != "mujoco/hopper" else 15.0
    assert np.mean([episode.episode_return for episode in episodes]) == pytest.approx(
        reference, abs=tolerance
    )


def test_a_player_gets_the_rewards_of_its_last_actions() -> None:
    class Listener(EchoPlayer):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[list[float]] = []

        def act(self, step):
            self.heard.append(step.rewards.tolist())
            return super().act(step)

    player = Listener()
    list(play(counting_envs(2), player, [0, 1], source="agent", new_key=lambda: "k"))
    # Step n returns reward n; the episode of seed 0 has 3 steps, that of seed 1 has 4.
    assert player.heard == [[0, 0], [1, 1], [2, 2], [3, 3]]
