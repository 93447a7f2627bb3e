"""Trains specialists with RLlib: PPO or SAC on one robot, exported as a network without RLlib.

This is the only file that imports RLlib. `python -m actors.teachers.train.rllib mujoco/hopper
--seed 0` trains what is shipped.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from actors.envs.gymnasium_env import make_gymnasium
from actors.teachers.sb3.policy import NOISE
from actors.teachers.specialist import SHIPPED
from actors.teachers.train.config import SpecialistConfig, settings_for
from actors.teachers.train.loop import OBSERVATION_CLIP, train_specialist
from gato.import_path import require_own_packages
from gato.task import Task
from gato.threads import use_threads


@contextmanager
def ray_of_its_own(*, num_env_runners: int = 0) -> Generator[None]:
    """Start a local Ray for the training, unless one is connected already."""
    import ray

    use_threads()
    for name in ("ray", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if ray.is_initialized():
            yield
            return
        require_own_packages()
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            address="local",
            num_cpus=2 + num_env_runners,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
        try:
            yield
        finally:
            ray.shutdown()


def _ppo(config: SpecialistConfig) -> Any:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter

    algorithm: Any = PPOConfig()
    return algorithm.env_runners(
        env_to_module_connector=lambda *_, **__: MeanStdFilter(clip_by_value=OBSERVATION_CLIP),
        batch_mode="truncate_episodes",
        rollout_fragment_length="auto",
    ).training(
        lr=[[0, config.max_rate], [config.env_steps, config.max_rate / 20]],
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


def _sac(config: SpecialistConfig) -> Any:
    """SAC without normalisation of observations: the buffer would keep values that were normalised
    by old statistics."""
    from ray.rllib.algorithms.sac import SACConfig

    algorithm: Any = SACConfig()
    return algorithm.env_runners(rollout_fragment_length=1).training(
        actor_lr=config.max_rate,
        critic_lr=config.max_rate,
        alpha_lr=config.max_rate,
        train_batch_size_per_learner=config.minibatch_steps,
        replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": config.env_steps},
        num_steps_sampled_before_learning_starts=min(5000, config.env_steps // 10),
        store_buffer_in_checkpoints=True,
    )


def _build(config: SpecialistConfig, task: Task, num_env_runners: int) -> Any:
    import gymnasium
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.tune.registry import register_env

    def make(_: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
        env = make_gymnasium(task, max_episode_steps=task.max_steps, **task.env_kwargs)
        if isinstance(env.observation_space, gymnasium.spaces.Dict):
            env = gymnasium.wrappers.FlattenObservation(env)
        return gymnasium.wrappers.TransformReward(
            env, lambda reward: float(reward) * config.reward_scale
        )

    register_env("gato-specialist", make)
    is_ppo = config.algorithm == "ppo"
    algorithm: Any = (
        (_ppo if is_ppo else _sac)(config)
        .environment("gato-specialist")
        .framework("torch")
        .env_runners(num_env_runners=num_env_runners, num_envs_per_env_runner=config.num_envs)
        .training(gamma=config.gamma)
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(config.hidden),
                fcnet_activation="tanh" if is_ppo else "relu",
                fusionnet_hiddens=list(config.hidden),
                fusionnet_activation="relu",
                vf_share_layers=False,
                free_log_std=is_ppo,
            )
        )
        .debugging(seed=config.seed, log_level="ERROR")
        .build_algo()
    )
    if is_ppo:

        def set_log_std(learner: Any) -> None:
            learner.module["default_policy"].pi.log_std.data.fill_(config.first_log_std)

        algorithm.learner_group.foreach_learner(set_log_std)
        algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=algorithm.learner_group
        )
    return algorithm


def _normalisation(algorithm: Any, observation_size: int) -> dict[str, np.ndarray]:
    """Mean and standard deviation of observations, which are in the connector, not in the
    module."""
    from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter
    from ray.rllib.utils.filter import RunningStat

    pipeline = algorithm.env_runner._env_to_module
    states: list[Any] = [c.get_state() for c in pipeline.connectors if isinstance(c, MeanStdFilter)]
    if not states:
        return {"obs_mean": np.zeros(observation_size), "obs_std": np.ones(observation_size)}
    running = RunningStat.from_state(states[0][None]["running_stats"][0])
    return {"obs_mean": running.mean, "obs_std": running.std + 1e-8}


def _export(algorithm: Any, task: Task) -> dict[str, np.ndarray]:
    """The arrays of a `Specialist`: the policy's layers and the normalisation.

    RLlib's policies act with bounds -1 and 1: PPO's last layer is scaled to the task's bounds.
    """
    module = {
        k: v.detach().cpu().numpy()
        for k, v in algorithm.get_module("default_policy").state_dict().items()
    }
    encoder = "encoder.actor_encoder.net.mlp" if "pi.log_std" in module else "pi_encoder.net.mlp"
    hidden = sorted(
        int(name.split(".")[-2])
        for name in module
        if name.startswith(encoder) and name.endswith("weight")
    )
    layers = [
        (module[f"{prefix}.weight"], module[f"{prefix}.bias"])
        for prefix in (*(f"{encoder}.{i}" for i in hidden), "pi.net.mlp.0")
    ]
    low, high = task.action.bounds or (np.array(-1.0), np.array(1.0))
    middle, half = (low + high) / 2, (high - low) / 2
    weight, bias = layers[-1]
    if "pi.log_std" in module:
        layers[-1] = (weight * half[:, None], bias * half + middle)
        log_std = module["pi.log_std"] + np.log(half)
    else:  # the second half of SAC's outputs is its standard deviation, which differs by state
        layers[-1] = (weight[: task.action.size], bias[: task.action.size])
        log_std = np.broadcast_to(np.log(NOISE * half), (task.action.size,))
    arrays = {"log_std": log_std, **_normalisation(algorithm, layers[0][0].shape[1])}
    for index, (weight, bias) in enumerate(layers):
        arrays |= {f"layer{index}.weight": weight, f"layer{index}.bias": bias}
    # Copies, because the training goes on.
    return {name: np.array(array, np.float32, order="C") for name, array in arrays.items()}


class RLlibTrainer:
    """RLlib's PPO or SAC on one task."""

    def __init__(self, config: SpecialistConfig, task: Task, *, num_env_runners: int = 0) -> None:
        import ray

        self.algorithm = f"RLlib {ray.__version__.rpartition('.')[0]} {config.algorithm.upper()}"
        if (
            num_env_runners
        ):  # other episodes than those of the learner's process, so said in the name
            self.algorithm += f" --env-runners {num_env_runners}"
        self._reward_scale, self._task = config.reward_scale, task
        self._algorithm = _build(config, task, num_env_runners)

    def iterate(self) -> tuple[int, float]:
        result = self._algorithm.train()["env_runners"]
        mean = float(result.get("episode_return_mean", np.nan)) / self._reward_scale
        return int(result["num_env_steps_sampled_lifetime"]), mean

    def export(self) -> dict[str, np.ndarray]:
        return _export(self._algorithm, self._task)

    def save(self, folder: Path) -> None:
        self._algorithm.save_to_path(str(folder.absolute()))

    def restore(self, folder: Path) -> None:
        self._algorithm.restore_from_path(str(folder.absolute()))
        # RLlib 2.60 restores the weights of the learner only: without this the processes that play
        # would begin untrained.
        self._algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=self._algorithm.learner_group
        )

    def stop(self) -> None:
        self._algorithm.stop()


