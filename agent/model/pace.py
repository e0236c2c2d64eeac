"""How a correction is spread over time: what the owner allows, and what each number of rounds would cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction


class Style(Enum):
    """At once; in rounds where they are cheaper; over a stated time; or only at a price that is good enough."""

    MARKET = "market"
    ROUNDS = "rounds"
    TWAP = "twap"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Pace:
    """What [execution] says of time. Shares in bps.

    ROUNDS: up to `max_rounds`, `interval_s` apart on average, while pools go half of the way back to where they were within
    `recovery_s`. TWAP: `max_rounds` over `over_s`. Sizes differ by up to `size_jitter_bps` of a fair share, times by up to
    `time_jitter_bps` of the mean. `budget_bps` of what is moved may be lost against the prices at the start (None: off).
    `waiting_bps_hour` is what an hour's wait costs of what is still to be moved; None takes the zone's risk.
    LIMIT: no more than `limit_bps` worse than the prices at the start, or so much better where it is below zero, within
    `patience_s`.
    """

    style: Style = Style.MARKET
    max_rounds: int = 1
    interval_s: int = 0
    over_s: int = 0
    recovery_s: int = 0
    size_jitter_bps: int = 0
    time_jitter_bps: int = 0
    budget_bps: int | None = None
    waiting_bps_hour: Fraction | None = None
    limit_bps: int = 0
    patience_s: int = 0


@dataclass(frozen=True, slots=True)
class RoundsCost:
    """What it costs to do a correction in so many equal rounds, numeraire base units at the reference prices of now.

    `gas` includes that of approvals. `waiting` prices what is moved later, `rest` what is not moved at all. `moved` is the
    turnover of all rounds together.
    """

    rounds: int
    moved: Fraction
    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    waiting: Fraction
    rest: Fraction

    @property
    def total(self) -> Fraction:
        """Everything that is compared."""
        return self.fees + self.impact + self.skew + self.gas + self.waiting + self.rest


@dataclass(frozen=True, slots=True)
class Pacing:
    """The comparison of one round with several: each in `options`, fewest first, the one that is `chosen`, and `why`."""

    options: tuple[RoundsCost, ...]
    chosen: int
    why: str
