"""The contract of players: one suite for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from actors.envs.vector import VectorEnv
from actors.players.dagger import RelabelledPlayer
from actors.players.filming import Filming
from actors.players.gato_player import GatoPlayer, GatoPlayers
from actors.players.heartbeat import Heartbeat
from actors.players.inference_client import ServedPlayer
from actors.players.inference_server import InferenceServer
from actors.players.player import Player, Teacher, TimeStep
from actors.rollout import play
from actors.tasks.catalog import TASKS
from actors.teachers.kinds import ChoosingTeacher, FunctionTeacher
from actors.teachers.perturbed import PerturbedTeacher
from actors.teachers.resolve import teacher_for
from actors.teachers.specialist import Specialist
from gato.acting.config import ActingConfig
from gato.array_spec import Kind
from gato.episode import check_episode
from gato.task import Task
from gato.version import Version
from gato.weights import Weights, snapshot
from tests.actors.fakes import COUNTING, EchoPlayer, RandomPlayer, counting_envs
from tests.gato.models import ROBOT, small_model

N = 3
PENDULUM = TASKS["mujoco/inverted-pendulum"]
FREEWAY = TASKS["atari/freeway"]
CHOICE = replace(ROBOT, name="test/choice", action=FREEWAY.action)
ACTING = ActingConfig(window_steps=4)
MODEL = small_model(64)


def _gato(task: Task) -> Player:
    return GatoPlayer.from_model(MODEL, task, ACTING, num_envs=N)


def _served(task: Task) -> Player:
    acting = {task.name: ACTING}
    weights = Weights(version=Version(1, 1), learner_step=1, arrays=snapshot(MODEL))

    class Source:
        def newer_than(self, version: Version | None) -> Weights | None:
            return weights if version is None else None

    players = GatoPlayers(model=MODEL.config, evaluate=acting, generate=acting, seed=0)
    server = InferenceServer(players, {task.name: task}, Source())
    player = ServedPlayer(server, "w0", task, "evaluate", N)
    newest = server.newer_than("w0", None)
    assert newest is not None
    player.load(newest)
    return player


def _choosing(task: Task) -> Player:
    """A network of one layer, whose largest output is the action."""
    rng = np.random.default_rng(0)
    arrays = {
        "obs_mean": np.zeros(5, np.float32),
        "obs_std": np.ones(5, np.float32),
        "log_std": np.zeros(18, np.float32),
        "layer0.weight": rng.normal(size=(18, 5)).astype(np.float32),
        "layer0.bias": np.zeros(18, np.float32),
    }
    record = {"observation_clip": 10.0, "action_low": -1.0, "action_high": 1.0}
    return ChoosingTeacher(task, network=Specialist(arrays, record), name="choosing")


class _Counting:
    """A function with a memory: it counts the steps of each row's episode."""

    def __init__(self) -> None:
        self.steps = np.zeros((N, 1), np.float32)

    def reset(self, rows: np.ndarray, seeds: np.ndarray) -> None:
        self.steps[rows] = 0.0

    def __call__(self, observations: object, extras: object) -> np.ndarray:
        self.steps += 0.25
        return self.steps.copy()


class Case(NamedTuple):
    task: Task
    make: Callable[[Task], Player]


CASES = {
    "echo": Case(COUNTING, lambda _: EchoPlayer()),
    "random": Case(ROBOT, RandomPlayer),
    "gato": Case(ROBOT, _gato),
    "served": Case(ROBOT, _served),
    "relabelled": Case(
        PENDULUM, lambda task: RelabelledPlayer(RandomPlayer(task), teacher_for(task))
    ),
    "heartbeat": Case(ROBOT, lambda task: Heartbeat(RandomPlayer(task))),
    "filming": Case(COUNTING, lambda _: Filming(EchoPlayer(), counting_envs(N), caption="")),
    "specialist": Case(PENDULUM, teacher_for),
    "choosing": Case(CHOICE, _choosing),
    "rule": Case(FREEWAY, teacher_for),
    "perturbed": Case(
        FREEWAY,
        lambda task: PerturbedTeacher(teacher_for(task), task.action, random_share=0.5),
    ),
    "function": Case(PENDULUM, lambda task: FunctionTeacher(task, _Counting(), "function")),
}


