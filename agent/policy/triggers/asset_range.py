"""The range of an asset in words: whether it has one of its own, and what its weight is to it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.units import BPS

AT_THESE_WEIGHTS = "at these weights of the others"


@dataclass(frozen=True, slots=True)
class AssetRange:
    """Weight and target of an asset, and the edges of its band or range, all in bps of the
    portfolio. The range of the tracking rule is judged with the other assets where they are.
    """

    weight_bps: Fraction | int
    target_bps: int
    low_bps: Fraction | int
    high_bps: Fraction | int

    @property
    def is_outside(self) -> bool:
        """True if the weight is beyond an edge."""
        return not self.low_bps <= self.weight_bps <= self.high_bps

    @property
    def others_text(self) -> str:
        """What the others have too much or too little of, if they bring the asset beyond a range
        beside its target: its own weight is on the other side of the target, or as near to it as
        half the range is wide. The plan may then trade them instead, or the asset towards its
        target. Empty otherwise.
        """
        half_width_bps = Fraction(self.high_bps - self.low_bps) / 2
        excess_bps = self.weight_bps - self.target_bps
        if min(self.weight_bps, self.target_bps) > self.high_bps and excess_bps <= half_width_bps:
            return "the others have too much that moves with it"
        if max(self.weight_bps, self.target_bps) < self.low_bps and -excess_bps <= half_width_bps:
            return "the others have too little that moves with it"
        return ""

    @property
    def is_own(self) -> bool:
        """False without width, from 0 to 100 %, within the range of a target of 0 %, and if only the
        others bring the asset beyond it.
        """
        if self.low_bps >= self.high_bps or (self.low_bps <= 0 and self.high_bps >= BPS):
            return False
        return not self.others_text and (self.target_bps > 0 or self.is_outside)

    @property
    def condition_text(self) -> str:
        """What a range beside its target depends on, after the range; empty for one around it."""
        is_around = self.low_bps <= self.target_bps <= self.high_bps
        return "" if is_around else f" {AT_THESE_WEIGHTS}"

    def beyond_text(self, range_text: str) -> str:
        """Say, after an asset's weight and target, why it is beyond its range."""
        if self.others_text:
            return f": {self.others_text}"
        if self.low_bps == self.high_bps:
            return f", has no range {AT_THESE_WEIGHTS}"
        return f", is beyond {range_text}{self.condition_text}"
