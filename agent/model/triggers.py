"""Triggers: bands, schedules, market events, their combinations, and the no-trade zone with its
risk.

A new kind is a class here, a member of SingleTrigger, a case of `thresholds_of` and `schedules_of`,
and a row in agent/policy/triggers/.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from agent.model.weights import SignalSettings
from agent.units import BPS, exact_duration

# --- Risk of deviating from the targets, and the trade-off between risk and cost.


STRICTNESS_COST_BPS = {
    "relaxed": Fraction(3, 20),
    "normal": Fraction(1, 2),
    "strict": Fraction(3, 2),
}
"""Annual cost of 1 % of tracking error, bps of the portfolio: λ of 0.3, 1 and 3."""


@dataclass(frozen=True, slots=True)
class RiskEstimationWindow:
    """Sample for estimating volatilities: returns over `step_s` within the last `window_s` of
    recorded prices.

    Each token needs `min_returns` returns and a price not older than `max_age_s`.
    """

    window_s: int
    step_s: int
    min_returns: int
    max_age_s: int


@dataclass(frozen=True, slots=True)
class TokenWidth:
    """Deviations of a token's share from its target, in millionths of the portfolio: from beyond
    `trigger_ppm` it is brought back to `edge_ppm`.
    """

    token: str
    edge_ppm: int
    trigger_ppm: int


@dataclass(frozen=True, slots=True)
class PairWidth:
    """Deviations of the exchange of two tokens, half of what one has too much beside the other, in
    millionths of the portfolio: from beyond `trigger_ppm` it is brought back to `edge_ppm`.
    """

    first_token: str
    second_token: str
    edge_ppm: int
    trigger_ppm: int


@dataclass(frozen=True, slots=True)
class TrackingRisk:
    """Risk of a deviation d from the targets, priced at ½·λ·V·dᵀΣd·H; V is the portfolio's value, Σ
    the annual covariance, H the horizon in years.

    λ = 2 · `cost_bps`, the annual cost of 1 % of tracking error in bps of the portfolio.
    `volatilities_bps` are annual, by token address; `correlations_bps` has each pair of tokens
    once. In the config they are the owner's values; each step adds those measured from recorded
    prices, with `estimation_window`, and else usual ones of the token's class: `sample_text` says
    which, and why a token was not measured. Without `horizon_s` each token has the
    horizon of the tracking rule (agent/policy/triggers/tracking_rule.py), which a step adds:
    `widths`, `pair_widths` of those with a cheap pool of their own, and volatilities scaled to the
    horizons over a year. With `after_tax` the widths count the tax on the next unit sold.
    """

    cost_bps: Fraction
    horizon_s: int | None
    volatilities_bps: tuple[tuple[str, int], ...]
    correlations_bps: tuple[tuple[str, str, int], ...]
    estimation_window: RiskEstimationWindow | None = None
    sample_text: str = ""
    widths: tuple[TokenWidth, ...] = ()
    pair_widths: tuple[PairWidth, ...] = ()
    after_tax: bool = False

    @property
    def strictness(self) -> str | None:
        """Name of the cost of the tracking rule; None with a horizon, or for a cost without a name."""
        if self.horizon_s is not None:
            return None
        return next(
            (name for name, cost in STRICTNESS_COST_BPS.items() if cost == self.cost_bps), None
        )


@dataclass(frozen=True, slots=True)
class NoTradeZone:
    """Trigger that fires if a plan saves more risk than it costs, over a horizon of the owner or
    those of the tracking rule. The plan ends where the next unit would cost more than it saves.
    """

    risk: TrackingRisk

    def __repr__(self) -> str:
        """Return the call of agent.research that makes it, if there is one."""
        if self.risk == TrackingRisk(self.risk.cost_bps, None, (), ()) and self.risk.strictness:
            return f'tracking("{self.risk.strictness}")'
        return f"NoTradeZone(risk={self.risk!r})"


@dataclass(frozen=True, slots=True)
class RiskCostTradeoff:
    """Risk before and after a plan, over the horizon, and the plan's cost, in numeraire base units.

    `skew` is negative if pools pay more than the reference; it never makes the cost of the exchange
    negative. `approval_gas` is the gas of missing approvals, `tax` that on the gains of the
    plan's sales (zero without tax.rate).
    """

    risk_before: Fraction
    risk_after: Fraction
    fees: Fraction
    impact: Fraction
    skew: Fraction
    gas: Fraction
    approval_gas: Fraction
    tax: Fraction = Fraction(0)

    @property
    def saved_risk(self) -> Fraction:
        """Risk that the plan removes."""
        return self.risk_before - self.risk_after

    @property
    def cost(self) -> Fraction:
        """Cost of the plan, with gas, approvals and tax."""
        exchange_cost = max(self.fees + self.impact + self.skew, Fraction(0))
        return exchange_cost + self.gas + self.approval_gas + self.tax

    @property
    def covers_cost(self) -> bool:
        """True if the plan saves more than it costs."""
        return self.saved_risk > self.cost


# --- Triggers, with their bands and schedules.


@dataclass(frozen=True, slots=True)
class Threshold:
    """Trigger that fires when a weight is strictly further from its target than the band.

    `absolute_bps` is in bps of the portfolio, `relative_bps` in bps of the target; with both the
    narrower band counts.
    """

    absolute_bps: int | None
    relative_bps: int | None

    def __repr__(self) -> str:
        """Return the call of agent.research that makes it."""
        shares = [] if self.relative_bps is None else [f"{self.relative_bps / BPS}"]
        if self.absolute_bps is not None:
            shares.append(f"absolute={self.absolute_bps / BPS}")
        return f"band({', '.join(shares)})"


@dataclass(frozen=True, slots=True)
class Every:
    """Schedule that is due once `every_s` seconds (1,800 to 2,419,200) have passed since the last
    rebalance or review. As a trigger it fires when due.
    """

    every_s: int

    def __repr__(self) -> str:
        """Return the call of agent.research that makes it."""
        return f'every("{exact_duration(self.every_s)}")'


@dataclass(frozen=True, slots=True)
class Cron:
    """Schedule that is due once a five-field cron time in `timezone` has passed since the last
    rebalance or review. As a trigger it fires when due.
    """

    expression: str
    timezone: str

    def __repr__(self) -> str:
        """Return the call of agent.research that makes it."""
        zone_text = "" if self.timezone == "UTC" else f', timezone="{self.timezone}"'
        return f'cron("{self.expression}"{zone_text})'


Schedule = Every | Cron


@dataclass(frozen=True, slots=True)
class HybridTrigger:
    """Trigger that fires at a review on `schedule` if `threshold` is exceeded then."""

    threshold: Threshold
    schedule: Schedule

    def __repr__(self) -> str:
        """Return the call of agent.research that makes it, if there is one."""
        if isinstance(self.schedule, Every):
            return f"{repr(self.schedule)[:-1]}, {self.threshold!r})"
        return f"HybridTrigger(threshold={self.threshold!r}, schedule={self.schedule!r})"


@dataclass(frozen=True, slots=True)
class StagedTrigger:
    """Trigger that only reports at a `review` and fires at an `execution`; with a `threshold` only
    if it is exceeded then.
    """

    review: Schedule
    execution: Schedule
    threshold: Threshold | None = None


@dataclass(frozen=True, slots=True)
class Drawdown:
    """Trigger that fires when the price of a token is strictly more than `fall_bps` below its
    highest price of the last `within_s` seconds. `tokens` are the watched addresses (empty: every
    asset).
    """

    fall_bps: int
    within_s: int
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolatilityJump:
    """Trigger that fires when the volatility of the last `short_s` seconds is strictly more than
    `factor_bps` of the volatility of the `long_s` seconds before.

    `tokens` as in Drawdown.
    """

    short_s: int
    long_s: int
    factor_bps: int
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AnsweredTrigger:
    """Trigger that fires if a function of the owner, which gets the prices of the last `window_s`
    seconds, one in each `step_s`, says that a rebalance is due. The answer is `is_due`, or that of
    `signal`, which runs in a process of its own (LayerState.trigger_answer).
    """

    window_s: int
    is_due: bool = False
    step_s: int = 3_600
    signal: SignalSettings | None = None


SingleTrigger = (
    Threshold
    | Every
    | Cron
    | HybridTrigger
    | StagedTrigger
    | Drawdown
    | VolatilityJump
    | AnsweredTrigger
)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Trigger that fires if any of several triggers fires, each with its band and schedule."""

    triggers: tuple[SingleTrigger, ...]


