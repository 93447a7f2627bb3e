"""What a run will have to read, and a limiter that does not wait for more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from actors.config import ActorsConfig
from cluster.runs.config import RunConfig
from cluster.supervision.task_progress import wanted_steps
from replay.rate_limiter import LimiterConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Data and demonstrations, and whether anything is added to them."""

    steps: Mapping[str, int]
    """Of each task: stored, or still to be demonstrated."""
    more_at_once: bool
    """Whether others are added before the first update."""
    more: bool
    """Whether others are ever added."""


def supply_of(
    config: ActorsConfig,
    stored_steps: Mapping[str, int],
    *,
    teachable: Collection[str],
    has_data: Collection[str],
    recorded: Collection[str],
) -> Supply:
    """What there will be, of the demonstrations of each task that are stored; for the others see
    `Scheduler`."""
    playable = [task for task in stored_steps if task not in recorded]
    taught = [task for task in playable if task in teachable]
    teaches = config.demonstrate_share > 0.0 and bool(taught)
    plays = (config.generate_share > 0.0 and bool(playable)) or (
        config.relabel_share > 0.0 and bool(taught)
    )
    return Supply(
        steps={
            task: max(steps, wanted_steps(config, task, teachable, has_data))
            for task, steps in stored_steps.items()
        },
        more_at_once=teaches or (plays and not config.play_from),
        more=teaches or plays,
    )


def reachable(
    config: RunConfig, supply: Supply, *, coming_tokens: int, inserted_tokens: int
) -> tuple[LimiterConfig, list[str]]:
    """The limiter, so that neither the first nor the last update waits for tokens that never come,
    and what was changed.

    Args:
        coming_tokens: Of the supply's steps.
        inserted_tokens: What replay has taken so far.
    """
    limiter, notes = config.replay.limiter, list[str]()
    ratio, asked = limiter.reads_per_inserted_token, limiter.warmup_tokens
    if not supply.more_at_once and inserted_tokens < asked and 0 < coming_tokens < asked:
        begins = -(-coming_tokens // 2)
        # As much may be read before the agent plays as was.
        slack = limiter.slack_tokens + int((asked - begins) * (ratio or 0.0))
        limiter = replace(limiter, warmup_tokens=begins, slack_tokens=slack)
        notes.append(
            f"data and demonstrations are {coming_tokens:,} tokens, fewer than"
            f" replay.limiter.warmup_tokens, {asked:,}; the learner begins at {begins:,}"
        )
    mix = config.replay.mix
    wanted = config.learner.num_updates * mix.rows * mix.row_tokens
    there = max(coming_tokens, inserted_tokens)
    if ratio is not None and not supply.more and there:
        allowed = limiter.slack_tokens + ratio * there
        if wanted > allowed:
            notes.append(
                f"{config.learner.num_updates:,} updates read {wanted:,} tokens, the limiter lets"
                f" {allowed:,.0f} through, and nothing is added to {there:,} tokens of data and"
                f" demonstrations: replay.limiter.slack_tokens is {wanted:,} instead of"
                f" {limiter.slack_tokens:,}"
            )
            limiter = replace(limiter, slack_tokens=wanted)
    return limiter, notes
