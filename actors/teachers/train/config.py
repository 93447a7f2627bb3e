"""Settings of the training of specialists, for each robot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from actors.tasks.resolve import resolve_task
from actors.teachers.specialist import SHIPPED, file_stem

Algorithm = Literal["ppo", "sac"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialistConfig:
    """Settings of PPO (Schulman et al. 2017; observation normalisation and linear decay after
    Andrychowicz et al. 2021).

    SAC (Haarnoja et al. 2018) uses the steps, the seed, `hidden`, `max_rate` as a constant,
    `gamma`, `reward_scale`, `num_envs`, `evaluate_every`, and `minibatch_steps` as its batch size.
    """

    task: str
    env_steps: int
    seed: int = 0
    algorithm: Algorithm = "ppo"
    hidden: tuple[int, ...] = (64, 64)
    max_rate: float = 3e-4
    """Learning rate, which decays linearly to a twentieth."""
    batch_steps: int = 2048
    minibatch_steps: int = 128
    epochs: int = 10
    num_envs: int = 8
    """Environments in each process that plays."""
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    reward_scale: float = 0.05
    """Rewards are multiplied by this: the value network learns faster if returns are of order
    one."""
    first_log_std: float = -0.5
    """Log of the initial standard deviation, of actions with bounds -1 and 1."""
    evaluate_every: int = 50
    """Iterations between two evaluations; the best weights of them are kept."""


def _config(short: str, env_steps: int, **settings: Any) -> SpecialistConfig:
    return SpecialistConfig(task=f"mujoco/{short}", env_steps=env_steps, **settings)


SETTINGS: Mapping[str, SpecialistConfig] = {
    config.task: config
    for config in (
        _config("hopper", 1_500_000),
        _config("inverted-pendulum", 150_000, reward_scale=0.1),
        _config(
            "halfcheetah",
            2_000_000,
            reward_scale=0.1,
            gamma=0.98,
            gae_lambda=0.92,
            first_log_std=-1.5,
        ),
        _config("walker2d", 2_000_000),
        _config("ant", 3_000_000, first_log_std=-1.0),
        _config(
            "swimmer", 1_000_000, reward_scale=1.0, gamma=0.9999, gae_lambda=0.98, max_rate=6e-4
        ),
        _config("reacher", 500_000, reward_scale=0.1),
        _config("inverted-double-pendulum", 500_000, reward_scale=0.02),
        _config("pusher", 1_000_000, reward_scale=0.1),
        _config("humanoid", 4_000_000, reward_scale=0.02, first_log_std=-1.0, hidden=(256, 256)),
        _config(
            "humanoid-standup", 2_000_000, reward_scale=0.002, first_log_std=-1.0, hidden=(256, 256)
        ),
    )
}
"""By task; v4 of a robot has those of v5. If no specialist of the task ships, they are a guess: see
`is_tried`."""
SUITE = SpecialistConfig(task="", env_steps=1_000_000, hidden=(128, 128), reward_scale=0.1)
"""Of DM Control's tasks, whose rewards are all of one scale; a guess as well."""
SAC_STEPS = 300_000
"""Default of SAC, which needs fewer environment steps, and far more time for each."""


def is_tried(task_name: str) -> bool:
    """Whether a specialist ships that was trained with the task's settings."""
    return (SHIPPED / f"{file_stem(task_name)}.json").is_file()


def settings_for(
    task_name: str, *, seed: int, env_steps: int | None, algorithm: Algorithm = "ppo"
) -> SpecialistConfig:
    """The settings of a task, with this seed, and this many steps if given.

    Raises:
        ValueError: if there are no settings for the task.
    """
    task = resolve_task(task_name)
    if task.family.startswith("atari"):
        raise ValueError(
            f"no settings for a specialist of {task.name}; there are some for"
            f" {', '.join(SETTINGS)}. On games RLlib's PPO was measured at 90 to 150 steps/s on two"
            " cores, at which 10 million steps take a day: import recorded episodes by `gato"
            " import`, or name a trained policy by python:PACKAGE.MODULE:FUNCTION"
        )
    known = SETTINGS.get(task.name.replace("mujoco-v4/", "mujoco/"))
    if known is None and task.family == "dm-control":
        known = SUITE
    if known is None:
        raise ValueError(
            f"no settings for a specialist of {task.name}; there are some for {', '.join(SETTINGS)}"
        )
    config = replace(known, task=task.name, seed=seed, algorithm=algorithm)
    if algorithm == "sac":
        config = replace(
            config,
            env_steps=min(config.env_steps, SAC_STEPS),
            hidden=(256, 256),
            reward_scale=1.0,
            num_envs=1,
            minibatch_steps=256,
        )
    return replace(config, env_steps=env_steps) if env_steps else config
