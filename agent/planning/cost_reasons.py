"""Why an asset stays off target although pools trade it: the whole cost of moving it by its
cheapest route, compared with limits.plan_cost, or a base unit worth too much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.amm import pools as amm
from agent.errors import Refused
from agent.model import Pool, Portfolio
from agent.planning.approval_gas import approval_count
from agent.planning.problem import Problem
from agent.planning.solver.drop_reasons import COARSE_UNIT_PHRASE
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS
from agent.units import BPS, PIPS, Value, decimal_text, floor_int, value_text


@dataclass(frozen=True, slots=True)
class RouteCost:
    """Cost of moving `moved_value` along one route of `tokens`: gas and pool fee of its first swap
    with missing approvals, everything that its second swap costs, and what both lose to impact and
    prices off the reference.
    """

    tokens: tuple[str, ...]
    moved_value: Value
    gas: Value
    fees: Value
    second_hop: Value
    impact: Value

    @property
    def total(self) -> Value:
        """Sum of all parts."""
        return self.gas + self.fees + self.second_hop + self.impact


def cost_reason(
    portfolio: Portfolio,
    problem: Problem,
    token: str,
    moved_value: Value,
    is_sale: bool,
    counterparts: Sequence[str],
) -> str:
    """Return what limits.plan_cost allows for moving `moved_value` of a token, sold for or bought
    with one of `counterparts`, and what it costs, in whole coins of the numeraire, with the digits
    in which the cost is above the limit; empty if no route is known, or if the cheapest alone would
    be allowed.
    """
    limit_bps = problem.plan_cost_bps
    if limit_bps is None:
        return ""
    route = cheapest_route(
        problem, token, moved_value, is_sale, counterparts or (portfolio.numeraire.address,)
    )
    allowed_cost = moved_value * Fraction(limit_bps, BPS)
    if route is None or route.total <= allowed_cost:
        return ""
    named_costs = (
        ("gas", route.gas),
        ("fees", route.fees),
        ("second hop", route.second_hop),
        ("impact", route.impact),
    )
    decimals = portfolio.numeraire.decimals
    shown_decimals = 2

    def amount_text(cost_value: Value) -> str:
        return value_text(cost_value, decimals, shown_decimals)

    while shown_decimals < decimals and sum(
        float(amount_text(cost_value)) for _, cost_value in named_costs
    ) <= float(amount_text(allowed_cost)):
        shown_decimals += 1
    costs_text = " + ".join(
        f"{cost_name} {amount_text(cost_value)}"
        for cost_name, cost_value in named_costs
        if float(amount_text(cost_value)) > 0
    )
    return f"plan_cost allows {amount_text(allowed_cost)}; {costs_text}"


def cheapest_route(
    problem: Problem, token: str, moved_value: Value, is_sale: bool, counterparts: Sequence[str]
) -> RouteCost | None:
    """Return the cheapest route by which `moved_value` of a token is sold for, or bought with, one
    of the counterparts; None without one.
    """
    others = [counterpart for counterpart in counterparts if counterpart != token]
    return min(
        _route_costs(problem, token, moved_value, is_sale, others),
        key=lambda route_cost: route_cost.total,
        default=None,
    )


def format_route(problem: Problem, route: RouteCost) -> str:
    """Return a route with its cost and limits.plan_cost, such as "WBTC to USDC to WETH 60 bps, limit
    50 bps".
    """
    label_by_token = {node.address: node.label for node in problem.nodes}
    path_text = " to ".join(label_by_token[token] for token in route.tokens)
    cost_bps = decimal_text(round(route.total / route.moved_value * BPS * 10), 1)
    return f"{path_text} {cost_bps} bps, limit {problem.plan_cost_bps} bps"


def _route_costs(
    problem: Problem, token: str, moved_value: Value, is_sale: bool, counterparts: Sequence[str]
) -> Iterator[RouteCost]:
    """Yield the cost of each route of one or two swaps between the token and a counterpart."""
    for counterpart in counterparts:
        token_in, token_out = (token, counterpart) if is_sale else (counterpart, token)
        price_in = problem.price(token_in)
        amount_raw = floor_int(moved_value / price_in) if price_in > 0 else 0
        if amount_raw <= 0:
            continue
        for first_pool in problem.pools.values():
            if token_in not in (first_pool.token0, first_pool.token1):
                continue
            middle_token = amm.token_out(first_pool, token_in)
            if middle_token == token_out:
                yield from _route_cost(problem, token_in, amount_raw, (first_pool,))
                continue
            for second_pool in problem.pools.values():
                if second_pool is not first_pool and {middle_token, token_out} == {
                    second_pool.token0,
                    second_pool.token1,
                }:
                    yield from _route_cost(problem, token_in, amount_raw, (first_pool, second_pool))


def _route_cost(
    problem: Problem, token_in: str, amount_raw: int, route: tuple[Pool, ...]
) -> Iterator[RouteCost]:
    """Yield the cost of a route, unless one of its pools cannot trade the amount."""
    hop_fees = []
    impact = Fraction(0)
    tokens = [token_in]
    hop_token = token_in
    hop_raw = amount_raw
    for pool in route:
        value_in = hop_raw * problem.price(hop_token)
        try:
            out_raw = pool.quote(hop_token, hop_raw)
        except Refused:  # its ticks or reserves end before
            return
        hop_fees.append(value_in * Fraction(pool.fee_for(hop_token), PIPS))
        hop_token = amm.token_out(pool, hop_token)
        hop_raw = out_raw
        tokens.append(hop_token)
        impact += value_in - hop_raw * problem.price(hop_token) - hop_fees[-1]
    approvals_needed = approval_count({token_in: amount_raw}, problem.gas_inputs.allowances)
    leg_cost = LEG_GAS * problem.gas_unit_value + problem.leg_data_fee
    yield RouteCost(
        tuple(tokens),
        amount_raw * problem.price(token_in),
        leg_cost + approvals_needed * APPROVAL_GAS * problem.gas_unit_value,
        hop_fees[0],
        sum(hop_fees[1:], Fraction(0)) + leg_cost * (len(route) - 1),
        max(impact, Fraction(0)),
    )


MAX_UNMOVED = 3
"""Maximum number of coarse tokens that are tried unmoved."""


def coarse_tokens(problem: Problem) -> dict[int, str]:
    """Return the assets, by index, of which a base unit is worth more than a basis point of the
    portfolio, with the reason why one may stay unmoved; the most expensive units first, and no more
    than MAX_UNMOVED.
    """
    price_and_index = [
        (-node.price, index)
        for index, node in enumerate(problem.nodes)
        if node.is_asset and node.price * BPS > problem.total
    ]
    return {
        index: f"{COARSE_UNIT_PHRASE} {problem.nodes[index].label} is worth too much for a plan within"
        " limits.plan_cost"
        for _, index in sorted(price_and_index)[:MAX_UNMOVED]
    }
