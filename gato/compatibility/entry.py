"""What was seen of one entry of an array, and whether its tokens lose too much of it."""

from __future__ import annotations

from dataclasses import dataclass

MANY_VALUES = 64
"""Distinct values of an entry are counted up to here."""
SOME_VALUES = 16
NO_TOKENS = 2
"""The agent is blind to an entry of SOME_VALUES distinct values that fill no more tokens than
these."""
LEAST_SPREAD = 0.02
"""Unless its values differ by less than this share of the largest. The mu-law's bins are 2 % wide;
values within one may be a height or a cosine that has hardly moved yet, as in HumanoidStandup."""
FEW_TOKENS = 8
WIDE_SPREAD = 0.5
"""An entry of MANY_VALUES that differ by more than this share of the largest is also blind with
FEW_TOKENS. (Hopper's height of 1.13 to 1.25 has six, and a policy walks by them.)"""
CLIPPED_SHARE = 0.01
"""Share of values outside their bounds above which there is a warning."""
CLIPPED_SHARE_UNBOUNDED = 0.25
"""The same for values beyond the mu-law's +-256. Of the rare large values of Humanoid's contact
forces up to 20 % are clipped."""
LEAST_CLIPPED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCoverage:
    """What was seen of one element of an observation (or of a whole text), and what its tokens
    keep."""

    name: str
    """Such as `state[3]`."""
    num_values: int
    num_clipped: int
    """Values beyond the range of the tokens, which become the first or last token; for a text,
    texts that were cut."""
    least: float
    most: float
    """Smallest and largest value; for a text, the fewest and most tokens."""
    distinct_values: int
    """Counted up to `MANY_VALUES`."""
    distinct_tokens: int
    is_bounded: bool
    """Whether it is scaled by finite bounds, not companded."""

    @property
    def clipped_share(self) -> float:
        """0 to 1."""
        return self.num_clipped / self.num_values if self.num_values else 0.0

    @property
    def is_saturated(self) -> bool:
        """Whether so many values are clipped that the space should have other bounds. Constants
        lose nothing."""
        if self.distinct_values == 1:
            return False
        share = CLIPPED_SHARE if self.is_bounded else CLIPPED_SHARE_UNBOUNDED
        return self.num_clipped >= LEAST_CLIPPED and self.clipped_share > share

    @property
    def is_blind(self) -> bool:
        """Whether values that differ have the same tokens. Constants are not blind."""
        spread = self.most - self.least
        largest = max(abs(self.least), abs(self.most))
        if self.distinct_tokens <= NO_TOKENS:
            return self.distinct_values >= SOME_VALUES and spread > LEAST_SPREAD * largest
        return (
            self.distinct_tokens <= FEW_TOKENS
            and self.distinct_values >= MANY_VALUES
            and spread > WIDE_SPREAD * largest
        )
