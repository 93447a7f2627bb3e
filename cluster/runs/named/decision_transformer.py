"""The run that conditions on returns (Chen et al. 2021): offline, on data of any quality."""

from __future__ import annotations

from dataclasses import replace

from actors.config import ActorsConfig
from cluster.runs.config import RunConfig
from gato.acting.config import ActingConfig
from gato.config import PRESETS
from learner.config import LearnerConfig
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TaskMix

CONTEXT_STEPS = 20
"""The paper's K for robots."""
_TASK = "mujoco/hopper"
_ROW_TOKENS = CONTEXT_STEPS * 16
"""Of Hopper; of other tasks they follow."""

DECISION_TRANSFORMER = RunConfig(
    name="decision-transformer",
    about=(
        "Actions from a target return, learned from data of any quality: gato start"
        " decision-transformer --data NAME."
    ),
    tasks=(_TASK,),
    # Rows of their own for values learn small data sets by heart (docs/log.md).
    model=replace(
        PRESETS["small"],
        context_tokens=_ROW_TOKENS,
        return_conditioned=True,
        dropout=0.1,
        own_value_rows=False,
    ),
    learner=LearnerConfig(
        num_updates=20_000, max_rate=1e-3, publish_every=500, checkpoint_every=500, num_threads=1
    ),
    replay=ReplayConfig(
        capacity_bytes=4 << 30,
        limiter=LimiterConfig(
            warmup_tokens=1, reads_per_inserted_token=None, slack_tokens=48_000_000
        ),
        # Everything is read, whatever it returned: the return says how good it was.
        mix=MixConfig(
            rows=64,
            row_tokens=_ROW_TOKENS,
            prompt_fraction=0.0,
            return_fraction=1.0,
            min_agent_score=None,
            min_expert_fraction=None,
            tasks={_TASK: TaskMix(window_steps=CONTEXT_STEPS)},
        ),
    ),
    actors=ActorsConfig(
        evaluate=ActingConfig(window_steps=CONTEXT_STEPS),
        evaluate_every_s=120.0,
        evaluate_share=0.3,
        generate_share=0.0,
    ),
)
