"""The named run `mt50`: Meta-World's 50 tasks in one model, on two cores."""

from __future__ import annotations

from actors.config import ActorsConfig
from actors.tasks.metaworld_table import MEASURED
from cluster.runs.config import RunConfig
from gato.acting.config import ActingConfig
from gato.config import PRESETS
from learner.config import LearnerConfig
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TaskMix

MT50_TASKS = tuple(f"metaworld/{name}?task_id=1" for name in MEASURED)
"""Each shows its number, as in the benchmark of this name: their observations look alike."""
ONE_STEP = ActingConfig(window_steps=1)

MT50 = RunConfig(
    name="mt50",
    about="Meta-World's 50 tasks, cloned from its experts into one model: hours, on two cores.",
    tasks=MT50_TASKS,
    model=PRESETS["small"],
    learner=LearnerConfig(
        num_updates=30_000, max_rate=2e-3, publish_every=500, checkpoint_every=1000, num_threads=1
    ),
    replay=ReplayConfig(
        capacity_bytes=8 << 30,
        limiter=LimiterConfig(
            warmup_tokens=300_000, reads_per_inserted_token=None, slack_tokens=480_000_000
        ),
        mix=MixConfig(
            rows=120,
            row_tokens=45,
            prompt_fraction=0.0,
            # An expert's return follows from where the goal is: a low one is no bad episode.
            min_expert_fraction=None,
            tasks=dict.fromkeys(MT50_TASKS, TaskMix(window_steps=1)),
        ),
    ),
    actors=ActorsConfig(
        num_workers=1,
        evaluation_episodes=4,
        evaluate=ONE_STEP,
        generate=ActingConfig(window_steps=1, continuous="sample", discrete="sample"),
        evaluate_every_s=1500.0,
        evaluate_share=0.4,
        generate_share=0.0,
        relabel_share=0.6,
        play_from=3000,
        first_demonstration_steps=2_000,
        demonstration_steps=20_000,
        clip_every_s=1800.0,
    ),
)