def teach(
    config: SpecialistConfig,
    out: Path,
    *,
    progress: Callable[[int, float | None], None],
    num_env_runners: int = 0,
) -> dict[str, Any]:
    """Train a specialist with RLlib, in the Ray that is connected or in a local one.

    Args:
        out: Folder of the specialist's two files.
        progress: As in `train_specialist`.
        num_env_runners: Processes that play, on any machine of the cluster. 0: the process that
            learns also plays.

    Returns:
        The record of the specialist.
    """
    with ray_of_its_own(num_env_runners=num_env_runners):
        make_trainer = partial(RLlibTrainer, num_env_runners=num_env_runners)
        return train_specialist(config, out, progress=progress, make_trainer=make_trainer)


def main() -> None:
    """Train a specialist from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--algorithm", choices=["ppo", "sac"], default="ppo")
    parser.add_argument("--env-runners", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    last = 0.0

    def say(steps: int, mean: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > 20.0:
            last = time.monotonic()
            print(
                f"{steps} steps, return {'-' if mean is None else f'{mean:.0f}'} in training",
                flush=True,
            )

    try:
        config = settings_for(
            arguments.task,
            seed=arguments.seed,
            env_steps=arguments.steps,
            algorithm=arguments.algorithm,
        )
        record = teach(config, arguments.out, progress=say, num_env_runners=arguments.env_runners)
    except ValueError as problem:
        parser.error(str(problem))
    shown = ("task", "return_mean", "return_std", "sampled_return_mean", "env_steps", "wall_s")
    print(json.dumps({name: record[name] for name in shown}))


if __name__ == "__main__":
    main()
