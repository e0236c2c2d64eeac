"""Guard of the weight of an asset: a purchase must not end above the asset's maximum."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.guards.case import GuardCase, GuardMeasurement, measure_in_layer
from agent.guards.guard import format_ratio
from agent.layers.questions import raw_outside_wallet
from agent.model import Rebalance
from agent.units import BPS


def max_weight(case: GuardCase, max_bps_by_token: Mapping[str, int]) -> GuardMeasurement:
    """Measure, among the assets that the plan buys, the one that ends furthest above its maximum
    weight. The excess is rounded down to whole bps.

    `max_bps_by_token` are the maximum weights by token. Sold assets, exits, liquidity actions and
    the numeraire from a manual swap are not judged.
    """
    if case.is_sell_only():
        return GuardMeasurement("an exit", True)
    if not case.plan.legs:
        return GuardMeasurement("no swap", True)
    case.require_complete_replay()
    decision = case.plan.decision
    numeraire = case.numeraire.address
    exempt_tokens = {numeraire} if isinstance(decision, Rebalance) and decision.by_hand else set()
    bought_tokens = [
        token
        for token in max_bps_by_token
        if token not in exempt_tokens and case.replay.delta_raw(token) > 0
    ]
    if not bought_tokens:
        return GuardMeasurement("no asset with a maximum is bought", True)
    value_by_token = _values_after(case)
    total_value = sum(value_by_token.values(), Fraction(0))
    if total_value <= 0:
        return GuardMeasurement("an empty portfolio", False)
    excess_bps_by_token = {
        token: value_by_token[token] / total_value * BPS // 1 - max_bps_by_token[token]
        for token in bought_tokens
    }
    worst_token = max(bought_tokens, key=lambda token: excess_bps_by_token[token])
    return GuardMeasurement(
        f"{case.label(worst_token)} at {format_ratio(value_by_token[worst_token] / total_value)}",
        excess_bps_by_token[worst_token] <= 0,
    )


def _values_after(case: GuardCase) -> dict[str, Fraction]:
    """Return the value of each asset after the plan by token, what is outside the wallet
    included. Raises MissingData.
    """
    outside_raw_by_token = measure_in_layer(lambda: raw_outside_wallet(case.step, case.prices))
    value_by_token = {}
    for asset in case.step.portfolio.assets:
        token = asset.token.address
        raw_after = case.investable_raw(asset) + case.replay.delta_raw(token)
        raw_after += outside_raw_by_token.get(token, 0)
        value_by_token[token] = raw_after * case.price(token)
    return value_by_token
