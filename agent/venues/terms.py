"""The conditions of a whole rebalance: reference prices of what the wallet gives and gets, and the least change of its value."""

from __future__ import annotations

from fractions import Fraction

from agent.errors import Refused
from agent.model import Funding, Plan, StepInput
from agent.planning.payments import NATIVE_VENUE
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
    """Conditions of `plan` at reference prices. The floor is what its legs' minimums come to, or limits.plan_cost of the value
    sold where that is the smaller loss: what a plan may not cost by prediction it may not cost in the end.

    One base unit of the numeraire is left to the rounding of prices. Raises Refused when a token has no reference price.
    """
    known, least = known_prices(step), bounds(plan.legs)
    if missing := [token for token in least if token not in known]:
        raise Refused(f"no reference price of {', '.join(missing)}", remedy="give it a feed, or list it in portfolio.assets")
    prices = {token: known[token] for token in least}
    floor = sum((raw * prices[token] for token, raw in least.items()), Fraction(0))
    if step.limits.plan_cost_bps is not None:
        given = [leg for leg in plan.legs if leg.source is Funding.WALLET and not (leg.venue == NATIVE_VENUE and leg.sink is leg.source)]
        sold = sum((leg.amount_in_raw * prices[leg.token_in] for leg in given), Fraction(0))
        floor = max(floor, -sold * Fraction(step.limits.plan_cost_bps, BPS))
    return Terms(prices, floor_int(floor) - 1)
