"""Costs of a hedge in place of a sale: part of an overweight is shorted.

A hedge keeps the holding and its tax lots and removes the price risk. It costs the taker fee twice,
funding while it is open, and the margin that it ties up.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.margin import account as margin
from agent.model.futures import FuturesPolicy, HedgeComparison, PerpMarket
from agent.policy.futures.funding import DAY_S, expected_funding
from agent.units import BPS, Value, value_text

YEAR_S = 365 * DAY_S


def choose(
    comparison: HedgeComparison, min_saving: Value, *, counts_income: bool
) -> HedgeComparison:
    """Return the comparison with its choice: the short, if it is cheaper by more than `min_saving`.

    Without `counts_income` funding that the short would receive does not count: a mark that is
    pushed above its index for a moment must not open a hedge (T12).
    """
    if not comparison.hedged:
        return comparison
    counted = comparison
    if not counts_income:
        counted = replace(comparison, hedge_funding=max(Fraction(0), comparison.hedge_funding))
    return replace(comparison, is_hedged=counted.hedge_cost + min_saving < comparison.sale_cost)


def short_costs(
    market: PerpMarket, hedged: Value, horizon_s: int, initial_share: Fraction, yearly_bps: int
) -> tuple[Value, Value, Value, Value]:
    """Return fees of opening and closing, expected funding, margin tied up, and its cost of capital
    over the horizon, of a short of this value.
    """
    tied = hedged * initial_share
    return (
        2 * hedged * market.fee_ppm / margin.PPM,
        expected_funding(market, -hedged, horizon_s),
        tied,
        tied * yearly_bps / BPS * horizon_s / YEAR_S,
    )


def margin_share(market: PerpMarket, policy: FuturesPolicy) -> Fraction:
    """Return the margin per notional that a short ties up: the larger of the initial
    margin and the inverse of `max_leverage`.
    """
    initial = Fraction(max((tier.initial_ppm for tier in market.tiers), default=0), margin.PPM)
    return max(initial, Fraction(BPS, policy.limits.max_leverage_bps))


def compare_text(comparison: HedgeComparison, symbol: str, decimals: int) -> str:
    """Return the sentence with all costs and the choice; values have `decimals`."""

    def amount(value: Value) -> str:
        return value_text(value, decimals, 2)

    if not comparison.hedged:
        return f"{symbol} is sold: {comparison.reason}"
    funding = comparison.hedge_funding
    paid = f"receives {amount(-funding)}" if funding < 0 else f"costs {amount(funding)}"
    chosen = "shorted" if comparison.is_hedged else "sold"
    why = f" ({comparison.reason})" if comparison.reason else ""
    return (
        f"{symbol}: {amount(comparison.excess)} above target, of which"
        f" {amount(comparison.hedged)} may be shorted; a sale costs {amount(comparison.sale_cost)}"
        f" (fees {amount(comparison.sale_fees)}, impact {amount(comparison.sale_impact)}, tax"
        f" {amount(comparison.sale_tax)}), a short {amount(comparison.hedge_cost)} over"
        f" {comparison.horizon_s / DAY_S:g} days (fees {amount(comparison.hedge_fees)}, funding"
        f" {paid}, capital {amount(comparison.hedge_capital)} on {amount(comparison.margin)} of"
        f" margin): it is {chosen}{why}"
    )
