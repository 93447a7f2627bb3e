"""Trains on an environment of one's own (`reach.py`) with demonstrations of one's own.

cd examples && python train_own_environment.py          # then: gato evaluate reach

Demonstrations are recorded with Minari, whose data sets other tools read and write as well.
"""

from __future__ import annotations

import sys

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from reach import act
from rich.console import Console

import gato_ray
from cluster.cli.data import import_data

DATA = "reach/act-v0"


def played(env: gymnasium.Env[np.ndarray, np.ndarray], seed: int) -> EpisodeBuffer:
    """One episode of `reach.act`: Minari wants one more observation than actions."""
    shown, _ = env.reset(seed=seed)
    observations, actions = [shown], []
    rewards, terminations, truncations = [], [], []
    while not (terminations and (terminations[-1] or truncations[-1])):
        actions.append(act({"state": shown[None]}, {})[0])
        shown, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(shown)
        rewards.append(float(reward))
        terminations.append(terminated)
        truncations.append(truncated)
    return EpisodeBuffer(
        id=seed,
        seed=seed,
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminations=terminations,
        truncations=truncations,
    )


def record(episodes: int = 200) -> None:
    """Write a Minari data set, under MINARI_DATASETS_PATH or ~/.minari."""
    env = gymnasium.make("reach:Reach-v0")
    if DATA in minari.list_local_datasets():
        minari.delete_dataset(DATA)
    minari.create_dataset_from_buffers(
        DATA,
        [played(env, seed) for seed in range(episodes)],
        env=env,
        algorithm_name="reach.act",
        author="me",
        author_email="me@example.org",
        code_permalink="examples/reach.py",
        description="A point that moves to a target.",
        eval_env=env,
    )


def main(updates: int = 500) -> None:
    record()
    import_data(
        f"minari:{DATA}",
        task="reach:TASK",
        name="reach-demonstrations",
        allowed=[],
        console=Console(),
    )
    run = gato_ray.start(
        "debug",  # the smallest model
        name="reach",
        tasks=["reach:TASK"],
        data=["reach-demonstrations"],
        settings={
            "learner.num_updates": updates,
            "learner.max_rate": 3e-3,
            "replay.mix.min_expert_fraction": None,  # a far target pays less: no bad episode
            "actors.evaluation_episodes": 20,
            "actors.generate_share": 0,
        },
    )
    for status in run.watch(every_s=5.0):
        print(f"{status.state}, update {run.step} of {updates}")
    print(run.evaluate(episodes=20).aggregate())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
