"""Guards on liquidity positions: what they are expected to lose, and how much of the portfolio they are, after the plan's cost."""

from __future__ import annotations

from fractions import Fraction

from agent.errors import Refused
from agent.guards.case import Case, Measured, Missing
from agent.guards.words import money, ratio
from agent.policy import liquidity
from agent.units import BPS

NONE = Measured("no liquidity position", True)


def impermanent_loss(case: Case, limit_bps: int) -> Measured:
    """Mean impermanent loss of all confirmed positions over their horizon, over the portfolio that the plan leaves.

    Prices are references, so that a pushed pool moves nothing here (T3). Swaps do not change what positions stand for.
    """
    if not case.step.portfolio.positions:
        return NONE
    try:
        lost = liquidity.expected_loss(case.step, case.prices)
    except Refused as why:
        raise Missing(why.message) from None
    return _share(case, lost, limit_bps, "expected")


def lp_max_weight(case: Case, limit_bps: int) -> Measured:
    """Value of all confirmed positions over the portfolio that the plan leaves."""
    if not case.step.portfolio.positions:
        return NONE
    return _share(case, case.lp_value(), limit_bps, "in positions")


def _share(case: Case, value: Fraction, limit_bps: int, what: str) -> Measured:
    left = case.total() - max(Fraction(0), case.trading_cost())
    if left <= 0:
        return Measured(f"{money(value, case.numeraire)} {what} of nothing", value == 0)
    return Measured(f"{ratio(value / left)} ({money(value, case.numeraire)} {what})", value * BPS <= limit_bps * left)
