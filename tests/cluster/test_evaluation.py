"""Playing a checkpoint without Ray: what it is prompted with."""

from pathlib import Path

import numpy as np
import pytest

from actors.tasks import TASKS
from cluster.evaluation import StoredPrompts
from cluster.runs import RUNS
from gato.episode import Episode
from replay.store import EpisodeStore

PENDULUM = TASKS["mujoco/inverted-pendulum"]


def test_a_checkpoint_is_prompted_from_its_runs_own_replay(tmp_path: Path) -> None:
    prompts = StoredPrompts(tmp_path / "replay", RUNS["debug"])
    with pytest.raises(ValueError, match="set prompt_steps=0"):
        prompts.demonstration(PENDULUM.name, 3)
    states = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    store = EpisodeStore(tmp_path / "replay", capacity_bytes=1 << 26)
    store.add(
        Episode(
            key="a", task=PENDULUM.name, source="teacher:t", terminated=False, truncated=True, seed=0,
            observations={"state": states}, actions=np.zeros((20, 1), np.float32), rewards=np.ones(20, np.float32),
        ),
        tokens=1,
    )  # fmt: skip
    store.close()
    shown = prompts.demonstration(PENDULUM.name, 3)
    assert shown is not None
    np.testing.assert_array_equal(shown.observations["state"], states[:3])
    with pytest.raises(ValueError, match="no demonstration of mujoco/hopper"):
        prompts.demonstration("mujoco/hopper", 3)
