"""Triggers: bands, schedules, market events, combinations of them, and the no-trade zone with its
risk.

A new kind is a class here, a member of SingleTrigger, and a row in agent/policy/triggers/.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

# --- Risk of deviating from the targets: risk aversion, volatilities, correlations; and a plan's
# saving of it.


@dataclass(frozen=True, slots=True)
class RiskEstimationWindow:
    """Sample for estimating volatilities: returns of each `step_s` within `window_s` of recorded
    prices.

    Each token needs `min_returns`, and its newest price may be `max_age_s` old.
    """

    window_s: int
    step_s: int
    min_returns: int
    max_age_s: int


@dataclass(frozen=True, slots=True)
class TrackingRisk:
    """Prices a deviation d from the targets at ½·λ·V·dᵀΣd·H: V the portfolio's value, Σ the annual
    covariance, H the horizon in years.

    λ = 2 · `cost_bps`, the annual cost of 1 % of tracking error in bps of the portfolio.
    `volatilities_bps` are annual, by token address; `correlations_bps` has each pair of tokens
    once. With `measuring` both hold only the owner's values, and a step completes them from
    recorded prices: `measured` describes the sample, `unmeasured` why there is none.
    """

    cost_bps: Fraction
    horizon_s: int
    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    measuring: RiskEstimationWindow | None = None
    measured: str = ""
    unmeasured: str = ""


@dataclass(frozen=True, slots=True)
class NoTradeZone:
    """Fires when a plan saves more risk than it costs; the plan goes as far as its last unit
    pays.
    """

    risk: TrackingRisk


@dataclass(frozen=True, slots=True)
class RiskCostTradeoff:
    """Risk that a plan removes over the horizon, and its cost, in numeraire base units.

    `skew` is negative if pools pay more than the reference; it can at most make the exchange free.
    `approvals` is the gas of the approvals that the plan still needs.
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
        """True if the plan saves more than it costs."""
        return self.saved > self.cost


# --- Triggers, and the bands and schedules that they consist of.


@dataclass(frozen=True, slots=True)
class Threshold:
    """Acts when a weight is strictly further from target than the band.

    `absolute_bps` in percentage points of the portfolio, `relative_bps` in bps of the target; with
    both the narrower band counts.
    """

    absolute_bps: int | None
    relative_bps: int | None


@dataclass(frozen=True, slots=True)
class Every:
    """Acts when `every_s` seconds have passed since the last rebalance or review (1,800 to
    2,419,200).
    """

    every_s: int


@dataclass(frozen=True, slots=True)
class Cron:
    """Acts when a five-field cron time in `timezone` has passed since the last review."""

    expression: str
    timezone: str


Schedule = Every | Cron


@dataclass(frozen=True, slots=True)
class HybridTrigger:
    """Reviews on `schedule`, acts only if `threshold` is exceeded then."""

    threshold: Threshold
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class StagedTrigger:
    """Reviews on `review` and reports its result; acts on `execution` alone, with a `threshold`
    only beyond its band.
    """

    review: Schedule
    execution: Schedule
    threshold: Threshold | None = None


@dataclass(frozen=True, slots=True)
class Drawdown:
    """Acts when the price of a token is strictly more than `fall_bps` below its highest of the last
    `within_s` seconds.

    `tokens` are the addresses that count; none named: every asset but the numeraire.
    """

    fall_bps: int
    within_s: int
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolatilityJump:
    """Acts when the volatility of the last `short_s` seconds is strictly more than `factor_bps` of
    that of the `long_s` before them.

    `tokens` as in Drawdown.
    """

    short_s: int
    long_s: int
    factor_bps: int
    tokens: tuple[str, ...] = ()


SingleTrigger = Threshold | Every | Cron | HybridTrigger | StagedTrigger | Drawdown | VolatilityJump


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Fires when any of several triggers does, each with its own band and schedule."""

    triggers: tuple[SingleTrigger, ...]


Trigger = SingleTrigger | AnyOf | NoTradeZone


def thresholds_of(trigger: Trigger) -> tuple[Threshold, ...]:
    """Return the bands that a trigger judges weights by."""
    match trigger:
        case Threshold():
            return (trigger,)
        case HybridTrigger(threshold) | StagedTrigger(_, _, threshold):
            return () if threshold is None else (threshold,)
        case AnyOf(triggers):
            return tuple(threshold for one in triggers for threshold in thresholds_of(one))
        case _:
            return ()


def schedules_of(trigger: Trigger) -> tuple[Schedule, ...]:
    """Return the schedules of a trigger; that of a review comes before that of its execution."""
    match trigger:
        case Every() | Cron():
            return (trigger,)
        case HybridTrigger(_, schedule):
            return (schedule,)
        case StagedTrigger(review, execution):
            return (review, execution)
        case AnyOf(triggers):
            return tuple(schedule for one in triggers for schedule in schedules_of(one))
        case _:
            return ()


def review_interval_s(trigger: Trigger) -> int | None:
    """Return the seconds between two times that a trigger may act; None for a calendar, or if every
    cycle may act.
    """
    timed = () if isinstance(trigger, AnyOf) else schedules_of(trigger)
    return next((one.every_s for one in timed[-1:] if isinstance(one, Every)), None)
