"""The conditions of a whole rebalance: reference prices of what the wallet gives and gets, and the least change of its value."""

from __future__ import annotations

from fractions import Fraction

from agent.errors import Refused
from agent.model import Funding, Plan, StepInput
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, floor_int
from agent.venues.rebalancer import Terms, bounds


def known_prices(step: StepInput) -> dict[str, Fraction]:
    """Reference prices by token, numeraire base units per base unit; the native coin is worth its wrapped token."""
    prices = {token: price.price for token, price in reference_prices(step).prices.items()}
    if step.portfolio.wrapped_native in prices:
        prices[NATIVE] = prices[step.portfolio.wrapped_native]
    return prices


def terms(step: StepInput, plan: Plan) -> Terms:
    """Conditions of `plan` at reference prices. The floor is what the plan predicts less slippage on its turnover, or what
    its legs' minimums come to where that is more: a chain of swaps may not lose slippage once per swap.

    One base unit of the numeraire is left to the rounding of prices. Raises Refused when a token has no reference price.
    """
    known, least = known_prices(step), bounds(plan.legs)
    if missing := [token for token in least if token not in known]:
        raise Refused(f"no reference price of {', '.join(missing)}", remedy="give it a feed, or list it in portfolio.assets")
    prices = {token: known[token] for token in least}
    by_minimums = sum((raw * prices[token] for token, raw in least.items()), Fraction(0))
    sold = sum((leg.amount_in_raw * prices[leg.token_in] for leg in plan.legs if leg.source is Funding.WALLET), Fraction(0))
    bought = sum((leg.amount_out_raw * prices[leg.token_out] for leg in plan.legs if leg.sink is Funding.WALLET), Fraction(0))
    floor = by_minimums
    if step.limits.slippage_bps is not None:
        floor = max(floor, bought - sold - sold * Fraction(step.limits.slippage_bps, BPS))
    return Terms(prices, floor_int(floor) - 1)
