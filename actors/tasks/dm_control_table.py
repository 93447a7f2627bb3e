"""The 28 benchmarking tasks of dm_control's suite, and the returns of random play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gato.array_spec import ArraySpec, Kind
from gato.task import References, Task

ENV_ID = "actors.envs.adapters.dm_control_suite:gato/DmControl-v0"
MOST_RETURN = 1000.0
"""Rewards are in [0, 1] in each of 1,000 steps."""
SOURCE = (
    "random: 10 episodes (seeds 20000 to 20009) of dm_control 1.0.50 under mujoco 4.0.0; expert:"
    " the most there is"
)
Size = int | tuple[int, ...]

SHOWN: Mapping[str, tuple[Mapping[str, Size], int, float]] = {
    "acrobot-swingup": ({"orientations": 4, "velocity": 2}, 1, 0.30),
    "acrobot-swingup_sparse": ({"orientations": 4, "velocity": 2}, 1, 0.00),
    "ball_in_cup-catch": ({"position": 4, "velocity": 4}, 2, 88.80),
    "cartpole-balance": ({"position": 3, "velocity": 2}, 1, 375.89),
    "cartpole-balance_sparse": ({"position": 3, "velocity": 2}, 1, 48.70),
    "cartpole-swingup": ({"position": 3, "velocity": 2}, 1, 29.52),
    "cartpole-swingup_sparse": ({"position": 3, "velocity": 2}, 1, 0.00),
    "cheetah-run": ({"position": 8, "velocity": 9}, 6, 3.29),
    "finger-spin": ({"position": 4, "touch": 2, "velocity": 3}, 2, 0.10),
    "finger-turn_easy": (
        {"dist_to_target": 0, "position": 4, "target_position": 2, "touch": 2, "velocity": 3},
        2,
        173.00,
    ),
    "finger-turn_hard": (
        {"dist_to_target": 0, "position": 4, "target_position": 2, "touch": 2, "velocity": 3},
        2,
        48.80,
    ),
    "fish-upright": ({"joint_angles": 7, "upright": 0, "velocity": 13}, 5, 336.03),
    "fish-swim": ({"joint_angles": 7, "target": 3, "upright": 0, "velocity": 13}, 5, 63.44),
    "hopper-stand": ({"position": 6, "touch": 2, "velocity": 7}, 4, 0.00),
    "hopper-hop": ({"position": 6, "touch": 2, "velocity": 7}, 4, 0.00),
    "humanoid-stand": (
        {
            "com_velocity": 3,
            "extremities": 12,
            "head_height": 0,
            "joint_angles": 21,
            "torso_vertical": 3,
            "velocity": 27,
        },
        21,
        4.65,
    ),
    "humanoid-walk": (
        {
            "com_velocity": 3,
            "extremities": 12,
            "head_height": 0,
            "joint_angles": 21,
            "torso_vertical": 3,
            "velocity": 27,
        },
        21,
        0.98,
    ),
    "humanoid-run": (
        {
            "com_velocity": 3,
            "extremities": 12,
            "head_height": 0,
            "joint_angles": 21,
            "torso_vertical": 3,
            "velocity": 27,
        },
        21,
        0.80,
    ),
    "manipulator-bring_ball": (
        {
            "arm_pos": (8, 2),
            "arm_vel": 8,
            "hand_pos": 4,
            "object_pos": 4,
            "object_vel": 3,
            "target_pos": 4,
            "touch": 5,
        },
        5,
        3.26,
    ),
    "pendulum-swingup": ({"orientation": 2, "velocity": 1}, 1, 3.30),
    "point_mass-easy": ({"position": 2, "velocity": 2}, 2, 0.00),
    "reacher-easy": ({"position": 2, "to_target": 2, "velocity": 2}, 2, 91.20),
    "reacher-hard": ({"position": 2, "to_target": 2, "velocity": 2}, 2, 14.20),
    "swimmer-swimmer6": ({"body_velocities": 18, "joints": 5, "to_target": 2}, 5, 209.58),
    "swimmer-swimmer15": ({"body_velocities": 45, "joints": 14, "to_target": 2}, 14, 12.80),
    "walker-stand": ({"height": 0, "orientations": 14, "velocity": 9}, 6, 130.00),
    "walker-walk": ({"height": 0, "orientations": 14, "velocity": 9}, 6, 30.85),
    "walker-run": ({"height": 0, "orientations": 14, "velocity": 9}, 6, 22.82),
}
"""By domain and task: sizes of the observation's arrays (0: a single number), size of the action,
and mean return of random play."""


def _array(size: Size) -> ArraySpec:
    shape = size if isinstance(size, tuple) else (size,) if size else ()
    return ArraySpec(kind=Kind.CONTINUOUS, shape=shape)


def _task(name: str) -> Task:
    arrays, size, random = SHOWN[name]
    domain, _, task = name.partition("-")
    return Task(
        name=f"dm-control/{name.replace('_', '-')}",
        env_id=ENV_ID,
        family="dm-control",
        observations={key: _array(arrays[key]) for key in sorted(arrays)},
        action=ArraySpec(kind=Kind.CONTINUOUS, shape=(size,), low=-1.0, high=1.0),
        references=References(random=random, expert=MOST_RETURN, source=SOURCE),
        max_steps=1000,
        aliases=(f"dm_control-{domain}-{task}", f"dmc/{domain}-{task}"),
        env_kwargs={"domain": domain, "task": task},
    )


SUITE: tuple[Task, ...] = tuple(map(_task, SHOWN))


def with_pixels(task: Task) -> Task:
    """The same task, shown as a picture of 84 by 84 in place of its state.

    Raises:
        ValueError: if the task is not one of dm_control's suite.
    """
    if task.family != "dm-control":
        raise ValueError(
            f"only tasks of dm-control are shown in pixels, {task.name} is of family"
            f" {task.family!r}; leave them out"
        )
    return replace(
        task,
        observations={"image": ArraySpec(kind=Kind.IMAGE, shape=(84, 84, 3))},
        env_kwargs={**task.env_kwargs, "pixels": True},
    )
