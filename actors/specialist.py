"""Specialists trained with RLlib: PPO on one robot, exported as a small network that plays without RLlib.

This is the only file that knows RLlib. `python -m actors.specialist mujoco/hopper --seed 0` makes what is shipped.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from actors.envs import make_envs, versions_of
from actors.gymnasium_env import make_gymnasium
from actors.rollout import play
from actors.specialist_policy import Specialist
from actors.tasks import TASKS
from actors.teachers import SpecialistTeacher
from gato.task import Task, find_task

OBSERVATION_CLIP = 10.0
SELECTION_SEEDS = range(500, 510)
"""Episodes by which the best weights of a training are kept."""
MEASURE_SEEDS = range(20_000, 20_020)
"""Fresh episodes, at which what was kept is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialistConfig:
    """PPO's settings (Schulman et al. 2017; observation normalisation and linear decay after Andrychowicz et al. 2021)."""

    task: str
    env_steps: int
    seed: int = 0
    hidden: tuple[int, ...] = (64, 64)
    max_rate: float = 3e-4
    """Decays linearly to a twentieth."""
    batch_steps: int = 2048
    minibatch_steps: int = 128
    epochs: int = 10
    num_envs: int = 8
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    reward_scale: float = 0.05
    """The value network learns faster where returns are of the order of one."""
    first_log_std: float = -0.5
    evaluate_every: int = 50
    """Iterations between two evaluations, by which the best weights are kept."""


SETTINGS: Mapping[str, SpecialistConfig] = {
    "mujoco/hopper": SpecialistConfig(task="mujoco/hopper", env_steps=1_500_000),
    "mujoco/inverted-pendulum": SpecialistConfig(task="mujoco/inverted-pendulum", env_steps=150_000, reward_scale=0.1),
    "mujoco/halfcheetah": SpecialistConfig(task="mujoco/halfcheetah", env_steps=2_000_000, reward_scale=0.1),
    "mujoco/walker2d": SpecialistConfig(task="mujoco/walker2d", env_steps=2_000_000),
    "mujoco/ant": SpecialistConfig(task="mujoco/ant", env_steps=2_000_000, first_log_std=-1.0),
    "mujoco/swimmer": SpecialistConfig(task="mujoco/swimmer", env_steps=1_000_000, reward_scale=1.0, gamma=0.9999),
    "mujoco/reacher": SpecialistConfig(task="mujoco/reacher", env_steps=500_000, reward_scale=0.1),
}


@contextmanager
def _ray_of_its_own() -> Generator[None]:
    """A local Ray for the training, unless one is connected already."""
    import ray
    import torch

    torch.set_num_threads(1)  # the networks are small, and threads that wait for each other lose on a shared machine
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def _build(config: SpecialistConfig, task: Task) -> Any:
    import gymnasium
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.tune.registry import register_env

    def make(_: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
        return gymnasium.wrappers.TransformReward(
            make_gymnasium(task), lambda reward: float(reward) * config.reward_scale
        )

    register_env("gato-specialist", make)
    algorithm: Any = (
        PPOConfig()
        .environment("gato-specialist")
        .framework("torch")
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=config.num_envs,
            env_to_module_connector=lambda *_, **__: MeanStdFilter(clip_by_value=OBSERVATION_CLIP),
            batch_mode="truncate_episodes",
            rollout_fragment_length="auto",
        )
        .training(
            lr=[[0, config.max_rate], [config.env_steps, config.max_rate / 20]],
            gamma=config.gamma,
            lambda_=config.gae_lambda,
            train_batch_size_per_learner=config.batch_steps,
            minibatch_size=config.minibatch_steps,
            num_epochs=config.epochs,
            clip_param=config.clip,
            vf_clip_param=1e9,
            vf_loss_coeff=0.5,
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=None,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(config.hidden),
                fcnet_activation="tanh",
                vf_share_layers=False,
                free_log_std=True,
            )
        )
        .debugging(seed=config.seed, log_level="ERROR")
        .build_algo()
    )

    def set_log_std(learner: Any) -> None:
        learner.module["default_policy"].pi.log_std.data.fill_(config.first_log_std)

    algorithm.learner_group.foreach_learner(set_log_std)
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group)
    return algorithm


def _export(algorithm: Any) -> dict[str, np.ndarray]:
    """The policy's layers, and the normalisation, which lives in the connector and not in the module."""
    from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
    from ray.rllib.utils.filter import RunningStat

    module = {k: v.detach().cpu().numpy() for k, v in algorithm.get_module("default_policy").state_dict().items()}
    pipeline = algorithm.env_runner._env_to_module
    state: Any = next(c for c in pipeline.connectors if isinstance(c, MeanStdFilter)).get_state()
    running = RunningStat.from_state(state[None]["running_stats"][0])
    arrays = {"obs_mean": running.mean, "obs_std": running.std + 1e-8, "log_std": module["pi.log_std"]}
    hidden = sorted(
        int(name.split(".")[-2])
        for name in module
        if name.startswith("encoder.actor_encoder.net.mlp") and name.endswith("weight")
    )
    prefixes = [f"encoder.actor_encoder.net.mlp.{i}" for i in hidden] + ["pi.net.mlp.0"]
    for index, prefix in enumerate(prefixes):
        arrays[f"layer{index}.weight"] = module[f"{prefix}.weight"]
        arrays[f"layer{index}.bias"] = module[f"{prefix}.bias"]
    return {name: np.array(array, np.float32, order="C") for name, array in arrays.items()}  # copies: training goes on


