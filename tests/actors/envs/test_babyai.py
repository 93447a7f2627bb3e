"""BabyAI: the mission is text, the view discrete, the bot the teacher."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from actors.envs.factory import make_envs
from actors.envs.gymnasium_env import keyword_defaults
from actors.envs.provenance import env_spec_of
from actors.rollout import play
from actors.tasks.resolve import resolve_task
from actors.teachers.resolve import teacher_for
from gato.array_spec import Kind
from gato.compatibility.compare import compare
from gato.compatibility.environment import EnvDescription
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
        "direction": Kind.DISCRETE,
        "mission": Kind.TEXT,
        "view": Kind.DISCRETE,
    }
    assert task.observations["view"].shape == (7, 7)
    steps = StepLayout(task, TokenLayout(text=ByteEncoder()))
    assert steps.tokens_per_step == task.observations["mission"].max_tokens + 1 + 49 + 1 + 1
    assert resolve_task(task.name) == task == resolve_task("BabyAI-GoToLocal-v0")


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
            make_envs(task, 4),
            follower,
            range(12),
            source="t",
            new_key=lambda: "k",
            with_extras=True,
            labels_of=follower.labels,
        )
    )
    assert all(episode.labels is not None for episode in episodes)
    assert any((episode.labels != episode.actions).any() for episode in episodes)
    assert np.mean([episode.episode_return > 0 for episode in episodes]) > 0.9


def test_a_level_without_a_bot_is_a_task_without_a_teacher() -> None:
    envs = make_envs(resolve_task("minigrid:MiniGrid-Empty-5x5-v0"), 1)
    envs.reset_row(0, 1)
    assert envs.extras() == {}
    with pytest.raises(ValueError, match="has no 'BabyAI-Nowhere-v0'"):
        resolve_task("minigrid:BabyAI-Nowhere-v0")


def test_what_was_recorded_under_a_former_module_name_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task's file with the id of that time, a run's teacher, and the spec in an exported data
    set."""
    level = "BabyAI-GoToLocal-v0"
    (tmp_path / "old_tasks.py").write_text(
        "from dataclasses import replace\n"
        "from actors.tasks.resolve import resolve_task\n"
        f"TASK = replace(resolve_task({LEVEL!r}), env_id='actors.babyai:gato/MiniGrid-v0')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    task = resolve_task("old_tasks:TASK")
    assert task.env_id == resolve_task(LEVEL).env_id == babyai.ENV_ID
    recorded = replace(task, env_id="actors.babyai:gato/MiniGrid-v0")
    assert EnvSpec.from_json(env_spec_of(recorded)).entry_point == "actors.envs.babyai:make"
    teacher = teacher_for(recorded, "python:actors.babyai:act")
    played = list(play(make_envs(recorded, 2), teacher, [0, 1], with_extras=True))
    assert all(episode.terminated for episode in played)
    said = EnvDescription(
        where="old data",
        env_id="gato/MiniGrid-v0",
        entry_point="actors.babyai:make",
        kwargs={"level": level},
    )
    compare(said, task, defaults=keyword_defaults).require()
    other = replace(said, entry_point="somebody.babyai:make")
    with pytest.raises(ValueError, match=r"the class somebody\.babyai:make"):
        compare(other, task, defaults=keyword_defaults).require()


PLAYS = """
from actors.envs.factory import make_envs
from actors.tasks.resolve import resolve_task

task = resolve_task("minigrid:BabyAI-GoToLocal-v0")
for backend in ("loop", "process"):
    envs = make_envs(task, 1, backend=backend)
    envs.reset_row(0, 1)
    envs.close()
"""


def test_playing_prints_nothing() -> None:
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
