"""Environments of old gym are tasks through shimmy, where the extra `legacy` is installed."""

import numpy as np
import pytest

from actors.envs.factory import make_envs
from actors.rollout import play
from actors.tasks.resolve import resolve_task
from gato.episode import check_episode

pytestmark = pytest.mark.filterwarnings("ignore")  # gym itself is deprecated, and says so
pytest.importorskip("gym", reason="needs the extra legacy")
pytest.importorskip("shimmy", reason="needs the extra legacy")


class Left:
    def act(self, step):
        return np.zeros(2, np.int64)


def test_an_environment_of_old_gym_is_played_by_its_name() -> None:
    task = resolve_task("gym:CartPole-v1")
    assert (task.name, task.max_steps, task.action.num_values) == ("gym:CartPole-v1", 500, 2)
    for episode in play(make_envs(task, 2), Left(), [1, 2, 3], source="t", new_key=lambda: "k"):
        check_episode(episode, task)
        assert episode.terminated
        assert 8 <= episode.num_steps <= 11


def test_what_gym_does_not_know_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"gym:Nowhere-v0: gym 0\.26\.2 cannot make Nowhere-v0"):
        resolve_task("gym:Nowhere-v0")
    with pytest.raises(ValueError, match=r"gym:Hopper-v4: .* name Gymnasium's, as Hopper-v5"):
        resolve_task("gym:Hopper-v4")