def _returns(task: Task, specialist: Specialist, seeds: range, *, noise: float = 0.0) -> Float[np.ndarray, " episodes"]:
    """Returns of its play, one episode a seed; `noise` in units of its own standard deviation."""
    teacher = SpecialistTeacher(task, noise=noise, specialist=specialist, perturb_all=True)
    envs = make_envs(task, min(10, len(seeds)))
    episodes = play(envs, teacher, list(seeds), source="measure", new_key=lambda: "measure")
    returns = np.array([episode.episode_return for episode in episodes])
    envs.close()
    return returns


def train_specialist(config: SpecialistConfig, out: Path, *, progress: Callable[[int, float], None]) -> dict[str, Any]:
    """Train, keep the best of regular evaluations, measure that over fresh episodes, write both files; the record.

    `progress` is told the environment steps made and the mean return of training episodes.
    """
    task = find_task(config.task, TASKS)
    if task.family != "mujoco":
        raise ValueError(f"{task.name} is no robot; specialists are trained on MuJoCo tasks, such as mujoco/hopper")
    about: dict[str, Any] = {
        "task": task.name,
        "env_id": task.env_id,
        "activation": "tanh",
        "observation_clip": OBSERVATION_CLIP,
        "action_low": task.action.low,
        "action_high": task.action.high,
    }
    begun = time.monotonic()
    best, best_return, best_steps, steps = {}, -np.inf, 0, 0
    with _ray_of_its_own(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("ray").setLevel(logging.ERROR)
        algorithm = _build(config, task)
        iteration = 0
        while steps < config.env_steps:
            result = algorithm.train()["env_runners"]
            steps, iteration = int(result["num_env_steps_sampled_lifetime"]), iteration + 1
            progress(steps, float(result.get("episode_return_mean", np.nan)) / config.reward_scale)
            if iteration % config.evaluate_every == 0 or steps >= config.env_steps:
                arrays = _export(algorithm)
                mean = float(_returns(task, Specialist(arrays, about), SELECTION_SEEDS).mean())
                if mean > best_return:
                    best, best_return, best_steps = arrays, mean, steps
        algorithm.stop()
    specialist = Specialist(best, about)
    greedy = _returns(task, specialist, MEASURE_SEEDS)
    sampled = _returns(task, specialist, MEASURE_SEEDS, noise=1.0)
    record = about | {
        "algorithm": "RLlib 2.60 PPO",
        "command": f"python -m actors.specialist {task.name} --seed {config.seed} --steps {config.env_steps}",
        "config": asdict(config),
        "date": datetime.now(UTC).date().isoformat(),
        "env_steps": steps,
        "kept": f"the best of evaluations every {config.evaluate_every} iterations (10 episodes), here after {best_steps} steps",
        "measured_seeds": [MEASURE_SEEDS.start, MEASURE_SEEDS.stop],
        "return_mean": round(float(greedy.mean()), 2),
        "return_std": round(float(greedy.std()), 2),
        "sampled_return_mean": round(float(sampled.mean()), 2),
        "sampled_return_std": round(float(sampled.std()), 2),
        "versions": versions_of(task),
        "wall_s": round(time.monotonic() - begun, 1),
    }
    out.mkdir(parents=True, exist_ok=True)
    stem = out / task.name.split("/")[-1]
    save_file(best, stem.with_suffix(".safetensors"))
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return record


def settings_for(task_name: str, *, seed: int, env_steps: int | None) -> SpecialistConfig:
    """The settings of a task, with this seed and, where given, this many steps. ValueError for an unknown one."""
    task = find_task(task_name, TASKS)
    if task.name not in SETTINGS:
        raise ValueError(f"no settings for a specialist of {task.name}; there are some for {', '.join(SETTINGS)}")
    config = replace(SETTINGS[task.name], seed=seed)
    return replace(config, env_steps=env_steps) if env_steps else config


def main() -> None:
    """Train a specialist from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "specialists")
    arguments = parser.parse_args()
    last = 0.0

    def say(steps: int, mean: float) -> None:
        nonlocal last
        if time.monotonic() - last > 20.0:
            last = time.monotonic()
            print(f"{steps} steps, return {mean:.0f} in training", flush=True)

    config = settings_for(arguments.task, seed=arguments.seed, env_steps=arguments.steps)
    record = train_specialist(config, arguments.out, progress=say)
    print(
        json.dumps(
            {k: record[k] for k in ("task", "return_mean", "return_std", "sampled_return_mean", "env_steps", "wall_s")}
        )
    )


if __name__ == "__main__":
    main()
