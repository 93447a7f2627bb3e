"""Environment workers without a model against RLlib's EnvRunners and Gymnasium's AsyncVectorEnv.

All play at random and keep what they saw as episodes, but for AsyncVectorEnv, which only steps; it
has a process for each environment, the others one for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv
from jaxtyping import Shaped
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from actors.envs.conformance_checks import random_action
from actors.envs.factory import make_envs
from actors.players.player import TimeStep
from actors.rollout import play
from actors.tasks.catalog import TASKS
from benchmarks.rows import Row
from benchmarks.train import ratio, take_turns

TASK = TASKS["mujoco/hopper"]
NUM_ENVS = (1, 4, 16)
STEPS = 2000
"""Of an environment's steps in each turn, at least: whole episodes are played."""
TURNS = 5


def drawn(num_envs: int) -> list[Shaped[np.ndarray, "N ..."]]:
    """Random actions, which are then played by turns."""
    rng = np.random.default_rng(0)
    return [np.stack([random_action(TASK, rng) for _ in range(num_envs)]) for _ in range(256)]


class Random:
    """The trivial player."""

    def __init__(self, num_envs: int) -> None:
        self._actions = itertools.cycle(drawn(num_envs))

    def act(self, step: TimeStep) -> Shaped[np.ndarray, "N ..."]:
        return next(self._actions)


class RandomModule(TorchRLModule):
    """The same for RLlib, whose own RandomRLModule has no device to be moved to."""

    def setup(self) -> None:
        self._actions = itertools.cycle(map(torch.from_numpy, drawn(self.model_config["rows"])))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTIONS: next(self._actions)}


def env_runner(num_envs: int) -> SingleAgentEnvRunner:
    """RLlib's worker, in this process, with its module of random actions."""
    spec = RLModuleSpec(module_class=RandomModule, model_config={"rows": num_envs})
    config = (
        PPOConfig()
        .environment(TASK.env_id)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs)
        .rl_module(rl_module_spec=spec)
    )
    return SingleAgentEnvRunner(config=config)


def ours(num_envs: int) -> Callable[[], int]:
    """Whole episodes of at least `STEPS` steps; returns how many there were."""
    envs, player, seeds = make_envs(TASK, num_envs), Random(num_envs), itertools.count()

    def once() -> int:
        steps = 0
        while steps < STEPS:
            chosen = [next(seeds) for _ in range(4 * num_envs)]
            steps += sum(episode.num_steps for episode in play(envs, player, chosen))
        return steps

    return once


def of_runner(runner: Any) -> int:
    return sum(len(episode) for episode in runner.sample(num_timesteps=STEPS))


def of_processes(envs: AsyncVectorEnv, player: Random) -> int:
    """Steps of `AsyncVectorEnv`, which begins episodes again by itself."""
    rounds = -(-STEPS // envs.num_envs)
    none = TimeStep.first({}, seeds=range(envs.num_envs))
    for _ in range(rounds):
        envs.step(player.act(none))
    return rounds * envs.num_envs


def environments() -> Iterator[Row]:
    """Steps a second of Hopper: ours against both, in turns."""
    for num_envs in NUM_ENVS:
        runner = env_runner(num_envs)
        with closing(AsyncVectorEnv([lambda: gymnasium.make(TASK.env_id)] * num_envs)) as processes:
            processes.reset(seed=0)
            work = {
                "ours": ours(num_envs),
                "runner": partial(of_runner, runner),
                "processes": partial(of_processes, processes, Random(num_envs)),
            }
            seconds = seconds_a_step(work)
        runner.stop()
        for name, peer, against in (
            ("runner", "an EnvRunner", f"RLlib {version('ray')}'s, with a random module"),
            (
                "processes",
                "AsyncVectorEnv",
                f"Gymnasium {version('gymnasium')}'s, which keeps nothing, resets counted as steps",
            ),
        ):
            step_s = float(np.median(seconds["ours"]))
            yield {
                "path": f"play at random, {TASK.name}, {num_envs} environments, and {peer}",
                "against": against,
                "ours_s": step_s,
                "theirs_s": float(np.median(seconds[name])),
                "ratio": ratio(seconds["ours"], seconds[name]),
                "steps_per_s": 1.0 / step_s,
            }


def seconds_a_step(work: dict[str, Callable[[], int]]) -> dict[str, list[float]]:
    """Of each, in turns."""
    steps: dict[str, list[int]] = {name: [] for name in work}

    def counted(name: str) -> None:
        steps[name].append(work[name]())

    seconds = take_turns({name: partial(counted, name) for name in work}, TURNS)
    # The first turn is not counted.
    return {
        name: [spent / count for spent, count in zip(seconds[name], steps[name][1:], strict=True)]
        for name in work
    }
