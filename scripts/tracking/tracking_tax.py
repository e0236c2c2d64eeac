"""Tax lots in the simulated markets of bench_tracking.py: what rules pay in tax beside their loss.

Each token is bought at its target at the first bar. A sale takes its lots by the method; the gains
of a year are taxed net of its losses, and a year of losses owes nothing. The tax is a figure, as the
costs are: neither is taken from the portfolio. What a token's next unit sold owes, and when it owes
nothing, is as in agent/layers/tax/policy.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from scripts.tracking.tracking_market import (
    BPS,
    HALFWAY,
    HOURS_PER_YEAR,
    RULE,
    SMALLEST_LEG,
    Floats,
    Legs,
    Market,
    Rule,
    is_beyond,
    plan_legs,
)

FIFO = 0
LIFO = 1
HIFO = 2
METHODS = {"fifo": FIFO, "lifo": LIFO, "hifo": HIFO}
TAX_STEPS = 100
"""Steps between no gain and all gain at which the ranges are computed; between them they are
interpolated.
"""
MAX_LOTS = 4_000


class TaxedRanges(NamedTuple):
    """Horizons and triggers of the tokens (steps of the tax × tokens, the cash at last), and the
    risk of a year with reduced correlations, times λ. One row is a rule that knows no tax. With
    `counts_plan_tax` a plan has to save its whole tax too.
    """

    horizons: Floats
    triggers: Floats
    yearly_risk: Floats
    counts_plan_tax: bool = False


@dataclass(frozen=True)
class TaxedOutcome:
    """Costs, model variance of the tracking error, and tax, a year; `tax_if_sold` with the gains
    that were not realised at the end; trades a year.
    """

    cost: float
    variance: float
    tax: float
    tax_if_sold: float
    trades: float

    @staticmethod
    def mean(outcomes: Sequence[TaxedOutcome]) -> TaxedOutcome:
        """Return the mean of several outcomes."""
        count = len(outcomes)
        return TaxedOutcome(
            sum(outcome.cost for outcome in outcomes) / count,
            sum(outcome.variance for outcome in outcomes) / count,
            sum(outcome.tax for outcome in outcomes) / count,
            sum(outcome.tax_if_sold for outcome in outcomes) / count,
            sum(outcome.trades for outcome in outcomes) / count,
        )

    def row(self, risk_aversion: float) -> Mapping[str, float]:
        """Return loss, tax and both, bps of the portfolio a year."""
        loss = (self.cost + risk_aversion * self.variance / 2) * BPS
        return {
            "loss": round(loss, 1),
            "tax": round(self.tax * BPS, 1),
            "loss_and_tax": round(loss + self.tax * BPS, 1),
            "loss_and_tax_if_sold": round(loss + self.tax_if_sold * BPS, 1),
            "trades": round(self.trades, 1),
        }


@njit(cache=True)
def next_lot(token, method, units, costs, counts):  # type: ignore[no-untyped-def]
    """Return the index of the lot that a sale takes next; −1 without lots. Lots are in the order of
    purchase.
    """
    count = counts[token]
    if count == 0:
        return -1
    if method == FIFO:
        return 0
    if method == LIFO:
        return count - 1
    best = 0
    for lot in range(1, count):
        if costs[token, lot] > costs[token, best]:
            best = lot
    return best


@njit(cache=True)
def sell(token, sold, price, method, units, costs, counts):  # type: ignore[no-untyped-def]
    """Take units from the lots; return the gain. Units without a lot have none."""
    gain = 0.0
    while sold > 1e-15:
        lot = next_lot(token, method, units, costs, counts)
        if lot < 0:
            break
        taken = min(sold, units[token, lot])
        gain += taken * (price - costs[token, lot])
        units[token, lot] -= taken
        sold -= taken
        if units[token, lot] <= 1e-15:
            for later in range(lot, counts[token] - 1):
                units[token, later] = units[token, later + 1]
                costs[token, later] = costs[token, later + 1]
            counts[token] -= 1
    return gain


@njit(cache=True)
def tax_on(gain, year_gain, tax_rate):  # type: ignore[no-untyped-def]
    """Return the tax that a gain adds to that of the year."""
    return tax_rate * (max(0.0, year_gain + gain) - max(0.0, year_gain))


@njit(cache=True)
def simulate_taxed(market, weights, legs, rule, ranges, method, tax_rate):  # type: ignore[no-untyped-def]
    """Return costs, model variance, tax, tax of what is left, and trades over all bars.

    RULE fires beyond the triggers and plans by the risk over the horizons, each at the tax of the
    token's next unit sold; BAND fires beyond `widths`. The leg of each token is that to the cash.
    """
    returns = market.returns
    horizons = ranges.horizons
    triggers = ranges.triggers
    size = weights.size
    cash = size - 1
    steps = len(triggers) - 1
    held = weights.copy()
    prices = np.ones(size)
    value = 1.0
    units = np.zeros((cash, MAX_LOTS))
    costs = np.ones((cash, MAX_LOTS))
    counts = np.ones(cash, dtype=np.int64)
    for token in range(cash):
        units[token, 0] = weights[token]
    deviation = np.zeros(size)
    amounts = np.zeros(cash)
    horizon = horizons[0].copy()
    trigger = triggers[0].copy()
    risk = np.zeros((size, size))
    cost = 0.0
    variance = 0.0
    tax = 0.0
    year_gain = 0.0
    trades = 0
    for bar in range(len(returns)):
        if bar % HOURS_PER_YEAR == 0:
            year_gain = 0.0
        own_return = 0.0
        for k in range(size):
            own_return += held[k] * returns[bar, k]
        value *= 1 + own_return
        for k in range(size):
            prices[k] *= 1 + returns[bar, k]
            held[k] *= (1 + returns[bar, k]) / (1 + own_return)
            deviation[k] = held[k] - weights[k]
        fires = False
        for leg in range(cash):
            amounts[leg] = 0.0
        if rule.kind == RULE:
            for token in range(cash if steps > 0 else 0):
                lot = next_lot(token, method, units, costs, counts)
                gain_share = 0.0
                if lot >= 0 and year_gain >= 0:
                    gain_share = max(0.0, 1 - costs[token, lot] / prices[token])
                place = gain_share * steps
                row = min(int(place), steps - 1)
                part = place - row
                horizon[token] = horizons[row, token] * (1 - part) + horizons[row + 1, token] * part
                trigger[token] = triggers[row, token] * (1 - part) + triggers[row + 1, token] * part
            horizon[cash] = horizon[:cash].min()
            for i in range(size):
                for k in range(size):
                    risk[i, k] = ranges.yearly_risk[i, k] * min(horizon[i], horizon[k])
            fires = is_beyond(deviation, risk, trigger) and plan_legs(
                deviation, risk, legs, amounts
            )
        else:
            for k in range(size):
                fires = fires or abs(deviation[k]) > rule.widths[k]
            if fires:
                for leg in range(cash):
                    away = deviation[legs.source[leg]]
                    amounts[leg] = away / 2 if rule.destination == HALFWAY else away
        if fires and ranges.counts_plan_tax:
            saved = 0.0
            after = deviation.copy()
            for leg in range(cash):
                after[legs.source[leg]] -= amounts[leg]
                after[legs.target[leg]] += amounts[leg]
                if amounts[leg] != 0:
                    saved -= (
                        legs.unit_cost[leg] * abs(amounts[leg])
                        + legs.impact[leg] * amounts[leg] ** 2
                    )
                    saved -= legs.gas[leg]
            for i in range(size):
                for k in range(size):
                    saved += risk[i, k] * (deviation[i] * deviation[k] - after[i] * after[k]) / 2
            trial_units = units.copy()
            trial_costs = costs.copy()
            trial_counts = counts.copy()
            gain = 0.0
            for leg in range(cash):
                if amounts[leg] > 0:
                    token = legs.source[leg]
                    sold = amounts[leg] * value / prices[token]
                    gain += sell(
                        token, sold, prices[token], method, trial_units, trial_costs, trial_counts
                    )
            fires = saved > tax_on(gain, year_gain, tax_rate) / value
        if fires:
            traded = False
            for leg in range(cash):
                amount = amounts[leg]
                if abs(amount) <= SMALLEST_LEG or abs(amount) < rule.min_trade:
                    continue
                traded = True
                token = legs.source[leg]
                cost += (
                    legs.unit_cost[leg] * abs(amount)
                    + legs.impact[leg] * amount * amount
                    + legs.gas[leg]
                )
                traded_units = abs(amount) * value / prices[token]
                if amount > 0:
                    gain = sell(token, traded_units, prices[token], method, units, costs, counts)
                    tax += tax_on(gain, year_gain, tax_rate) / value
                    year_gain += gain
                else:
                    lot = counts[token]
                    if lot == MAX_LOTS:
                        raise ValueError("too many lots")
                    units[token, lot] = traded_units
                    costs[token, lot] = prices[token]
                    counts[token] += 1
                held[token] -= amount
                held[legs.target[leg]] += amount
            if traded:
                trades += 1
        for k in range(size):
            deviation[k] = held[k] - weights[k]
        for i in range(size):
            for k in range(size):
                variance += deviation[i] * market.covariance[i, k] * deviation[k] * market.bar_years
    remaining_gain = 0.0
    for token in range(cash):
        for lot in range(counts[token]):
            remaining_gain += units[token, lot] * (prices[token] - costs[token, lot])
    return cost, variance, tax, tax_on(remaining_gain, year_gain, tax_rate) / value, trades


def run_taxed(
    market: Market,
    weights: Floats,
    legs: Legs,
    rule: Rule,
    method: int,
    tax_rate: float,
    *,
    ranges: TaxedRanges | None = None,
) -> TaxedOutcome:
    """Return what a rule did in a market, with its tax."""
    size = len(weights)
    known = ranges or TaxedRanges(np.ones((1, size)), np.ones((1, size)), np.zeros((size, size)))
    cost, variance, tax, remaining_tax, trades = simulate_taxed(
        market,
        np.asarray(weights, dtype=float),
        legs,
        rule.with_zeros(size),
        known,
        method,
        tax_rate,
    )
    years = market.years
    return TaxedOutcome(
        cost / years,
        variance / years,
        tax / years,
        (tax + remaining_tax) / years,
        trades / years,
    )
