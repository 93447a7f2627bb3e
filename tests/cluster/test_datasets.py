"""What a data set says of itself."""

from pathlib import Path

from cluster.datasets import DataSet, mean_returns


def test_the_teachers_return_is_the_mean_of_the_episodes_that_are_read() -> None:
    sets = [
        DataSet(name="good", path=Path(), tasks={"mujoco/hopper": {"returns": [3000.0, 3200.0]}}),
        DataSet(name="mixed", path=Path(), tasks={"mujoco/hopper": {"returns": [500.0, 2800.0]}}),
    ]
    assert mean_returns(sets, 0.8) == {"mujoco/hopper": 3000.0}
    assert mean_returns(sets, None) == {"mujoco/hopper": 2375.0}
