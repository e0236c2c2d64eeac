"""Simulated markets for bench_tracking.py: prices, a planner of its own, and rules for when and how
far to trade. Nothing of the product is used here.

Everything is a share of the portfolio, time is in years. The last asset is the cash. A leg sells
`source` for `target` (a negative amount the other way), for a proportional cost, gas and an impact
that grows with the square of its amount.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
HOURS_PER_YEAR = 8_760
BPS = 10_000
SMALLEST_LEG = 1e-9
TARGET = 0
EDGE = 1
HALFWAY = 2
"""Destinations of bands."""


class Legs(NamedTuple):
    """The pools: each leg's tokens, cost a unit, gas, and impact a unit squared."""

    source: Indices
    target: Indices
    unit_cost: Floats
    gas: Floats
    impact: Floats


class Market(NamedTuple):
    """Simple returns (bars × assets), annual covariance, years a bar."""

    returns: Floats
    covariance: Floats
    bar_years: float

    @property
    def years(self) -> float:
        """Length of the history."""
        return len(self.returns) * self.bar_years


@dataclass(frozen=True)
class Outcome:
    """What a rule did: costs, model variance and realised variance of the tracking error, all a
    year, and trades a year.
    """

    cost: float
    variance: float
    realised_variance: float
    trades: float

    def loss_bps(self, risk_aversion: float, *, is_realised: bool = False) -> float:
        """Return costs and ½·λ·TE², bps of the portfolio a year."""
        variance = self.realised_variance if is_realised else self.variance
        return (self.cost + risk_aversion * variance / 2) * BPS


def cash_legs(unit_cost: list[float], gas: float = 0.0, impact: float = 0.0) -> Legs:
    """Return a leg of each token against the cash, costs in bps."""
    count = len(unit_cost)
    return Legs(
        np.arange(count),
        np.full(count, count),
        np.array(unit_cost) / BPS,
        np.full(count, gas),
        np.full(count, impact),
    )


def gaussian_market(
    volatilities: list[float],
    correlation: Floats,
    years: int,
    seed: int,
    drift: list[float] | None = None,
) -> Market:
    """Return hourly returns of correlated geometric Brownian motions, and a cash that rests. `drift`
    is annual.
    """
    bar_years = 1 / HOURS_PER_YEAR
    spread = np.array(volatilities)
    covariance = correlation * np.outer(spread, spread)
    noise = np.random.default_rng(seed).standard_normal((years * HOURS_PER_YEAR, len(spread)))
    logs = noise @ np.linalg.cholesky(covariance).T * bar_years**0.5
    logs -= np.diag(covariance) * bar_years / 2
    returns = np.expm1(logs)
    if drift is not None:
        returns += np.array(drift) * bar_years
    return market_of(returns, covariance, bar_years)


def market_of(returns: Floats, covariance: Floats, bar_years: float) -> Market:
    """Return a market of these tokens and a cash that rests."""
    count = returns.shape[1]
    full = np.zeros((count + 1, count + 1))
    full[:count, :count] = covariance
    return Market(np.column_stack([returns, np.zeros(len(returns))]), full, bar_years)


@njit(cache=True)
def solve_legs(deviation, risk, legs, is_active, amounts):  # type: ignore[no-untyped-def]
    """Minimise ½·yᵀQy + Σ c|x| + Σ κx² over the amounts x of active legs, with y the deviation
    after them, by coordinate descent. `amounts` is start and result. Returns the change of the
    objective.
    """
    size = deviation.size
    after = deviation.copy()
    for leg in range(legs.source.size):
        if not is_active[leg]:
            amounts[leg] = 0.0
        after[legs.source[leg]] -= amounts[leg]
        after[legs.target[leg]] += amounts[leg]
    for _ in range(400):
        largest_move = 0.0
        for leg in range(legs.source.size):
            if not is_active[leg]:
                continue
            i = legs.source[leg]
            j = legs.target[leg]
            slope = 0.0
            for k in range(size):
                slope += (risk[i, k] - risk[j, k]) * after[k]
            curvature = risk[i, i] + risk[j, j] - 2 * risk[i, j] + 1e-18
            pull = curvature * amounts[leg] + slope
            amount = 0.0
            if pull > legs.unit_cost[leg]:
                amount = (pull - legs.unit_cost[leg]) / (curvature + 2 * legs.impact[leg])
            elif pull < -legs.unit_cost[leg]:
                amount = (pull + legs.unit_cost[leg]) / (curvature + 2 * legs.impact[leg])
            move = amount - amounts[leg]
            if move != 0.0:
                amounts[leg] = amount
                after[i] -= move
                after[j] += move
                largest_move = max(largest_move, abs(move))
        if largest_move < 1e-9:
            break
    change = 0.0
    for i in range(size):
        for k in range(size):
            change += risk[i, k] * (after[i] * after[k] - deviation[i] * deviation[k]) / 2
    for leg in range(legs.source.size):
        change += legs.unit_cost[leg] * abs(amounts[leg]) + legs.impact[leg] * amounts[leg] ** 2
    return change