def steps_of(task: Task, seed: int, *, num_steps: int = 6) -> list[TimeStep]:
    """Random time steps; row 1 begins again in the fourth, row 2 is idle from the third on."""
    rng = np.random.default_rng(seed)
    steps: list[TimeStep] = []
    for t in range(num_steps):
        shown = {
            name: rng.integers(0, 255, (N, *spec.shape), np.uint8)
            if spec.kind is Kind.IMAGE
            else rng.normal(0.0, 0.1, (N, *spec.shape)).astype(spec.dtype)
            for name, spec in task.observations.items()
        }
        ram = rng.integers(0, 255, (N, 128), np.uint8)
        step = TimeStep.first(shown, seeds=[5, 9 if t >= 3 else 6, 7], extras={"ram": ram})
        if t:
            rewards = rng.normal(size=N).astype(np.float32)
            is_first = np.array([False, t == 3, t == 2])
            active = np.array([True, True, t < 2])
            step = replace(step, rewards=rewards, is_first=is_first, active=active)
        steps.append(step)
    return steps


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_it_is_a_player(case: Case) -> None:
    assert isinstance(case.make(case.task), Player)


def test_each_row_gets_an_action_that_the_task_takes(case: Case) -> None:
    player, spec = case.make(case.task), case.task.action
    for step in steps_of(case.task, 0):
        actions = player.act(step)
        assert actions.shape == (N, *spec.shape)
        assert actions.dtype == spec.dtype
        assert spec.problem_with(actions, "action") is None


def test_a_step_is_not_changed_nor_the_actions_that_were_returned(case: Case) -> None:
    player = case.make(case.task)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for step in steps_of(case.task, 0):
        given = [*step.observations.values(), *step.extras.values(), step.rewards, step.seeds]
        given += [step.active, step.is_first, player.act(step)]
        copies = [array.copy() for array in given]
        kept += zip(given, copies, strict=True)
    for array, copy in kept:
        np.testing.assert_array_equal(array, copy)


def test_the_same_steps_get_the_same_actions(case: Case) -> None:
    steps = steps_of(case.task, 0)
    once, again = case.make(case.task), case.make(case.task)
    for step in steps:
        np.testing.assert_array_equal(once.act(step), again.act(step))


def test_a_player_that_begins_in_all_rows_acts_as_a_new_one(case: Case) -> None:
    used, new = case.make(case.task), case.make(case.task)
    for step in steps_of(case.task, 1):
        used.act(step)
    for step in steps_of(case.task, 0):
        np.testing.assert_allclose(used.act(step), new.act(step), rtol=1e-4, atol=1e-5)


def test_a_row_that_begins_forgets_its_former_episode(case: Case) -> None:
    """Two players differ in what row 1 saw before its second episode, and in nothing since."""
    one, other = case.make(case.task), case.make(case.task)
    for step, elsewhere in zip(steps_of(case.task, 0), steps_of(case.task, 1), strict=True):
        began = step.seeds[1] == 9
        row = np.array([False, not began, False])
        swapped = {
            name: np.where(row.reshape(-1, *[1] * (a.ndim - 1)), elsewhere.observations[name], a)
            for name, a in step.observations.items()
        }
        mine, theirs = one.act(step), other.act(replace(step, observations=swapped))
        rows = [0, 1, 2] if began else [0, 2]
        np.testing.assert_allclose(mine[rows], theirs[rows], rtol=1e-4, atol=1e-4)


TEACHERS = [name for name in CASES if name in ("specialist", "choosing", "rule", "function")]


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teachers_labels_are_actions_too(name: str) -> None:
    case = CASES[name]
    teacher = case.make(case.task)
    assert isinstance(teacher, Teacher)
    for step in steps_of(case.task, 0):
        actions, labels = teacher.act(step), teacher.labels()
        assert labels is None or labels.shape == actions.shape


@pytest.mark.parametrize("name", ["echo", "random", "filming"])
def test_it_plays_whole_episodes(name: str) -> None:
    envs = counting_envs(N)
    player = RandomPlayer(COUNTING) if name == "random" else CASES[name].make(COUNTING)
    played = list(play(envs, player, range(7)))
    assert sorted(episode.seed or 0 for episode in played) == list(range(7))
    for episode in played:
        check_episode(episode, COUNTING)


def test_three_lines_play_a_model() -> None:
    envs: VectorEnv = counting_envs(2)
    player = GatoPlayer.from_model(MODEL, COUNTING, num_envs=2)
    returns = [episode.episode_return for episode in play(envs, player, range(3))]
    assert sorted(returns) == [6.0, 10.0, 15.0]
