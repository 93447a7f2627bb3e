"""The share of a batch that one of several learner processes computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Every `size`-th row of a whole batch, from row `rank` on, and what the whole batch has."""

    rank: int
    size: int
    num_rows: int
    num_patches: int
    num_targets: int
    num_tokens: int
    """Tokens that are not padding."""

    @property
    def rows(self) -> slice:
        """The rows of this share among those of the whole batch."""
        return slice(self.rank, None, self.size)