@njit(cache=True)
def plan_legs(deviation, risk, legs, amounts):  # type: ignore[no-untyped-def]
    """Return whether a plan saves more than it costs, with its amounts: legs whose gas does not pay
    are dropped, the worst first.
    """
    count = legs.source.size
    pays = False
    for leg in range(count):
        slope = 0.0
        for k in range(deviation.size):
            slope += (risk[legs.source[leg], k] - risk[legs.target[leg], k]) * deviation[k]
        if abs(slope) > legs.unit_cost[leg]:
            pays = True
    for leg in range(count):
        amounts[leg] = 0.0
    if not pays:
        return False
    is_active = np.ones(count, dtype=np.bool_)
    change = solve_legs(deviation, risk, legs, is_active, amounts)
    for leg in range(count):
        is_active[leg] = abs(amounts[leg]) > SMALLEST_LEG
        if is_active[leg]:
            change += legs.gas[leg]
    trial = amounts.copy()
    fewer = is_active.copy()
    while True:
        best = change
        dropped = -1
        for leg in range(count):
            if not is_active[leg] or legs.gas[leg] <= 0:
                continue
            fewer[:] = is_active
            trial[:] = amounts
            fewer[leg] = False
            without = solve_legs(deviation, risk, legs, fewer, trial)
            for other in range(count):
                if fewer[other]:
                    without += legs.gas[other]
            if without < best - 1e-15:
                best = without
                dropped = leg
        if dropped < 0:
            break
        is_active[dropped] = False
        solve_legs(deviation, risk, legs, is_active, amounts)
        change = best
    return change < 0


@njit(cache=True)
def is_beyond(deviation, risk, triggers):  # type: ignore[no-untyped-def]
    """Return whether a token's deviation, with what the others add to it, is beyond its trigger."""
    cash = deviation.size - 1
    for token in range(cash):
        slope = 0.0
        for k in range(deviation.size):
            slope += (risk[token, k] - risk[cash, k]) * deviation[k]
        curvature = risk[token, token] + risk[cash, cash] - 2 * risk[token, cash]
        if abs(slope) > curvature * triggers[token]:
            return True
    return False


@njit(cache=True)
def is_pair_beyond(deviation, risk, pair_triggers):  # type: ignore[no-untyped-def]
    """Return whether the exchange of two tokens deviates by more than its trigger; 0 is none."""
    for first in range(deviation.size):
        for second in range(first):
            trigger = pair_triggers[first, second]
            if trigger <= 0:
                continue
            slope = 0.0
            for k in range(deviation.size):
                slope += (risk[first, k] - risk[second, k]) * deviation[k]
            curvature = risk[first, first] + risk[second, second] - 2 * risk[first, second]
            if abs(slope) > curvature * trigger:
                return True
    return False


RULE = 0
ZONE = 1
BAND = 2
CALENDAR = 3
"""Kinds of rules."""
MIN_TRADE = 10
"""Smallest trade of the fixed rules, dollars."""


class Rule(NamedTuple):
    """When and how far to trade.

    RULE fires beyond `widths` or `pair_widths` and plans by `risk`, ZONE plans by `risk` at each bar, BAND fires
    beyond `widths` and trades to its destination, CALENDAR each `every` bars to the targets. Bands
    and calendars trade over the legs to the cash, and not above `max_cost` of the turnover or in
    legs below `min_trade`.
    """

    kind: int
    risk: Floats | None = None
    widths: Floats | None = None
    pair_widths: Floats | None = None
    destination: int = TARGET
    every: int = 0
    cooldown: int = 1
    max_cost: float = 0.0
    min_trade: float = 0.0

    def with_zeros(self, size: int) -> Rule:
        """Return the rule with zeros where it has no risk or no widths, as the kernels need."""
        return self._replace(
            risk=np.zeros((size, size)) if self.risk is None else self.risk,
            widths=np.zeros(size) if self.widths is None else self.widths,
            pair_widths=(np.zeros((size, size)) if self.pair_widths is None else self.pair_widths),
        )


