"""How much the context benchmark does, and the config of its trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cluster.runs.config import RunConfig
from cluster.runs.presets import RUNS
from gato.sequence import StepLayout
from gato.task import Task
from replay.sampling.config import TaskMix


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done."""

    name: str
    """Of its files."""
    seeds: tuple[int, ...]
    updates: int
    batch_tokens: int
    demonstrations: int
    """Episodes of each robot."""
    few: tuple[int, ...]
    """Episodes of the task that was held out."""
    tuning_updates: int
    opposites_updates: int
    episodes: int


LONG = Size(
    name="context",
    seeds=(0, 1, 2),
    updates=1500,
    batch_tokens=5760,
    demonstrations=60,
    few=(5, 25),
    tuning_updates=300,
    opposites_updates=400,
    episodes=10,
)
SIZES: Mapping[str, Size] = {
    "long": LONG,
    "small": replace(LONG, name="context-small", seeds=(0,)),
    "short": Size(
        name="context-short",
        seeds=(0,),
        updates=20,
        batch_tokens=1920,
        demonstrations=2,
        few=(2,),
        tuning_updates=10,
        opposites_updates=120,
        episodes=4,
    ),
}


def config_of(
    tasks: Mapping[str, Task],
    *,
    window_steps: int,
    prompt_steps: int = 0,
    with_returns: bool = False,
    size: Size,
    updates: int,
    seed: int,
    model: str = "demo",
) -> RunConfig:
    """A small run on these tasks whose rows hold one window of each, with its prompt."""
    base = RUNS[model]
    shape = replace(base.model, return_conditioned=with_returns)
    longest = max(StepLayout(task, shape.layout).tokens_per_step for task in tasks.values())
    row_tokens = longest * (window_steps + prompt_steps)
    mix = replace(
        base.replay.mix,
        rows=max(4, size.batch_tokens // row_tokens),
        row_tokens=row_tokens,
        prompt_fraction=0.5 if prompt_steps else 0.0,
        prompt_steps=prompt_steps or None,
        tasks={name: TaskMix(window_steps=window_steps) for name in tasks},
    )
    limiter = replace(base.replay.limiter, warmup_tokens=1, reads_per_inserted_token=None)
    return replace(
        base,
        tasks=tuple(tasks),
        seed=seed,
        model=replace(shape, context_tokens=row_tokens),
        learner=replace(
            base.learner, num_updates=updates, checkpoint_every=max(10, updates // 5), bf16=False,
            num_threads=1, max_rate=2e-3,
        ),
        replay=replace(base.replay, mix=mix, limiter=limiter),
        actors=replace(
            base.actors, evaluate_of={}, generate_of={}, teacher_of={}, demonstration_steps_of={}
        ),
    )  # fmt: skip
