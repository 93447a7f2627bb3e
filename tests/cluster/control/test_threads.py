"""PyTorch's threads are set in one place, and a user's OMP_NUM_THREADS stands."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from actors.tasks.catalog import TASKS
from actors.teachers.demonstrate import demonstrate
from cluster.control.evaluation.evaluate import evaluate_checkpoint
from cluster.runs.presets import RUNS
from gato.threads import use_threads


@pytest.fixture(autouse=True)
def three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What PyTorch has before, and again after a test, with nothing in the environment."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def numpy_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_numpy_computes_with_as_many() -> None:
    for number in (2, 1):
        use_threads(number)
        assert numpy_threads() == {number}


def test_one_thread_is_used_where_nothing_is_said_and_what_is_started_later_knows() -> None:
    assert use_threads() == 1
    assert torch.get_num_threads() == 1
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("said", ["2", "2,1"])
def test_what_the_user_says_in_the_environment_stands(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert use_threads() == 2
    assert torch.get_num_threads() == 2
    assert os.environ["OMP_NUM_THREADS"] == said


def test_a_number_that_is_asked_for_is_used_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert use_threads(4) == 4
    assert torch.get_num_threads() == 4
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("said", ["many", "0", "-1"])
def test_what_is_no_number_of_threads_is_refused_before_anything_is_changed(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    with pytest.raises(ValueError, match="thread"):
        use_threads()
    assert torch.get_num_threads() == 3


@pytest.mark.report("ray-project/ray#6102", "pytorch/rl#1325", "edbeeching/godot_rl_agents#266")
def test_an_evaluation_and_a_recording_use_one_thread(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(ValueError):
        next(evaluate_checkpoint(tmp_path, RUNS["debug"], [], 1))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(3)
    with pytest.raises(ValueError):
        next(demonstrate(TASKS["mujoco/hopper"], episodes=1, seed=0, teacher_spec="nobody"))
    assert torch.get_num_threads() == 1
