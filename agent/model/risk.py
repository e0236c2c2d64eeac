"""What standing off the targets costs: the owner's aversion, volatilities and correlations; and what a plan saves of it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Measuring:
    """What volatilities are estimated from: returns of each `step_s` within `window_s` of recorded prices, of which each token needs
    `min_returns`, the newest price at most `max_age_s` old.
    """

    window_s: int
    step_s: int
    min_returns: int
    max_age_s: int


@dataclass(frozen=True, slots=True)
class TrackingRisk:
    """Prices a deviation d from the targets at ½·λ·V·dᵀΣd·H: V the portfolio's value, Σ the covariance a year, H the horizon in years.

    λ comes from `cost_bps`: what 1 % of tracking error is worth, bps of the portfolio a year, so that λ = 2 · cost_bps.
    `volatilities_bps` are annual, by token address; `correlations_bps` say each pair of tokens once. With `measuring` they are those
    that the owner told, and a step completes them from recorded prices: `measured` says from what, `unmeasured` why it could not.
    """

    cost_bps: Fraction
    horizon_s: int
    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    measuring: Measuring | None = None
    measured: str = ""
    unmeasured: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """Acts when a plan saves more risk than it costs, and goes as far as its last unit does."""

    risk: TrackingRisk


@dataclass(frozen=True, slots=True)
class Saving:
    """What a plan saves of the risk over the horizon, and what it costs, in numeraire base units.

    `skew` is below zero where pools pay more than the reference: that may make the exchange free, and never more. `approvals`
    is the gas of those that the plan still needs.
    """

    before: Fraction
    after: Fraction
    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    approvals: Fraction

    @property
    def saved(self) -> Fraction:
        """Risk that the plan takes away."""
        return self.before - self.after

    @property
    def cost(self) -> Fraction:
        """Everything that it is weighed against."""
        return max(self.fees + self.impact + self.skew, Fraction(0)) + self.gas + self.approvals

    @property
    def worth_it(self) -> bool:
        """Whether more is saved than paid."""
        return self.saved > self.cost
