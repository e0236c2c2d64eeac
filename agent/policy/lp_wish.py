"""What is to be done with liquidity at this block: first what a budget demands, else what the targets ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import StepInput, Verdict
from agent.policy.lp_adding import Course
from agent.policy.lp_book import open_book
from agent.policy.lp_exits import exits
from agent.policy.lp_moves import NOTHING, Wish
from agent.policy.lp_targets import follow
from agent.units import Price, Value


def must_go(step: StepInput, prices: Mapping[str, Price]) -> Wish:
    """What has to be taken out because a limit is exceeded; NOTHING while both hold. Raises Refused when something is unknown."""
    if not step.portfolio.positions:
        return NOTHING
    return exits(open_book(step, prices), gas_unit_value(step, prices, needed=False))


def asked_for(step: StepInput, prices: Mapping[str, Price]) -> Wish:
    """What the targets ask for, within budget. Raises Refused when something is unknown."""
    if not step.portfolio.lp_targets:
        return NOTHING
    course = Course(open_book(step, prices), gas_unit_value(step, prices, needed=step.limits.plan_cost_bps is not None))
    for target in step.portfolio.lp_targets:
        follow(course, target)
    return Wish(tuple(course.moves), "; ".join(course.reasons), tuple(course.skipped))


def wish(step: StepInput, prices: Mapping[str, Price]) -> Wish:
    """The one or the other."""
    first = must_go(step, prices)
    return first if first.over else asked_for(step, prices)


def within(step: StepInput, pools: Collection[str]) -> StepInput:
    """The step with the targets in these pools alone; all of them where none is named."""
    if not pools:
        return step
    kept = tuple(target for target in step.portfolio.lp_targets if target.pool in pools)
    return replace(step, portfolio=replace(step.portfolio, lp_targets=kept))


def gas_unit_value(step: StepInput, prices: Mapping[str, Price], needed: bool) -> Value:
    """Worth of a unit of gas in numeraire base units; zero where it has no price and is not `needed`, else Refused."""
    native = prices.get(step.portfolio.wrapped_native)
    base_wei = step.snapshot.head.base_fee_wei
    price_wei = step.snapshot.gas_price_wei if base_wei is None else base_wei + step.snapshot.priority_fee_wei
    if native is not None:
        return price_wei * native
    if needed:
        raise Refused(
            "gas cannot be valued: the wrapped native coin has no reference price",
            (Verdict("plan_cost", "gas without a price", f"{step.limits.plan_cost_bps} bps", False),),
            "add the wrapped native coin to portfolio.hubs, or give it a feed",
        )
    return Fraction(0)
