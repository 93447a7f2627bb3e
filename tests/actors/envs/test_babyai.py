"""BabyAI's mission is text, its view discrete, its bot the teacher, whoever plays."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.envs.factory import make_envs
from actors.rollout import play
from actors.tasks.resolve import resolve_task
from gato.array_spec import Kind
from gato.episode import check_episode
from gato.sequence import StepLayout
from gato.text import ByteEncoder, bytes_to_text
from gato.tokenizer import TokenLayout

babyai = pytest.importorskip(
    "actors.envs.babyai", reason="needs the extra minigrid", exc_type=ImportError
)
LEVEL = "minigrid:BabyAI-GoToLocal-v0"


class Follower:
    """Does what the bot says, or in a share of the steps anything else."""

    def __init__(self, share: float = 0.0) -> None:
        self._share, self._rng = share, np.random.default_rng(0)
        self._labels = np.zeros(0, np.int64)

    def act(self, step):
        self._labels = babyai.act(step.observations, step.extras)
        chance = self._rng.random(len(self._labels)) < self._share
        return np.where(chance, self._rng.integers(7, size=len(self._labels)), self._labels)

    def labels(self) -> np.ndarray:
        return self._labels


def test_a_mission_is_text_and_each_cell_one_value() -> None:
    task = resolve_task(LEVEL)
    assert {key: spec.kind for key, spec in task.observations.items()} == {
        "direction": Kind.DISCRETE, "mission": Kind.TEXT, "view": Kind.DISCRETE,
    }  # fmt: skip
    assert task.observations["view"].shape == (7, 7)
    steps = StepLayout(task, TokenLayout(text=ByteEncoder()))
    assert steps.tokens_per_step == task.observations["mission"].max_tokens + 1 + 49 + 1 + 1
    assert (
        resolve_task(task.name) == task == replace(resolve_task("BabyAI-GoToLocal-v0"), name=LEVEL)
    )


@pytest.mark.parametrize(
    "level", [LEVEL, "minigrid:BabyAI-PutNextLocal-v0", "minigrid:BabyAI-UnblockPickup-v0"]
)
def test_the_bot_reaches_its_goals(level: str) -> None:
    task = resolve_task(level)
    envs = make_envs(task, 4)
    episodes = list(
        play(envs, Follower(), range(8), source="t", new_key=lambda: "k", with_extras=True)
    )
    for episode in episodes:
        check_episode(episode, task)
        assert episode.terminated
        assert episode.episode_return > 0.5
        assert bytes_to_text(episode.observations["mission"][0]).split()[0] in ("go", "put", "pick")


def test_the_bot_says_what_it_would_have_done_when_another_plays() -> None:
    task = resolve_task(LEVEL)
    follower = Follower(share=0.5)
    episodes = list(
        play(
            make_envs(task, 4), follower, range(12), source="t", new_key=lambda: "k", with_extras=True,
            labels_of=follower.labels,
        )
    )  # fmt: skip
    assert all(episode.labels is not None for episode in episodes)
    assert any((episode.labels != episode.actions).any() for episode in episodes)
    assert np.mean([episode.episode_return > 0 for episode in episodes]) > 0.9


def test_a_level_without_a_bot_is_a_task_without_a_teacher() -> None:
    envs = make_envs(resolve_task("minigrid:MiniGrid-Empty-5x5-v0"), 1)
    envs.reset_row(0, 1)
    assert envs.extras() == {}
    with pytest.raises(ValueError, match="has no 'BabyAI-Nowhere-v0'"):
        resolve_task("minigrid:BabyAI-Nowhere-v0")


PLAYS = """
from actors.envs.factory import make_envs
from actors.tasks.resolve import resolve_task

task = resolve_task("minigrid:BabyAI-GoToLocal-v0")
for backend in ("loop", "process"):
    envs = make_envs(task, 1, backend=backend)
    envs.reset_row(0, 1)
    envs.close()
"""


def test_nothing_is_said_where_it_is_played() -> None:
    """MiniGrid registers more than 150 environments; where that happens twice, each is a
    warning."""
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run(
        [sys.executable, "-W", "default::UserWarning", "-c", PLAYS],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
