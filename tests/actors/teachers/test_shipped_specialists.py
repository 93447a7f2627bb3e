"""The specialists that ship: their records fit their weights, and say how they were measured."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from actors.tasks.catalog import TASKS
from actors.teachers.specialist import SHIPPED, load_specialist
from actors.teachers.train.loop import (
    SELECTION_SEEDS,
    returns_of,
)
from tests.actors.teachers.arrays import arrays_of

SHIPPED_TASKS = [json.loads(path.read_text())["task"] for path in sorted(SHIPPED.glob("*.json"))]
LEAST = {
    "mujoco/hopper": 2500.0,
    "mujoco/inverted-pendulum": 1000.0,
    "mujoco/halfcheetah": 4000.0,
    "mujoco/walker2d": 2500.0,
    "mujoco/ant": 2500.0,
    "mujoco/swimmer": 200.0,
    "mujoco/reacher": -5.6784,  # JAT's expert, on v4
}
"""The return below which a specialist is no teacher."""


def test_seven_robots_ship() -> None:
    assert set(SHIPPED_TASKS) == set(LEAST)
    assert {path.stem for path in SHIPPED.glob("*.safetensors")} == {
        path.stem for path in SHIPPED.glob("*.json")
    }


@pytest.mark.parametrize("name", SHIPPED_TASKS)
def test_a_shipped_record_fits_its_weights_and_its_task(name: str) -> None:
    task, record = TASKS[name], load_specialist(name).record
    stem = SHIPPED / name.split("/")[-1]
    arrays = load_file(stem.with_suffix(".safetensors"))
    sizes = (*task.observations["state"].shape, *record["config"]["hidden"], *task.action.shape)
    assert {key: array.shape for key, array in arrays.items()} == {
        key: array.shape for key, array in arrays_of(sizes).items()
    }
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values())
    assert (arrays["obs_std"] > 0).all()
    assert stem.with_suffix(".safetensors").stat().st_size < 2**20
    assert (record["env_id"], record["activation"]) == (task.env_id, "tanh")
    assert (record["action_low"], record["action_high"]) == (task.action.low, task.action.high)


@pytest.mark.parametrize("name", SHIPPED_TASKS)
def test_a_shipped_record_says_how_it_was_made_and_measured(name: str) -> None:
    path = SHIPPED / f"{name.split('/')[-1]}.json"
    record: dict[str, Any] = json.loads(path.read_text())
    assert list(record) == sorted(record)
    config = record["config"]
    assert (
        record["command"]
        == f"python -m actors.teachers.train.rllib {name} --seed {config['seed']} --steps"
        f" {config['env_steps']}"
    )
    assert record["env_steps"] >= config["env_steps"]
    assert {
        "algorithm",
        "date",
        "kept",
        "versions",
        "wall_s",
        "return_std",
        "sampled_return_std",
    } <= set(record)
    assert len(range(*record["measured_seeds"])) == 20
    assert not set(range(*record["measured_seeds"])) & set(SELECTION_SEEDS)
    assert record["return_mean"] >= LEAST[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED_TASKS)
def test_a_shipped_record_is_measured_again(name: str) -> None:
    specialist = load_specialist(name)
    seeds = range(*specialist.record["measured_seeds"])
    for prefix, noise in (("", 0.0), ("sampled_", 1.0)):
        returns = returns_of(TASKS[name], specialist, seeds, noise=noise)
        assert returns.mean() == pytest.approx(
            specialist.record[f"{prefix}return_mean"], rel=0.05
        )  # another processor rounds otherwise
        assert returns.std() == pytest.approx(specialist.record[f"{prefix}return_std"], abs=0.01)
