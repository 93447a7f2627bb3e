"""Loads a trained policy and plays a task with it, in this process and without Ray.

python examples/play_policy.py debug inverted-pendulum        # after `gato start debug`
python examples/play_policy.py runs/demo/checkpoints/step-000002000 hopper
"""

from __future__ import annotations

import sys

import gato_ray


def main(what: str, task: str) -> None:
    policy = gato_ray.load_policy(what, task)
    with gato_ray.make_env(task) as env:
        for seed in range(4):
            step = env.reset(seed=seed)
            while not env.is_over:
                step = env.step(policy.act(step))
            print(
                f"{env.task.name}, seed {seed}: {env.num_steps} steps,"
                f" return {env.episode_return:,.1f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
