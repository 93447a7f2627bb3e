"""Demonstrations with random actions in between, for students that must learn to recover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.envs.factory import WorkerEnvs
from actors.players.player import TimeStep
from actors.rollout import play
from actors.tasks.catalog import TASKS
from actors.teachers.kinds import FunctionTeacher
from actors.teachers.perturbed import HELD_STEPS, PerturbedTeacher
from actors.teachers.resolve import Teachers, teacher_for
from gato.array_spec import ArraySpec, Kind
from gato.episode import Episode
from gato.task import Task

PONG = TASKS["atari/pong"]
BUTTONS = Task(
    name="test/buttons",
    family="test",
    env_id="Buttons-v0",
    max_steps=10,
    observations={"state": ArraySpec(kind=Kind.CONTINUOUS, shape=(1,))},
    action=ArraySpec(kind=Kind.DISCRETE, shape=(2,), num_values=(5, 3)),
)


def wanting(observations: dict[str, np.ndarray], extras: Any) -> np.ndarray:
    """Presses the last values of both elements, which no other row's action can be mistaken for."""
    return np.tile(np.array([4, 2]), (len(observations["state"]), 1))


def perturbed(random_share: float) -> PerturbedTeacher:
    teacher = FunctionTeacher(BUTTONS, wanting, "wanting")
    return PerturbedTeacher(teacher, BUTTONS.action, random_share=random_share)


def taken(teacher: PerturbedTeacher, steps: int, *, seeds: Sequence[int]) -> np.ndarray:
    """Its actions [steps, N, 2] in episodes of these seeds."""
    state = {"state": np.zeros((len(seeds), 1), np.float32)}
    first = TimeStep.first(state, seeds=list(seeds))
    later = replace(first, is_first=np.zeros(len(seeds), np.bool_))
    return np.stack([teacher.act(first), *(teacher.act(later) for _ in range(steps - 1))])


def demonstrated(seeds: Sequence[int]) -> list[Episode]:
    teacher = Teachers(random_share=0.3)(PONG, "demonstrate")
    envs = WorkerEnvs()(PONG, len(seeds))
    try:
        return sorted(
            play(
                envs,
                teacher,
                list(seeds),
                source=f"teacher:{teacher.name}",
                new_key=lambda: "x",
                with_extras=teacher.needs_extras,
                labels_of=teacher.labels,
            ),
            key=lambda episode: episode.seed or 0,
        )
    finally:
        envs.close()


def test_random_actions_have_their_share_and_are_held() -> None:
    actions = taken(perturbed(0.3), 20_000, seeds=[2, 3])
    assert (actions[:, 0] == (4, 2)).all()
    is_random = (actions[:, 1] != (4, 2)).any(axis=1)
    # One of the 15 random actions is the teacher's.
    assert is_random.mean() == pytest.approx(0.3 * 14 / 15, abs=0.03)
    begins = int((np.diff(is_random.astype(int)) == 1).sum())
    assert is_random.sum() / begins == pytest.approx(HELD_STEPS, rel=0.15)
    assert set(map(tuple, actions[:, 1])) == {(i, j) for i in range(5) for j in range(3)}


def test_the_same_seed_is_perturbed_alike() -> None:
    teacher = perturbed(0.3)
    first = taken(teacher, 200, seeds=[3, 5])
    np.testing.assert_array_equal(first, taken(teacher, 200, seeds=[3, 5]))
    assert (first[:, 0] != first[:, 1]).any()


def test_a_share_of_nothing_perturbs_nothing() -> None:
    assert (taken(perturbed(0.0), 200, seeds=[3]) == (4, 2)).all()


def test_demonstrations_of_a_game_are_labelled_with_what_the_rule_wants() -> None:
    plain, bad = demonstrated([20, 21])
    assert plain.labels is not None
    np.testing.assert_array_equal(plain.labels, plain.actions)
    assert bad.labels is not None
    assert 0.2 < (bad.labels != bad.actions).mean() < 0.4
    assert bad.episode_return < plain.episode_return


def test_only_demonstrations_of_discrete_actions_are_perturbed() -> None:
    teachers = Teachers(random_share=0.3)
    assert isinstance(teachers(PONG, "demonstrate"), PerturbedTeacher)
    assert not isinstance(teachers(PONG, "relabel"), PerturbedTeacher)
    assert not isinstance(teachers(TASKS["mujoco/hopper"], "demonstrate"), PerturbedTeacher)
    assert not isinstance(Teachers()(PONG, "demonstrate"), PerturbedTeacher)
    assert teachers(PONG, "demonstrate").name == teacher_for(PONG).name
