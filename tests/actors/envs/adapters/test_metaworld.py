"""Meta-World's tasks keep the contract, and its experts solve them."""

from importlib.util import find_spec

import numpy as np
import pytest

if not find_spec("metaworld"):
    pytest.skip("needs the extra metaworld", allow_module_level=True)

from actors.envs.conformance import check_envs
from actors.envs.factory import make_envs
from actors.rollout import play
from actors.tasks.catalog import TASKS
from actors.tasks.metaworld_table import MEASURED
from actors.tasks.resolve import resolve_task
from actors.teachers.measure import measure
from actors.teachers.resolve import teacher_for, teacher_return
from gato.episode import check_episode
from gato.sequence import StepLayout
from gato.task import Task
from gato.tokenizer import TokenLayout

NAMES = [name for name in TASKS if name.startswith("metaworld/")]


def test_a_task_keeps_the_contract_and_its_goal_follows_the_seed() -> None:
    task = TASKS["metaworld/push"]
    check_envs(task)  # may warn: random play hardly moves the puck
    envs = make_envs(task, 1)
    goals = []
    for seed in (1, 2, 1):
        envs.reset_row(0, seed)
        goals.append(envs.observations["state"][0, -3:].tolist())
    assert goals[0] == goals[2] != goals[1]
    assert any(goals[0])
    assert envs.picture(0).shape == (240, 320, 3)
    envs.close()


def test_an_expert_solves_its_task_and_the_episode_says_so() -> None:
    task = TASKS["metaworld/reach"]
    envs, teacher = make_envs(task, 1), teacher_for(task)
    (episode,) = play(envs, teacher, [20_000])
    check_episode(episode, task)
    assert episode.success is True
    assert "metaworld 3.0.0" in episode.info["engine"]
    assert 0.8 < task.normalise(episode.episode_return) < 1.2
    envs.close()


def test_a_task_may_show_its_number_as_mt50_does() -> None:
    from metaworld.env_dict import MT50_V3

    assert len(MT50_V3) == len(MEASURED)
    task = resolve_task("metaworld/push?task_id=1")
    check_envs(task)
    assert StepLayout(task, TokenLayout()).tokens_per_step == 45
    envs, teacher = make_envs(task, 1), teacher_for(task)
    (episode,) = play(envs, teacher, [20_000])
    assert episode.success is True
    assert set(episode.observations["task"].tolist()) == {list(MT50_V3).index("push-v3")}
    assert episode.episode_return == _played(TASKS["metaworld/push"], 20_000)
    assert task.references == TASKS["metaworld/push"].references
    envs.close()


def _played(task: Task, seed: int) -> float:
    envs = make_envs(task, 1)
    (episode,) = play(envs, teacher_for(task), [seed])
    envs.close()
    return episode.episode_return


def test_other_tasks_have_no_number() -> None:
    with pytest.raises(ValueError, match="only tasks of metaworld have a number"):
        resolve_task("hopper?task_id=1")
    with pytest.raises(ValueError, match=r"task_id=2 .* is not 1; write it as"):
        resolve_task("metaworld/push?task_id=2")


def test_random_play_does_not_solve_it() -> None:
    task, rng = TASKS["metaworld/assembly"], np.random.default_rng(0)

    class Random:
        def act(self, step):
            return rng.uniform(-1, 1, (step.num_rows, 4)).astype(np.float32)

    envs = make_envs(task, 1)
    (episode,) = play(envs, Random(), [0])
    assert episode.success is False
    envs.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_the_contract_and_its_teacher_its_record(name: str) -> None:
    check_envs(TASKS[name])
    record = measure(TASKS[name], episodes=10, noise=0.0)
    known = teacher_for(TASKS[name]).record
    assert record["return_mean"] == pytest.approx(known["return_mean"], abs=0.5)
    assert record["success"] == known["success"]


def test_a_return_below_random_play_is_no_measure() -> None:
    task = TASKS["metaworld/button-press-topdown-wall"]
    assert teacher_return(task) is None
    assert task.references is not None
    assert task.references.expert == 5000.0


def test_there_are_fifty() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    made = {str(TASKS[name].env_kwargs["env_name"]) for name in NAMES}
    assert made == set(ALL_V3_ENVIRONMENTS)
