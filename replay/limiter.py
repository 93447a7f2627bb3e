"""The limiter: whether writers may insert and readers may read, as arithmetic on token counts. It never waits itself."""

from __future__ import annotations

from replay.config import LimiterConfig


class Limiter:
    """Holds reads to `reads_per_inserted_token` times the inserted tokens, give or take the slack.

    limiter = Limiter(LimiterConfig(warmup_tokens=10, reads_per_inserted_token=4.0, slack_tokens=100))
    limiter.inserted(10); limiter.may_read()   # True
    """

    def __init__(self, config: LimiterConfig, *, inserted_tokens: int = 0, read_tokens: int = 0) -> None:
        self.config = config
        self.inserted_tokens = inserted_tokens
        self.read_tokens = read_tokens

    @property
    def owed_tokens(self) -> float:
        """Tokens that readers are behind by; negative where they are ahead."""
        if self.config.reads_per_inserted_token is None:
            return 0.0
        return self.inserted_tokens * self.config.reads_per_inserted_token - self.read_tokens

    def may_insert(self) -> bool:
        return self.inserted_tokens < self.config.warmup_tokens or self.owed_tokens <= self.config.slack_tokens

    def may_read(self) -> bool:
        return (
            self.inserted_tokens >= max(1, self.config.warmup_tokens) and self.owed_tokens >= -self.config.slack_tokens
        )

    def inserted(self, tokens: int) -> None:
        self.inserted_tokens += tokens

    def read(self, tokens: int) -> None:
        self.read_tokens += tokens
