"""All settings of replay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from replay.rate_limiter import LimiterConfig
from replay.sampling.config import MixConfig
from replay.sampling.selector_names import selector_from_name
from replay.storage.durability import Durability


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """All settings of replay."""

    capacity_bytes: int
    """Stored bytes above which episodes are evicted."""
    limiter: LimiterConfig
    mix: MixConfig
    durability: Durability = "group"
    """When an episode is acknowledged. group: after a commit to disk that it shares with others.
    always: after a commit of its own. none: once the operating system has it; a power cut may then
    lose the whole store."""
    remover: str = "fifo"
    """Which episodes are evicted first, as `replay.sampling.selector_names.selector_from_name`
    reads it."""
    evict: Literal["agent", "all"] = "agent"
    """Which episodes may be evicted: only the agent's own, or all."""
    cache_bytes: int = 1 << 30
    """Memory for tokens and patches that were read lately. Raw windows, if they are asked for, take
    as much again."""
    num_shards: int = 1
    """Processes that replay is spread over, each with a store of its own; fixed when a run
    starts."""
    prefetch: int = 2
    """Batches that the learner asks for in advance; more while it has to wait for them."""
    max_episode_bytes: int = 1 << 30
    """Larger records are rejected."""

    def __post_init__(self) -> None:
        if self.capacity_bytes < 1 << 20:
            raise ValueError(
                f"capacity_bytes {self.capacity_bytes} is below one mebibyte; give replay room"
            )
        if self.cache_bytes < 1 << 20:
            raise ValueError(
                f"cache_bytes {self.cache_bytes} is below one mebibyte; give replay room"
            )
        if self.durability not in get_args(Durability):
            raise ValueError(
                f"durability {self.durability!r} must be one of {', '.join(get_args(Durability))}"
            )
        if self.evict not in ("agent", "all"):
            raise ValueError(f"evict {self.evict!r} must be 'agent' or 'all'")
        selector_from_name(self.remover)
        if not 1 <= self.num_shards <= 64:
            raise ValueError(f"num_shards {self.num_shards} must be 1 to 64")
        if self.prefetch < 1:
            raise ValueError(f"prefetch {self.prefetch} must be at least 1")
        if self.max_episode_bytes < 1 << 10:
            raise ValueError(
                f"max_episode_bytes {self.max_episode_bytes} is below one kibibyte; no episode"
                " would pass"
            )

    def of_one_shard(self) -> ReplayConfig:
        """The settings of one of `num_shards` shards: its part of all totals."""
        limiter = replace(
            self.limiter,
            warmup_tokens=-(-self.limiter.warmup_tokens // self.num_shards),
            slack_tokens=max(1, self.limiter.slack_tokens // self.num_shards),
        )
        least = 1 << 20
        return replace(
            self,
            limiter=limiter,
            capacity_bytes=max(least, self.capacity_bytes // self.num_shards),
            cache_bytes=max(least, self.cache_bytes // self.num_shards),
        )
