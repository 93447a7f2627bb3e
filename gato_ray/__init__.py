"""Train one Gato on many games and robots, watch it, evaluate it, and let it play, from Python.

run = gato_ray.start("debug")                                # in the background
for status in run.watch():                                   # until it ends
    print(status.state, run.step)
env, policy = gato_ray.make_env("inverted-pendulum"), gato_ray.load_policy("debug")
step = env.reset(seed=0)
while not env.is_over:
    step = env.step(policy.act(step))
print(env.episode_return, run.evaluate(episodes=5).aggregate())

Nothing heavy is imported before a name is used: `gato runs` starts without torch and without Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.serving.client import PolicyClient
    from gato_ray.playing import TaskEnv, load_policy, make_env
    from gato_ray.runs import Run, evaluate, find_run, start, watch

__all__ = [
    "PolicyClient",
    "Run",
    "TaskEnv",
    "evaluate",
    "find_run",
    "load_policy",
    "make_env",
    "start",
    "watch",
]
MODULES = {
    "PolicyClient": "cluster.serving.client",
    "Run": "gato_ray.runs",
    "TaskEnv": "gato_ray.playing",
    "evaluate": "gato_ray.runs",
    "find_run": "gato_ray.runs",
    "load_policy": "gato_ray.playing",
    "make_env": "gato_ray.playing",
    "start": "gato_ray.runs",
    "watch": "gato_ray.runs",
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'gato_ray' has no attribute {name!r}")
    from gato_ray.installation import check_packages

    check_packages()
    return getattr(import_module(MODULES[name]), name)
