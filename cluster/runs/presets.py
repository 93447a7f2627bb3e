"""The named runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches

from actors.config import ActorsConfig
from cluster.runs.config import RunConfig
from cluster.runs.named.breadth import BREADTH
from cluster.runs.named.decision_transformer import DECISION_TRANSFORMER
from cluster.runs.named.generalist import GENERALIST, GENERALIST_79M, fit_generalist
from cluster.runs.named.mt50 import MT50
from cluster.runs.task_settings import fit_rows, fit_to_tasks
from gato.acting.config import ActingConfig
from gato.config import PRESETS
from gato.task import Task
from learner.config import LearnerConfig
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TaskMix

FINETUNE = "finetune"
"""The run that begins with a trained model, and so needs one."""
DEMO_TASKS = ("mujoco/hopper", "atari/freeway")
FOLLOW_TASKS: Mapping[str, Callable[[RunConfig, Mapping[str, Task]], RunConfig]] = {
    "demo": fit_to_tasks,
    GENERALIST.name: fit_generalist,
    GENERALIST_79M.name: fit_generalist,
    DECISION_TRANSFORMER.name: fit_rows,
}
"""How settings of a run follow from other tasks than its own."""

RUNS: dict[str, RunConfig] = {
    "demo": RunConfig(
        name="demo",
        about="Hopper and Freeway from one small Gato, on two cores without a GPU.",
        tasks=DEMO_TASKS,
        model=PRESETS["small"],
        learner=LearnerConfig(
            num_updates=2000, max_rate=2e-3, publish_every=100, checkpoint_every=500, num_threads=1
        ),
        replay=ReplayConfig(
            capacity_bytes=4 << 30,
            limiter=LimiterConfig(
                warmup_tokens=100_000, reads_per_inserted_token=16.0, slack_tokens=48_000_000
            ),
            mix=MixConfig(
                rows=120,
                row_tokens=45,
                prompt_steps=1,
                tasks={
                    "mujoco/hopper": TaskMix(weight=8.0, window_steps=1),
                    "atari/freeway": TaskMix(weight=1.0, window_steps=1),
                },
            ),
        ),
        actors=ActorsConfig(
            num_workers=1,
            evaluate=ActingConfig(window_steps=1),
            evaluate_every_s=30.0,
            generate_share=0.05,
            demonstration_steps_of={"mujoco/hopper": 120_000, "atari/freeway": 24_000},
        ),
    ),
    "clone": RunConfig(
        name="clone",
        about=(
            "One robot from a data set whose actions were drawn at random around the expert's: gato"
            " start clone --data NAME."
        ),
        tasks=("mujoco/hopper",),
        model=replace(
            PRESETS["small"], width=64, feedforward=256, value_waves=32, own_value_rows=False
        ),
        # What the noise teaches decays: ten times the paper's.
        learner=LearnerConfig(
            num_updates=6000,
            max_rate=3e-3,
            weight_decay=1.0,
            publish_every=250,
            checkpoint_every=500,
            num_threads=1,
        ),
        replay=ReplayConfig(
            capacity_bytes=4 << 30,
            limiter=LimiterConfig(
                warmup_tokens=100_000, reads_per_inserted_token=None, slack_tokens=48_000_000
            ),
            # Half of all prompts are ends of episodes, which are few here: they would be learnt by
            # heart.
            mix=MixConfig(
                rows=120,
                row_tokens=45,
                prompt_fraction=0.0,
                tasks={"mujoco/hopper": TaskMix(window_steps=1)},
            ),
        ),
        actors=ActorsConfig(evaluate_every_s=30.0, generate_share=0.0),
    ),
    BREADTH.name: BREADTH,
    MT50.name: MT50,
    GENERALIST.name: GENERALIST,
    GENERALIST_79M.name: GENERALIST_79M,
    DECISION_TRANSFORMER.name: DECISION_TRANSFORMER,
    FINETUNE: RunConfig(
        name=FINETUNE,
        about=(
            "A trained model on other tasks, with the paper's settings (appendix E): gato start"
            " finetune --from RUN --tasks NAMES."
        ),
        tasks=("mujoco/hopper",),  # the model of --from brings its own
        model=replace(PRESETS["79m"], dropout=0.1, stochastic_depth=0.0),
        learner=LearnerConfig(
            num_updates=10_000,
            max_rate=1e-5,
            warmup_updates=0,
            final_rate_fraction=1.0,
            weight_decay=0.0,  # Adam
            publish_every=100,
            checkpoint_every=500,
        ),
        replay=ReplayConfig(
            capacity_bytes=4 << 30,
            limiter=LimiterConfig(
                warmup_tokens=20_000, reads_per_inserted_token=None, slack_tokens=48_000_000
            ),
            mix=MixConfig(rows=64, row_tokens=1024),
        ),
        # What it is to learn is in the demonstrations; its own games would be added to them.
        actors=ActorsConfig(evaluate_every_s=30.0, generate_share=0.0),
    ),
    "debug": RunConfig(
        name="debug",
        about=(
            "The smallest run that has every part: a check of an installation, in under a minute."
        ),
        tasks=("mujoco/inverted-pendulum",),
        model=PRESETS["tiny"],
        learner=LearnerConfig(
            num_updates=40, max_rate=2e-3, publish_every=10, checkpoint_every=10, report_every=5
        ),
        replay=ReplayConfig(
            capacity_bytes=1 << 28,
            limiter=LimiterConfig(
                warmup_tokens=1_000, reads_per_inserted_token=None, slack_tokens=1_000_000
            ),
            mix=MixConfig(
                rows=16,
                row_tokens=48,
                prompt_steps=1,
                tasks={"mujoco/inverted-pendulum": TaskMix(window_steps=1)},
            ),
        ),
        actors=ActorsConfig(
            num_envs=2, demonstration_steps=2_000, evaluate=ActingConfig(window_steps=1)
        ),
    ),
}


def find_run_config(name: str) -> RunConfig:
    """The named run. ValueError suggests the nearest name."""
    if name not in RUNS:
        near = get_close_matches(name, RUNS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known runs: {', '.join(RUNS)}"
        raise ValueError(f"unknown run {name!r}; {hint}")
    return RUNS[name]