Trigger = SingleTrigger | AnyOf | NoTradeZone


def is_tracking(trigger: Trigger | None) -> bool:
    """Return whether a trigger is the tracking rule: a zone without a horizon of the owner's."""
    if not isinstance(trigger, NoTradeZone):
        return False
    return trigger.risk.horizon_s is None or bool(trigger.risk.widths)


def thresholds_of(trigger: Trigger) -> tuple[Threshold, ...]:
    """Return the bands of a trigger."""
    match trigger:
        case Threshold():
            return (trigger,)
        case HybridTrigger(threshold) | StagedTrigger(_, _, threshold):
            return () if threshold is None else (threshold,)
        case AnyOf(triggers):
            return tuple(
                band for member_trigger in triggers for band in thresholds_of(member_trigger)
            )
        case Every() | Cron() | Drawdown() | VolatilityJump() | AnsweredTrigger() | NoTradeZone():
            return ()
        case _:
            assert_never(trigger)


def schedules_of(trigger: Trigger) -> tuple[Schedule, ...]:
    """Return the schedules of a trigger, a review schedule before its execution schedule."""
    match trigger:
        case Every() | Cron():
            return (trigger,)
        case HybridTrigger(_, schedule):
            return (schedule,)
        case StagedTrigger(review, execution):
            return (review, execution)
        case AnyOf(triggers):
            return tuple(
                schedule for member_trigger in triggers for schedule in schedules_of(member_trigger)
            )
        case Threshold() | Drawdown() | VolatilityJump() | AnsweredTrigger() | NoTradeZone():
            return ()
        case _:
            assert_never(trigger)


def action_interval_s(trigger: Trigger) -> int | None:
    """Return the interval, in seconds, at which a trigger may act; None without a single one: for a
    cron schedule, for several triggers, and for one that may act in every cycle.
    """
    schedules = () if isinstance(trigger, AnyOf) else schedules_of(trigger)
    match schedules[-1:]:
        case (Every(every_s),):
            return every_s
        case _:
            return None
