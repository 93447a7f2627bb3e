"""The named run `breadth`: every kind of data that there is, in one model, on two cores."""

from __future__ import annotations

from dataclasses import replace

from actors.config import ActorsConfig
from cluster.runs.config import RunConfig
from cluster.runs.task_settings import RANDOM_SHARE
from gato.acting.config import ActingConfig
from gato.config import PRESETS
from learner.config import LearnerConfig
from replay.config import ReplayConfig
from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig, TaskMix

QUESTIONS = "vqa/easy-vqa"
LEVEL = "minigrid:BabyAI-GoToLocal-v0"
ROBOTS = ("mujoco/hopper", "mujoco/halfcheetah", "mujoco/walker2d", "mujoco/reacher")
GAMES = ("atari/freeway", "atari/pong", "atari/boxing")
SLOW = ("mujoco/halfcheetah", "mujoco/walker2d", "atari/pong")
"""Those that learn slowest, of both."""
MANIPULATION = tuple(
    f"metaworld/{name}?task_id=1"
    for name in (
        "reach", "push", "pick-place", "door-close", "door-lock", "door-unlock", "drawer-open",
        "drawer-close", "window-open", "window-close", "faucet-open", "faucet-close",
        "button-press-wall", "handle-press", "handle-pull", "plate-slide", "coffee-button",
        "coffee-pull", "dial-turn", "reach-wall",
    )
)  # fmt: skip
"""Twenty whose scripted experts solve each of their 10 measured episodes. Their observations look
alike, so each shows its number."""
ONE_STEP = ActingConfig(window_steps=1)

BREADTH = RunConfig(
    name="breadth",
    about=(
        "20 Meta-World tasks, 4 robots, 3 games, a BabyAI level and questions about images from one"
        " model: an hour, on two cores."
    ),
    tasks=(*MANIPULATION, *ROBOTS, *GAMES, LEVEL, QUESTIONS),
    data=("easy-vqa",),
    model=replace(PRESETS["small"], num_layers=4, context_tokens=180),
    learner=LearnerConfig(
        num_updates=20_000, max_rate=1e-3, publish_every=500, checkpoint_every=1000, num_threads=1
    ),
    replay=ReplayConfig(
        capacity_bytes=8 << 30,
        limiter=LimiterConfig(
            warmup_tokens=300_000, reads_per_inserted_token=None, slack_tokens=480_000_000
        ),
        # A row holds two questions, or four steps of Meta-World.
        mix=MixConfig(
            rows=24,
            row_tokens=180,
            prompt_steps=1,
            # A teacher of many goals returns as much as they allow: a low return is no bad episode.
            min_expert_fraction=None,
            tasks={
                **dict.fromkeys(MANIPULATION, TaskMix(window_steps=1)),
                **dict.fromkeys((*ROBOTS, *GAMES), TaskMix(weight=2.0, window_steps=1)),
                **dict.fromkeys(SLOW, TaskMix(weight=4.0, window_steps=1)),
                LEVEL: TaskMix(weight=2.0),
                QUESTIONS: TaskMix(weight=6.0, window_steps=1),
            },
        ),
    ),
    actors=ActorsConfig(
        num_workers=1,
        evaluation_episodes=2,
        num_envs=2,
        evaluate_of=dict.fromkeys(MANIPULATION, ONE_STEP),
        generate_of=dict.fromkeys(
            MANIPULATION, replace(ONE_STEP, continuous="sample", discrete="sample")
        ),
        evaluate_every_s=600.0,
        evaluate_share=0.5,
        generate_share=0.0,
        # Clones of games, and of arms, get where their teachers never were.
        relabel_share=0.4,
        play_from=1500,
        demonstration_random_share=RANDOM_SHARE,
        first_demonstration_steps=2_000,
        demonstration_steps=10_000,
        demonstration_steps_of={
            **dict.fromkeys(ROBOTS, 40_000),
            **dict.fromkeys(GAMES, 16_000),
        },
        clip_every_s=1800.0,
    ),
)
