"""What the doctor finds about routes: pairs of assets whose drift limits.plan_cost does not let a
rebalance correct.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from agent.app.documents.owner import OK, WARN, CheckLine
from agent.model import StepInput
from agent.policy.triggers.exchange_costs import exchange_costs
from agent.reference import reference_prices
from agent.units import BPS, decimal_text


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
    costs = exchange_costs(step.snapshot, step.portfolio, step.limits, tokens, prices)
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
                f" {limit_bps}: a drift between the two is not corrected",
                "raise limits.plan_cost above it, or widen the bands (trigger tracking does so itself)",
            )
    if not has_warned:
        yield (
            "routes",
            OK,
            f"every pair of assets can be exchanged, for at most {dearest_bps} bps",
            "",
        )
