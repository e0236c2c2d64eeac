"""Guards on liquidity positions: what they are expected to lose, and how much of the portfolio they are, after the plan.

A plan that only takes liquidity out may leave a limit exceeded, if it leaves less than it found.
"""

from __future__ import annotations

from fractions import Fraction

from agent.errors import Refused
from agent.guards.case import Case, Measured, Missing
from agent.guards.words import money, ratio
from agent.model import Provide
from agent.policy import liquidity
from agent.policy.lp_moves import Load
from agent.units import BPS

NONE = Measured("no liquidity position", True)


def impermanent_loss(case: Case, limit_bps: int) -> Measured:
    """Mean impermanent loss of all confirmed positions over their horizon, over the portfolio that the plan leaves.

    Prices are references, so that a pushed pool moves nothing here (T3). Swaps do not change what positions stand for.
    """
    if case.plan.actions:
        before, after = case.loads()
        return _after(case, limit_bps, before, after, (before.loss, after.loss), "expected")
    if not case.step.portfolio.positions:
        return NONE
    try:
        lost = liquidity.expected_loss(case.step, case.prices)
    except Refused as why:
        raise Missing(why.message) from None
    return _share(case, lost, limit_bps, "expected")


def lp_max_weight(case: Case, limit_bps: int) -> Measured:
    """Value of all confirmed positions over the portfolio that the plan leaves."""
    if case.plan.actions:
        before, after = case.loads()
        return _after(case, limit_bps, before, after, (before.weight, after.weight), "in positions")
    if not case.step.portfolio.positions:
        return NONE
    return _share(case, case.lp_value(), limit_bps, "in positions")


def _share(case: Case, value: Fraction, limit_bps: int, what: str) -> Measured:
    left = case.total() - max(Fraction(0), case.trading_cost())
    if left <= 0:
        return Measured(f"{money(value, case.numeraire)} {what} of nothing", value == 0)
    return Measured(f"{ratio(value / left)} ({money(value, case.numeraire)} {what})", value * BPS <= limit_bps * left)


def _after(case: Case, limit_bps: int, before: Load, after: Load, sums: tuple[Fraction, Fraction], what: str) -> Measured:
    """The sum over what the actions leave; above the limit it passes only when the plan does nothing but lower it."""
    if min(before.total, after.total) <= 0:
        return Measured(f"{money(sums[1], case.numeraire)} {what} of nothing", sums[1] == 0)
    was, will = sums[0] / before.total, sums[1] / after.total
    said = f"{ratio(will)} ({money(sums[1], case.numeraire)} {what})"
    if will * BPS <= limit_bps:
        return Measured(said, True)
    lowers = will < was and not any(isinstance(action, Provide) for action in case.plan.actions)
    return Measured(f"{said}, lowered from {ratio(was)}" if lowers else said, lowers)
