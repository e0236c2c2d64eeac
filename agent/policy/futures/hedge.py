"""A hedge instead of a sale: part of an overweight asset's excess is shorted.

A hedge keeps the holding and its tax lots and removes the price risk. It costs the taker fee twice,
and funding while it is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.model.futures import PerpMarket
from agent.units import BPS, value_text

DAY_S = 86_400


class ReductionChoice(Enum):
    """How an overweight is reduced."""

    SELL = "sell"
    HEDGE = "hedge"


@dataclass(frozen=True, slots=True)
class HedgePlan:
    """An excess split into a sale and a short, and what each way costs; values in numeraire base
    units.

    `net_exposure` is the part of the asset's value that still follows its price. Costs are of the hedged
    part alone: selling it (trade cost and tax now), or shorting it (fees now and at the end, and
    expected funding over the horizon; negative: shorts are paid).
    """

    excess: Fraction
    sold: Fraction
    hedged: Fraction
    net_exposure: Fraction
    cost_of_sale: Fraction
    cost_of_hedge: Fraction
    choice: ReductionChoice


def plan_hedge(
    value: Fraction,
    target: Fraction,
    share_bps: int,
    market: PerpMarket,
    *,
    horizon_s: int,
    sale_cost_bps: int,
    tax: Fraction,
) -> HedgePlan:
    """Split an excess and choose the cheaper way for the share that may be hedged.

    `tax` is what selling that share now would owe. Equal costs sell: a sale ends the risk.
    """
    excess = max(Fraction(0), value - target)
    hedged = excess * share_bps / BPS
    sale = hedged * sale_cost_bps / BPS + tax
    fees = 2 * hedged * market.fee_ppm / 1_000_000
    funding = -hedged * market.funding_daily * horizon_s / DAY_S
    hedge = fees + funding
    choice = ReductionChoice.HEDGE if hedged and hedge < sale else ReductionChoice.SELL
    if choice is ReductionChoice.SELL:
        hedged = Fraction(0)
    return HedgePlan(excess, excess - hedged, hedged, value - excess, sale, hedge, choice)


def compare_costs(plan: HedgePlan, symbol: str, horizon_s: int, decimals: int) -> str:
    """Return the sentence with both costs and the choice; values have `decimals`."""
    days = f"{horizon_s / DAY_S:g} days"
    sale, hedge = (
        value_text(cost, decimals, 2) for cost in (plan.cost_of_sale, plan.cost_of_hedge)
    )
    chosen = "shorted" if plan.choice is ReductionChoice.HEDGE else "sold"
    return (
        f"{symbol}: a sale costs {sale} in trade and tax, a short {hedge} in fees and funding over"
        f" {days}: it is {chosen}"
    )


def unwind_reason(
    excess: Fraction, hedged: Fraction, funding_paid: Fraction, cost_of_sale: Fraction
) -> str:
    """Return why an open hedge is closed: the excess is gone, or funding has cost more than a sale
    would have; empty while it stays open.
    """
    if hedged and excess <= 0:
        return "the weight is back at its target"
    if funding_paid > cost_of_sale:
        return "funding has cost more than a sale would have"
    return ""
