"""The rate limiter: whether writers may insert and readers may read, as arithmetic on token counts.
It never waits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MIN_READS, MAX_READS = 1e-6, 1e6
"""Bounds of the ratio. Beyond them one side would in effect wait permanently for the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterConfig:
    """How far readers and writers may run ahead of each other, in tokens."""

    warmup_tokens: int
    """Nothing is read before this many tokens were inserted."""
    reads_per_inserted_token: float | None = None
    """How often each inserted token is to be read, on average. None: readers and writers are not
    coupled."""
    slack_tokens: int = 1_000_000
    """Read tokens by which either side may be ahead."""

    def __post_init__(self) -> None:
        # Written so that NaN, for which every comparison is false, is rejected too.
        if not (0 <= self.warmup_tokens < math.inf and 1 <= self.slack_tokens < math.inf):
            raise ValueError(
                f"warmup_tokens {self.warmup_tokens} must be at least 0, slack_tokens"
                f" {self.slack_tokens} at least 1, both finite"
            )
        ratio = self.reads_per_inserted_token
        if ratio is not None and not MIN_READS <= ratio <= MAX_READS:
            raise ValueError(
                f"reads_per_inserted_token {ratio} must be above 0, from {MIN_READS:g} to"
                f" {MAX_READS:g}; None uncouples readers and writers"
            )


class Limiter:
    """Holds reads to `reads_per_inserted_token` times the inserted tokens, give or take the slack.

    limiter = Limiter(LimiterConfig(warmup_tokens=10, reads_per_inserted_token=4.0,
    slack_tokens=100))
    limiter.inserted(10); limiter.may_read()   # True

    The ratio applies to tokens after a base. With B the tokens that readers owed there, and i and r
    those inserted and read since,

        owed = B + i * reads_per_inserted_token - r

    A new limiter's base is all zeros. One of the two sides can always move. During the warm-up
    writers can. After it, because the slack is above 0, `owed` is at most the slack (writers can)
    or at least minus the slack (readers can).
    """

    def __init__(
        self, config: LimiterConfig, *, inserted_tokens: int = 0, read_tokens: int = 0
    ) -> None:
        self.config = config
        self.inserted_tokens = inserted_tokens
        self.read_tokens = read_tokens
        self._base_inserted_tokens = 0
        self._base_read_tokens = 0
        self._base_owed_tokens = 0.0
        self._paused = False

    @property
    def owed_tokens(self) -> float:
        """Tokens by which readers are behind; negative if they are ahead."""
        ratio = self.config.reads_per_inserted_token
        if ratio is None:
            return 0.0
        since_inserted_tokens = self.inserted_tokens - self._base_inserted_tokens
        return (
            self._base_owed_tokens
            + since_inserted_tokens * ratio
            - (self.read_tokens - self._base_read_tokens)
        )

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def _needed_tokens(self) -> int:
        """Inserted tokens before which nothing is read: the warm-up, or a single one during a
        pause."""
        return 1 if self._paused else max(1, self.config.warmup_tokens)

    def may_insert(self) -> bool:
        return (
            self._paused
            or self.inserted_tokens < self._needed_tokens
            or self.owed_tokens <= self.config.slack_tokens
        )

    def may_read(self) -> bool:
        return self.inserted_tokens >= self._needed_tokens and (
            self._paused or self.owed_tokens >= -self.config.slack_tokens
        )

    def inserted(self, tokens: int) -> None:
        self.inserted_tokens += tokens
        if self._paused:
            self._base_inserted_tokens += tokens

    def read(self, tokens: int) -> None:
        self.read_tokens += tokens
        if self._paused:
            self._base_read_tokens += tokens

    def reconfigure(self, config: LimiterConfig) -> None:
        """Use other settings from now on. Equal settings change nothing.

        The warm-up counts all tokens ever inserted, so a larger one may begin it again.
        """
        if config == self.config:
            return
        # The base moves here. B is what readers owe under the old settings, within the new slack,
        # so that neither side is punished for what the old settings let it do.
        slack_tokens = float(config.slack_tokens)
        self._base_owed_tokens = min(max(self.owed_tokens, -slack_tokens), slack_tokens)
        self._base_inserted_tokens, self._base_read_tokens = self.inserted_tokens, self.read_tokens
        self.config = config

    def pause(self) -> None:
        """Let both sides go on freely, as for an offline fill. Readers need one inserted token and
        no warm-up. Tokens count in the totals, and so for the warm-up, but move the base along:
        `owed` does not change."""
        self._paused = True

    def resume(self) -> None:
        """End a pause."""
        self._paused = False

    def why(self) -> str:
        """Who is held back, and by how many tokens."""
        if self.inserted_tokens < self._needed_tokens:
            if self._paused or self.config.warmup_tokens <= 1:
                return "readers wait for the first inserted token"
            return (
                f"readers wait: {self.inserted_tokens:,} of {self._needed_tokens:,} tokens of the"
                " warm-up are in"
            )
        if not self.may_read():
            short_tokens = -self.config.slack_tokens - self.owed_tokens
            more_tokens = math.ceil(short_tokens / (self.config.reads_per_inserted_token or 1.0))
            return f"readers wait for {more_tokens:,} more inserted tokens"
        if not self.may_insert():
            more_tokens = math.ceil(self.owed_tokens - self.config.slack_tokens)
            return f"writers are held back until {more_tokens:,} tokens were read"
        return "nobody waits, the limiter is paused" if self._paused else "nobody waits"

    def state(self) -> dict[str, int | float]:
        """What `load` needs, as plain numbers, with the settings that they were counted under (a
        ratio of 0: none)."""
        return {
            "inserted_tokens": self.inserted_tokens,
            "read_tokens": self.read_tokens,
            "base_inserted_tokens": self._base_inserted_tokens,
            "base_read_tokens": self._base_read_tokens,
            "base_owed_tokens": self._base_owed_tokens,
            "paused": int(self._paused),
            "warmup_tokens": self.config.warmup_tokens,
            "reads_per_inserted_token": self.config.reads_per_inserted_token or 0.0,
            "slack_tokens": self.config.slack_tokens,
        }

    @staticmethod
    def load(config: LimiterConfig, state: Mapping[str, int | float]) -> Limiter:
        """The limiter that returned `state`, reconfigured to `config`: a restart obeys its own
        settings, not the saved ones.

        Raises:
            ValueError: if `state` lacks a number.
        """
        missing = sorted(Limiter(config).state().keys() - state.keys())
        if missing:
            raise ValueError(
                f"a limiter's state lacks {', '.join(missing)}; start from its counts of tokens"
                " instead"
            )
        saved = LimiterConfig(
            warmup_tokens=int(state["warmup_tokens"]),
            reads_per_inserted_token=state["reads_per_inserted_token"] or None,
            slack_tokens=int(state["slack_tokens"]),
        )
        limiter = Limiter(
            saved,
            inserted_tokens=int(state["inserted_tokens"]),
            read_tokens=int(state["read_tokens"]),
        )
        limiter._base_inserted_tokens = int(state["base_inserted_tokens"])
        limiter._base_read_tokens = int(state["base_read_tokens"])
        limiter._base_owed_tokens = float(state["base_owed_tokens"])
        limiter._paused = bool(state["paused"])
        limiter.reconfigure(config)
        return limiter
