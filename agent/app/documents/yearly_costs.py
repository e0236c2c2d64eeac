"""About how often a portfolio of a given total is corrected in a year, and what that costs."""

from __future__ import annotations

from fractions import Fraction

from agent.policy.minimum import (
    ASSUMED_VOLATILITY,
    GWEI,
    LEG_GAS,
    MinimumTotalInputs,
    compute_minimum_total,
    format_coins,
    number_text,
    percent_text,
)
from agent.policy.triggers.tracking_rule import edge_and_trigger
from agent.units import BPS, PIPS, Value


def yearly_corrections_and_cost(
    inputs: MinimumTotalInputs, total: Value
) -> tuple[Fraction, Value] | None:
    """Return the expected number of corrections of this total a year, and their cost; None if it is
    below the minimum.
    """
    minimum_total = compute_minimum_total(inputs)
    if minimum_total.total is None or total < minimum_total.total:
        return None
    if inputs.is_tracking:
        return _yearly_tracking(inputs, total)
    correction_cost = (
        minimum_total.gas_cost
        + (minimum_total.correction_cost - minimum_total.gas_cost) * total / minimum_total.total
    )
    return minimum_total.corrections_per_year, minimum_total.corrections_per_year * correction_cost


def _yearly_tracking(inputs: MinimumTotalInputs, total: Value) -> tuple[Fraction, Value]:
    """Return the trades and the cost of a year under the tracking rule, each asset by itself: the
    deviation takes (b² - a²)/η² years from the edge a to the trigger b, the mean exit time.
    """
    trade_count = 0.0
    cost = 0.0
    leg_gas_value = (LEG_GAS * inputs.gas_price_wei + inputs.data_fee_wei) * inputs.wei_value
    fee_rate = float(Fraction(inputs.fee_pips, PIPS))
    leg_cost = float(leg_gas_value / total)
    for asset in inputs.assets:
        weight = asset.target_bps / BPS
        if not 0 < weight < 1:
            continue
        spread_share = (weight * (1 - weight)) ** 2
        edge, trigger = edge_and_trigger(
            1.5 * fee_rate * spread_share, 0.75 * leg_cost * spread_share
        )
        width_factor = min(1.0, float(asset.drift) / trigger)
        moved_share = max((trigger - edge) * width_factor, float(inputs.min_trade / total))
        edge = edge * width_factor
        deviation_variance = spread_share * float(ASSUMED_VOLATILITY) ** 2
        yearly_trades = deviation_variance / (moved_share * (moved_share + 2 * edge))
        trade_count += yearly_trades
        cost += yearly_trades * (leg_cost + moved_share * fee_rate)
    return Fraction(trade_count), Fraction(cost) * total


def format_yearly_cost(inputs: MinimumTotalInputs, total: Value, decimals: int, label: str) -> str:
    """Format the trades and cost of a year with this total, or that it is not worth it."""
    gas_text = f"at {number_text(Fraction(inputs.gas_price_wei, GWEI))} gwei"
    count_and_cost = yearly_corrections_and_cost(inputs, total)
    if count_and_cost is not None:
        cost_text = f"{format_coins(count_and_cost[1], decimals)} {label}"
        return f"about {number_text(count_and_cost[0])} trades and {cost_text} a year {gas_text}"
    gas_text = f"{gas_text} and a pool fee of {percent_text(Fraction(inputs.fee_pips, PIPS))}"
    least_total = compute_minimum_total(inputs).total
    if least_total is None:
        return f"not worth it here {gas_text}, whatever the total"
    return f"not worth it here {gas_text}, only from {format_coins(least_total, decimals)} {label}"
