"""The runs that train one set of weights on many tasks, whose settings follow from the tasks."""

from __future__ import annotations

from collections.abc import Mapping

from actors.config import ActorsConfig
from actors.tasks.catalog import TASKS
from cluster.runs.config import RunConfig
from cluster.runs.task_settings import fit_to_tasks
from gato.acting.config import ActingConfig
from gato.config import PRESETS, ModelConfig
from gato.task import Task
from learner.config import LearnerConfig
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TaskMix

ROBOTS = (
    "mujoco/hopper",
    "mujoco/halfcheetah",
    "mujoco/walker2d",
    "mujoco/ant",
    "mujoco/swimmer",
    "mujoco/reacher",
    "mujoco/inverted-pendulum",
)
GAMES = ("atari/pong", "atari/breakout", "atari/freeway", "atari/boxing", "atari/demon-attack")
GENERALIST_TASKS = (*ROBOTS, *GAMES)
"""Their teachers ship."""
MORE_OFTEN: Mapping[str, float] = {
    "atari/pong": 2.5,
    "atari/breakout": 2.5,
    "atari/demon-attack": 2.5,
}
"""Games that were not learned after as many steps as the plan asks for (docs/log.md)."""


def fit_generalist(config: RunConfig, tasks: Mapping[str, Task]) -> RunConfig:
    """`fit_to_tasks`, with these games more often."""
    return fit_to_tasks(config, tasks, more_often=MORE_OFTEN)


def _generalist(
    name: str, about: str, model: ModelConfig, learner: LearnerConfig, mix: MixConfig
) -> RunConfig:
    (window_steps,) = {of.window_steps for of in mix.tasks.values()}
    base = RunConfig(
        name=name,
        about=about,
        tasks=GENERALIST_TASKS,
        model=model,
        learner=learner,
        replay=ReplayConfig(
            capacity_bytes=8 << 30, limiter=LimiterConfig(warmup_tokens=1), mix=mix
        ),
        actors=ActorsConfig(
            evaluate=ActingConfig(window_steps=window_steps),
            evaluate_share=0.3,
            generate_share=0.0,
        ),
    )
    tasks = {task: TASKS[task] for task in GENERALIST_TASKS}
    return fit_generalist(base, tasks)


GENERALIST = _generalist(
    "generalist",
    "One small Gato on seven robots and five games, on two cores without a GPU: hours.",
    PRESETS["small"],
    LearnerConfig(num_updates=1, max_rate=2e-3, checkpoint_every=500, num_threads=1),
    MixConfig(
        rows=250,
        row_tokens=48,
        prompt_steps=1,
        tasks=dict.fromkeys(GENERALIST_TASKS, TaskMix(window_steps=1)),
    ),
)
GENERALIST_79M = _generalist(
    "generalist-79m",
    "The same tasks with the paper's 79 million parameters and its context of 1,024 tokens, for a"
    " GPU.",
    PRESETS["79m"],
    LearnerConfig(num_updates=1, max_rate=3e-4, checkpoint_every=500),
    MixConfig(rows=64, row_tokens=1024, tasks=dict.fromkeys(GENERALIST_TASKS, TaskMix())),
)
