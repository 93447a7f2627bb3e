"""How replay keeps, mixes and paces: the settings of this package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MIN_READS, MAX_READS = 1e-6, 1e6
"""Of an inserted token. Beyond, one side would in effect wait for ever for the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterConfig:
    """How far readers and writers may run ahead of each other, in tokens."""

    warmup_tokens: int
    """Nothing is read before this many tokens were inserted."""
    reads_per_inserted_token: float | None = None
    """How often each inserted token is to be read, on average. None: readers and writers are not coupled."""
    slack_tokens: int = 1_000_000
    """Read tokens by which either side may be ahead."""

    def __post_init__(self) -> None:
        # Written so that nan, which no comparison holds for, is refused too.
        if not (0 <= self.warmup_tokens < math.inf and 1 <= self.slack_tokens < math.inf):
            raise ValueError(
                f"warmup_tokens {self.warmup_tokens} must be at least 0, slack_tokens {self.slack_tokens} at least 1, "
                "both finite"
            )
        ratio = self.reads_per_inserted_token
        if ratio is not None and not MIN_READS <= ratio <= MAX_READS:
            raise ValueError(
                f"reads_per_inserted_token {ratio} must be above 0, from {MIN_READS:g} to {MAX_READS:g}; "
                "None uncouples readers and writers"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMix:
    """How one task is mixed in."""

    weight: float | None = None
    """Share of the rows, relative to the other tasks. None: the task's own weight."""
    window_steps: int | None = None
    """Steps of each packed window. None: one window a row, of as many whole steps as fit."""

    def __post_init__(self) -> None:
        if self.weight is not None and self.weight < 0:
            raise ValueError(f"weight {self.weight} must not be negative")
        if self.window_steps is not None and self.window_steps < 1:
            raise ValueError(f"window_steps {self.window_steps} must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """What batches are made of. The prompt's fractions are the paper's (section 2.3)."""

    rows: int
    row_tokens: int
    prompt_fraction: float = 0.25
    """Share of the rows whose windows follow a prompt from an episode of the same task and source."""
    prompt_episode: Literal["another", "any"] = "another"
    """another: never the window's own episode, unless its source has no other. any: each episode of the source alike.
    Of the window's own episode a prompt holds steps before the window, so it never overlaps what it prompts (ADR 8)."""
    prompt_end_fraction: float = 0.5
    """Share of the prompts taken from their episode's end; the others lie anywhere in it."""
    prompt_steps: int | None = None
    """Steps of a prompt. None: half of what fits in a row. The paper does not say how long a prompt is."""
    loss_on_prompt: bool = True
    return_fraction: float = 0.75
    """Of a return-conditioned model: share of the rows whose steps tell their return-to-go. The others do not, so that
    the model also plays without a wish."""
    tasks: Mapping[str, TaskMix] = field(default_factory=dict[str, TaskMix])
    min_agent_score: float | None = 0.8
    """The agent's own episodes are read only if their normalised return (0: random play, 1: the teacher's) reaches this.
    None: all are read."""
    min_demonstration_score: float | None = None
    """Likewise for teachers' and imported episodes."""
    min_expert_fraction: float | None = 0.8
    """The paper's filter: teachers' and imported episodes are read only if their return is at least this fraction of the
    task's expert return, the best windowed average of what is stored of it (`replay.filter`). Episodes with labels are read
    whatever they returned: the loss is on what the teacher wanted. None: no such filter."""

    def __post_init__(self) -> None:
        if self.prompt_steps is not None and self.prompt_steps < 1:
            raise ValueError(
                f"prompt_steps {self.prompt_steps} must be at least 1; for no prompts set prompt_fraction=0"
            )
        if self.rows < 1 or self.row_tokens < 2:
            raise ValueError(f"a batch of {self.rows} rows of {self.row_tokens} tokens is empty")
        if not 0.0 <= self.return_fraction <= 1.0:
            raise ValueError(f"return_fraction {self.return_fraction} must be in [0, 1]")
        if not (0.0 <= self.prompt_fraction <= 1.0 and 0.0 <= self.prompt_end_fraction <= 1.0):
            raise ValueError(
                f"prompt_fraction {self.prompt_fraction} and prompt_end_fraction {self.prompt_end_fraction} must be in [0, 1]"
            )
        if self.prompt_episode not in ("another", "any"):
            raise ValueError(f"prompt_episode {self.prompt_episode!r} must be 'another' or 'any'")
        if self.min_expert_fraction is not None and not 0.0 < self.min_expert_fraction <= 1.0:
            raise ValueError(f"min_expert_fraction {self.min_expert_fraction} must be in (0, 1]; None reads all")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """All settings of replay."""

    capacity_bytes: int
    """Stored bytes at which the agent's oldest episodes make room; demonstrations never do."""
    limiter: LimiterConfig
    mix: MixConfig

    def __post_init__(self) -> None:
        if self.capacity_bytes < 1 << 20:
            raise ValueError(f"capacity_bytes {self.capacity_bytes} is below one mebibyte; give replay room")
