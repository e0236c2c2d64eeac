"""Least cost of exchanging one asset for another, over the pools that plans may use.

A lower bound of any trade: fees of the cheapest route at current prices, and the pools'
disadvantage against the reference; an advantage is not a reason to trade. Impact and gas come on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.amm import pools
from agent.model import Limits, Pool, Portfolio, Snapshot, StepInput
from agent.units import BPS, PIPS, Price, ceil_int

RATE_UNIT = 10**12
"""Precision of route rates, rounded up so that costs are never overstated."""
ExchangeCosts = Mapping[tuple[int, int], Fraction]
"""Least cost per unit of value of exchanging one token for another, by their indices."""


@dataclass(frozen=True, slots=True)
class PricedMarket:
    """What a portfolio can trade at a block: pools and gas, the limits of its trades, and reference
    prices by token, numeraire base units per base unit.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    limits: Limits
    prices: Mapping[str, Price]

    @classmethod
    def of_step(cls, step: StepInput, prices: Mapping[str, Price]) -> PricedMarket:
        """Return the market of a step at these prices."""
        return cls(step.snapshot, step.portfolio, step.limits, prices)

    @property
    def native_price(self) -> Price:
        """Price of the native coin; zero if unknown, as in a backtest without gas."""
        return self.prices.get(self.portfolio.wrapped_native, Fraction(0))


def exchange_costs(
    market: PricedMarket, tokens: Sequence[str], *, fees_only: bool = False
) -> ExchangeCosts:
    """Return the least cost per unit of value of exchanging token i for j over any route
    (Floyd-Warshall). With `fees_only` pools count as if their prices were the reference, because
    a disadvantage passes and a fee stays.
    """
    prices = market.prices
    hubs = [
        hub.address
        for hub in market.portfolio.hubs
        if hub.address in prices and hub.address not in tokens
    ]
    nodes = [*tokens, *hubs]
    node_indices = range(len(nodes))
    rates = [[0] * len(nodes) for _ in node_indices]
    index_by_token = {token: index for index, token in enumerate(nodes)}
    unreadable_addresses = {item.address for item in market.snapshot.unreadable_items}
    for pool in market.snapshot.pools:
        if pool.address in unreadable_addresses or not _is_usable(market, pool, index_by_token):
            continue
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            i = index_by_token[token_in]
            j = index_by_token[token_out]
            rates[i][j] = max(
                rates[i][j], _rate(pool, token_in, prices[token_in], prices[token_out], fees_only)
            )
    for middle in node_indices:
        onward_rates = [(j, rate) for j, rate in enumerate(rates[middle]) if rate]
        for row in rates:
            rate_to_middle = row[middle]
            if rate_to_middle and row is not rates[middle]:
                for j, onward_rate in onward_rates:
                    rate = rate_to_middle * onward_rate
                    if rate > row[j] * RATE_UNIT:
                        row[j] = -(-rate // RATE_UNIT)
    asset_indices = range(len(tokens))
    return {
        (i, j): Fraction(RATE_UNIT - rates[i][j], RATE_UNIT)
        for i in asset_indices
        for j in asset_indices
        if i != j and rates[i][j] > 0
    }


def dearest_route_pips(step: StepInput, prices: Mapping[str, Price]) -> int | None:
    """Return the highest fee, over the assets with a target, of the cheapest route to the numeraire,
    rounded up; None if no asset has a route.
    """
    assets = [asset for asset in step.effective_assets if asset.token.address in prices]
    tokens = [asset.token.address for asset in assets]
    costs = exchange_costs(PricedMarket.of_step(step, prices), tokens, fees_only=True)
    fees_pips = [
        ceil_int(cost * PIPS)
        for (index, other_index), cost in costs.items()
        if assets[index].target_bps and tokens[other_index] == step.portfolio.numeraire.address
    ]
    return max(fees_pips, default=None)


def _rate(pool: Pool, token_in: str, price_in: Price, price_out: Price, fees_only: bool) -> int:
    """Return value out per value in of a first unit, after fee, in units of 1/RATE_UNIT; gains
    above the reference do not count.
    """
    numerator = denominator = 1
    if not fees_only:
        pool_numerator, pool_denominator = pool.price_terms(token_in)
        numerator = pool_numerator * price_out.numerator * price_in.denominator
        denominator = pool_denominator * price_out.denominator * price_in.numerator
    kept_pips = PIPS - pool.fee_for(token_in)
    if numerator >= denominator:
        return -(-RATE_UNIT * kept_pips // PIPS)
    return -(-RATE_UNIT * kept_pips * numerator // (PIPS * denominator))


def _is_usable(market: PricedMarket, pool: Pool, index_by_token: Mapping[str, int]) -> bool:
    """True if the planner would trade in the pool, if it was read: known tokens, not empty, deep
    enough.
    """
    has_known_tokens = pool.token0 in index_by_token and pool.token1 in index_by_token
    return (
        has_known_tokens
        and not pool.is_empty
        and pools.is_deep_enough(pool, market.limits.pool_min_value, market.prices)
    )


def within_plan_cost(costs: ExchangeCosts, limits: Limits) -> ExchangeCosts:
    """Return the costs that limits.plan_cost allows."""
    if limits.plan_cost_bps is None:
        return costs
    return {
        pair: cost
        for pair, cost in costs.items()
        if cost.numerator * BPS <= limits.plan_cost_bps * cost.denominator
    }
