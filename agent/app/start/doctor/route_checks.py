"""Pairs of assets whose drift limits.plan_cost does not let a rebalance correct: by usual fees
before there is a chain, else by the pools found.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from agent.app.documents.owner import OK, WARN, CheckLine
from agent.app.start.tracking_losses import usual_fee_pips
from agent.config.build import build_policy
from agent.config.schema import Config
from agent.model import NoTradeZone, StepInput, Trigger
from agent.policy.triggers.exchange_costs import PricedMarket, exchange_costs
from agent.reference import reference_prices
from agent.units import BPS, PIPS, decimal_text
from agent.weights.asset_classes import AssetClass, class_of


def route_checks(step: StepInput) -> Iterator[CheckLine]:
    """Yield a row for each pair of assets whose cheapest route is dearer than limits.plan_cost, or
    that no route connects; one row if there is none.
    """
    prices = reference_prices(step).price_by_token
    label_by_token = {
        asset.token.address: asset.token.label
        for asset in step.effective_assets
        if asset.token.address in prices
    }
    tokens = [*label_by_token]
    costs = exchange_costs(PricedMarket.of_step(step, prices), tokens)
    limit_bps = step.limits.plan_cost_bps
    dearest_bps = "0"
    has_warned = False
    for first, second in combinations(range(len(tokens)), 2):
        pair_text = f"{label_by_token[tokens[first]]} and {label_by_token[tokens[second]]}"
        directions = [costs.get(pair) for pair in ((first, second), (second, first))]
        route_costs = [cost for cost in directions if cost is not None]
        if not route_costs:
            has_warned = True
            yield (
                "routes",
                WARN,
                f"no usable pool connects {pair_text}: a drift between the two is not corrected",
                "add a venue or a hub, or lower limits.pool_min_value",
            )
            continue
        cost_bps = decimal_text(round(max(route_costs) * BPS * 10), 1)
        dearest_bps = max(dearest_bps, cost_bps, key=float)
        if limit_bps is not None and max(route_costs) * BPS > limit_bps:
            has_warned = True
            yield (
                "routes",
                WARN,
                f"{pair_text}: the cheapest route costs {cost_bps} bps, limits.plan_cost allows"
                f" {limit_bps} bps: a drift between the two is not corrected",
                plan_cost_remedy(step.policy.trigger),
            )
    if not has_warned:
        yield (
            "routes",
            OK,
            f"every pair of assets can be exchanged, for at most {dearest_bps} bps",
            "",
        )


def usual_route_warnings(config: Config) -> list[str]:
    """Return a warning that names the pair with the dearest route, if its usual fees are above
    limits.plan_cost, and how many others are.
    """
    limit_bps = config.limits.plan_cost
    symbols = [table.symbol for table in config.portfolio.assets if table.target]
    route_costs_bps = {
        pair: usual_route_pips(config.chain.chain_id, *pair, config.portfolio.numeraire)
        * BPS
        / PIPS
        for pair in combinations(symbols, 2)
    }
    if limit_bps is None:
        return []
    dear_pairs = [pair for pair, cost_bps in route_costs_bps.items() if cost_bps > limit_bps]
    if not dear_pairs:
        return []
    dearest_pair = max(dear_pairs, key=lambda pair: route_costs_bps[pair])
    others_text = f", and of other pairs ({len(dear_pairs) - 1})," if len(dear_pairs) > 1 else ""
    return [
        f"{' and '.join(dearest_pair)}: the cheapest route usually costs"
        f" {route_costs_bps[dearest_pair]:g} bps, limits.plan_cost allows {limit_bps} bps:"
        f" a drift between the two{others_text} is not corrected;"
        f" {plan_cost_remedy(build_policy(config).trigger)}"
    ]


def usual_route_pips(
    chain_id: int, first_symbol: str, second_symbol: str, numeraire_symbol: str
) -> int:
    """Return the usual fees of the cheapest route between two assets: through the numeraire, or by
    a pool of their own, which two tokens that are no large coins and no cash rarely have.
    """
    direct_pips = usual_fee_pips(chain_id, first_symbol, second_symbol)
    if numeraire_symbol in (first_symbol, second_symbol):
        return direct_pips
    legs_pips = sum(
        usual_fee_pips(chain_id, symbol, numeraire_symbol)
        for symbol in (first_symbol, second_symbol)
    )
    has_own_pool = {class_of(first_symbol), class_of(second_symbol)} != {AssetClass.OTHER}
    return min(direct_pips, legs_pips) if has_own_pool else legs_pips


def plan_cost_remedy(trigger: Trigger) -> str:
    """Return what to change if limits.plan_cost allows no route. Bands that trade at any cost lose
    more by it than by the drift; the rule and the zone weigh the cost themselves.
    """
    if isinstance(trigger, NoTradeZone):
        return "raise limits.plan_cost above it; this trigger trades only what saves more than it costs"
    return "take tracking as trigger, or widen the bands; to raise limits.plan_cost costs more than the drift"