@njit(cache=True)
def simulate(market, weights, legs, rule):  # type: ignore[no-untyped-def]
    """Return costs, model variance, realised variance and trades of a rule over all bars."""
    returns = market.returns
    size = weights.size
    leg_count = legs.source.size
    held = weights.copy()
    deviation = np.zeros(size)
    amounts = np.zeros(leg_count)
    cost = 0.0
    variance = 0.0
    realised = 0.0
    trades = 0
    last = -(10**9)
    for bar in range(len(returns)):
        own_return = 0.0
        target_return = 0.0
        for k in range(size):
            own_return += held[k] * returns[bar, k]
            target_return += weights[k] * returns[bar, k]
        realised += (own_return - target_return) ** 2
        for k in range(size):
            held[k] *= (1 + returns[bar, k]) / (1 + own_return)
            deviation[k] = held[k] - weights[k]
        fires = False
        for leg in range(leg_count):
            amounts[leg] = 0.0
        if bar - last >= rule.cooldown:
            if rule.kind == RULE:
                fires = (
                    is_beyond(deviation, rule.risk, rule.widths)
                    or is_pair_beyond(deviation, rule.risk, rule.pair_widths)
                ) and plan_legs(deviation, rule.risk, legs, amounts)
            elif rule.kind == ZONE:
                fires = plan_legs(deviation, rule.risk, legs, amounts)
            else:
                fires = rule.kind == CALENDAR and bar - last >= rule.every
                if rule.kind == BAND:
                    for k in range(size):
                        fires = fires or abs(deviation[k]) > rule.widths[k]
                for leg in range(leg_count):
                    if fires and legs.target[leg] == size - 1:
                        away = deviation[legs.source[leg]]
                        if rule.destination == HALFWAY:
                            away /= 2
                        elif rule.destination == EDGE:
                            width = rule.widths[legs.source[leg]]
                            away -= min(max(away, -width), width)
                        amounts[leg] = away
        if fires:
            if rule.kind == CALENDAR:  # a review whose trade is too dear is done
                last = bar
            trading = 0.0
            turnover = 0.0
            count = 0
            for leg in range(leg_count):
                amount = abs(amounts[leg])
                if amount <= SMALLEST_LEG or amount < rule.min_trade:
                    amounts[leg] = 0.0
                    continue
                trading += (
                    legs.unit_cost[leg] * amount
                    + legs.impact[leg] * amount * amount
                    + legs.gas[leg]
                )
                turnover += amount
                count += 1
            is_dear = rule.max_cost > 0 and rule.kind >= BAND and trading > rule.max_cost * turnover
            if count > 0 and not is_dear:
                for leg in range(leg_count):
                    held[legs.source[leg]] -= amounts[leg]
                    held[legs.target[leg]] += amounts[leg]
                cost += trading
                trades += 1
                last = bar
        for k in range(size):
            deviation[k] = held[k] - weights[k]
        for i in range(size):
            for k in range(size):
                variance += deviation[i] * market.covariance[i, k] * deviation[k] * market.bar_years
    return cost, variance, realised, trades


def run(market: Market, weights: Floats, legs: Legs, rule: Rule) -> Outcome:
    """Return what a rule did in a market."""
    cost, variance, realised, trades = simulate(
        market, np.asarray(weights, dtype=float), legs, rule.with_zeros(len(weights))
    )
    years = market.years
    return Outcome(cost / years, variance / years, realised / years, trades / years)


def fixed_rules(
    market: Market, weights: Floats, legs: Legs, risk_aversion: float, value: float, known: Floats
) -> dict[str, Outcome]:
    """Return the outcomes of 35 fixed rules: relative and absolute bands, zones with a horizon,
    calendars, and never. `known` is the covariance that the zones know.
    """
    min_trade = MIN_TRADE / value
    bars_per_day = round(1 / market.bar_years / 365)
    bounds = {"max_cost": 0.005, "min_trade": min_trade}
    names = {TARGET: "target", HALFWAY: "halfway", EDGE: "edge"}
    outcomes = {}
    for percent in (5, 10, 15, 20, 25):
        for destination, name in names.items():
            outcomes[f"relative {percent} % {name}"] = run(
                market,
                weights,
                legs,
                Rule(BAND, widths=weights * percent / 100, destination=destination, **bounds),
            )
    for points in (2.0, 5.0, 7.5, 10.0):
        for destination in (TARGET, EDGE):
            widths = np.full(len(weights), points / 100)
            outcomes[f"absolute {points:g} % {names[destination]}"] = run(
                market, weights, legs, Rule(BAND, widths=widths, destination=destination, **bounds)
            )
    for days in (2, 4, 7, 14, 30, 60, 120, 240):
        risk = known * risk_aversion * days / 365
        outcomes[f"zone {days} d"] = run(market, weights, legs, Rule(ZONE, risk=risk, **bounds))
    for days in (7, 28, 90):
        outcomes[f"every {days} d"] = run(
            market, weights, legs, Rule(CALENDAR, every=days * bars_per_day, **bounds)
        )
    outcomes["never"] = run(market, weights, legs, Rule(BAND, widths=np.full(len(weights), 9.0)))
    return outcomes
