"""The share of a batch that one of several learner processes computes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Every `size`-th row of a whole batch, from row `rank` on, or some of these rows; and what the
    whole batch has."""

    rank: int
    size: int
    num_rows: int
    num_patches: int
    num_targets: int
    num_tokens: int
    """Tokens that are not padding."""
    begin: int = 0
    """The first of the rank's rows that it has."""
    end: int | None = None
    """The one after the last. None: all from `begin` on."""

    @property
    def rows(self) -> slice:
        """The rows of this share among those of the whole batch."""
        end = None if self.end is None else self.rank + self.size * self.end
        return slice(self.rank + self.size * self.begin, end, self.size)

    @property
    def most_rows(self) -> int:
        """Of any rank."""
        return -(-self.num_rows // self.size)
