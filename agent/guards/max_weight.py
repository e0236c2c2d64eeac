"""Guard of the weight of an asset: a purchase must not end above the asset's maximum."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.guards.case import GuardCase, GuardMeasurement, known
from agent.guards.guard import format_ratio
from agent.layers.questions import outside_raw
from agent.model import Rebalance
from agent.units import BPS


def max_weight(case: GuardCase, most: Mapping[str, int]) -> GuardMeasurement:
    """Return the weight after the plan of the bought asset that is furthest above its maximum, in
    whole bps.

    `most` are the maximum weights by token. Sold assets, exits, liquidity actions and the numeraire
    from a manual swap are not judged.
    """
    if case.is_sell_only():
        return GuardMeasurement("an exit", True)
    if not case.plan.legs:
        return GuardMeasurement("no swap", True)
    case.runs()
    decision, cash = case.plan.decision, case.numeraire.address
    free = {cash} if isinstance(decision, Rebalance) and decision.by_hand else set()
    bought = [token for token in most if token not in free and case.replay.delta(token) > 0]
    if not bought:
        return GuardMeasurement("no asset with a maximum is bought", True)
    values = _weight_after(case)
    whole = sum(values.values(), Fraction(0))
    if whole <= 0:
        return GuardMeasurement("an empty portfolio", False)
    beyond = {token: values[token] / whole * BPS // 1 - most[token] for token in bought}
    worst = max(bought, key=lambda token: beyond[token])
    return GuardMeasurement(
        f"{case.label(worst)} at {format_ratio(values[worst] / whole)}", beyond[worst] <= 0
    )


def _weight_after(case: GuardCase) -> dict[str, Fraction]:
    """Return the value of each asset after the plan by token, what is outside the wallet
    included. Raises MissingData.
    """
    outside, values = known(lambda: outside_raw(case.step, case.prices)), {}
    for asset in case.step.portfolio.assets:
        token = asset.token.address
        raw = case.investable(asset) + case.replay.delta(token)
        raw += outside.get(token, 0)
        values[token] = raw * case.price(token)
    return values
