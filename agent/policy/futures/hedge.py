"""Costs of a hedge, which shorts part of an overweight instead of selling it. A hedge keeps the
holding and its tax lots and removes the price risk. It costs the taker fee twice, funding while it
is open, and the capital cost of its margin.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.margin import account as margin
from agent.model import FuturesPolicy, HedgeComparison, PerpMarket
from agent.policy.futures.funding import DAY_S, expected_funding
from agent.units import BPS, Value, value_text

YEAR_S = 365 * DAY_S


def choose(
    comparison: HedgeComparison, min_saving: Value, *, counts_income: bool
) -> HedgeComparison:
    """Return the comparison with its choice: the short, if it is cheaper by more than `min_saving`.
    Unless `counts_income`, funding that the short would receive does not count, because a mark
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
    """Return the costs of a short of this value: fees of opening and closing, expected funding,
    required margin, and its cost of capital over the horizon.
    """
    tied = hedged * initial_share
    return (
        2 * hedged * market.fee_ppm / margin.PPM,
        expected_funding(market, -hedged, horizon_s),
        tied,
        tied * yearly_bps / BPS * horizon_s / YEAR_S,
    )


def margin_share(market: PerpMarket, policy: FuturesPolicy) -> Fraction:
    """Return the margin per notional that a short requires: the larger of the initial margin and
    the inverse of `max_leverage`.
    """
    initial = Fraction(max((tier.initial_ppm for tier in market.tiers), default=0), margin.PPM)
    return max(initial, Fraction(BPS, policy.limits.max_leverage_bps))


def compare_text(comparison: HedgeComparison, symbol: str, decimals: int) -> str:
    """Describe all costs and the choice in a sentence; values have `decimals`."""

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
