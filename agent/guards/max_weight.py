"""Guard on the weight of a single asset: what a plan buys may not end above the most that its asset may be."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.errors import Refused
from agent.guards.case import Case, Measured, Missing
from agent.guards.words import ratio
from agent.model import Rebalance
from agent.policy import liquidity
from agent.units import BPS


def max_weight(case: Case, most: Mapping[str, int]) -> Measured:
    """Largest weight after the plan of what it buys, in whole bps, against the limits `most` by token.

    What is sold, or rises by its price alone, is not judged: selling is never held back. Nor is an exit, or the numeraire that a
    swap by hand brings. Actions with liquidity exchange nothing.
    """
    if case.sells_only():
        return Measured("an exit", True)
    if not case.plan.legs:
        return Measured("nothing is exchanged", True)
    case.runs()
    decision, cash = case.plan.decision, case.numeraire.address
    free = {cash} if isinstance(decision, Rebalance) and decision.by_hand else set()
    bought = [token for token in most if token not in free and case.replay.delta(token) > 0]
    if not bought:
        return Measured("nothing is bought that has one", True)
    values = _after(case)
    whole = sum(values.values(), Fraction(0))
    if whole <= 0:
        return Measured("nothing is left", False)
    beyond = {token: values[token] / whole * BPS // 1 - most[token] for token in bought}
    worst = max(bought, key=lambda token: beyond[token])
    return Measured(f"{case.label(worst)} at {ratio(values[worst] / whole)}", beyond[worst] <= 0)


def _after(case: Case) -> dict[str, Fraction]:
    """Value of each asset after the plan by token, what lies in liquidity positions included. Raises Missing."""
    try:
        in_positions = liquidity.holdings(case.step, case.prices)
    except Refused as why:
        raise Missing(why.message) from None
    found = {}
    for asset in case.step.portfolio.assets:
        token = asset.token.address
        raw = case.investable(asset) + case.replay.delta(token) + in_positions.get(token, 0)
        found[token] = raw * case.price(token)
    return found
