"""Labels: what a teacher would have done is what is learned, and what was done is kept beside
it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.tasks.catalog import TASKS as ALL_TASKS
from actors.teachers.demonstrate import demonstrate
from gato.episode import BadEpisode, check_episode
from gato.sequence import PLACE_ACTION
from replay.sampling.mixture import Mixture
from replay.storage.record import record_from_bytes
from replay.storage.store import EpisodeStore
from tests.replay.episodes import COUNTER, LAYOUT, TASKS, config, counter_episode, to_bytes, unpack


def test_the_loss_is_on_the_labels_and_the_actions_are_kept(tmp_path: Path) -> None:
    plain = counter_episode(1)
    labelled = replace(plain, labels=plain.actions + 500)
    store = EpisodeStore(tmp_path, capacity_bytes=1 << 26)
    header = store.add(unpack(record_from_bytes(to_bytes(labelled))), tokens=1)
    assert header is not None
    back = store.episode(header)
    np.testing.assert_array_equal(back.actions, plain.actions)
    assert back.labels is not None
    np.testing.assert_array_equal(back.labels, plain.actions + 500)
    batch = Mixture(store, TASKS, LAYOUT, config().mix, seed=0, teacher_returns={}).sample(0)
    assert batch is not None
    targets = batch.ids[batch.is_target]
    assert (batch.place[batch.is_target] == PLACE_ACTION).all()
    assert targets.min() >= 500


def test_labels_are_checked_at_the_door() -> None:
    episode = counter_episode(1)
    with pytest.raises(BadEpisode, match="label"):
        check_episode(replace(episode, labels=episode.actions + 5000), COUNTER)


def test_a_perturbed_teacher_says_what_it_wanted() -> None:
    task = ALL_TASKS["mujoco/inverted-pendulum"]
    greedy, perturbed = sorted(
        demonstrate(task, episodes=2, seed=0), key=lambda episode: episode.seed
    )
    assert greedy.labels is not None
    assert perturbed.labels is not None
    np.testing.assert_array_equal(greedy.actions, greedy.labels)
    assert np.abs(perturbed.actions - perturbed.labels).mean() > 0.01
    again = sorted(demonstrate(task, episodes=2, seed=0), key=lambda episode: episode.seed)
    assert [episode.key for episode in again] == [greedy.key, perturbed.key]
    np.testing.assert_array_equal(again[1].actions, perturbed.actions)
