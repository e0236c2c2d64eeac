"""Guards of liquidity: cost, minimums and predictions of actions, and the limits of expected loss and
weight after every plan. Above a limit, a plan that only withdraws passes if it reduces the excess.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from agent.guards.case import GuardCase, GuardMeasurement, MissingData, known
from agent.guards.guard import Guard, format_money, format_ratio, limited
from agent.layers.liquidity.guard_case import LiquidityCase
from agent.layers.liquidity.policy import valuation
from agent.layers.liquidity.policy.book import Amounts, LiquidityExposure
from agent.layers.liquidity.policy.replay import SimulatedAction, worst_overpayment_share
from agent.model import Collect, LpAction, Provide, Withdraw
from agent.units import BPS

NONE = GuardMeasurement("no liquidity position", True)


def impermanent_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the expected impermanent loss of all confirmed positions over their horizon, over the
    portfolio after the plan.

    Reference prices are used, so a manipulated pool has no effect (T3). Swaps do not change the
    amounts of positions.
    """
    if isinstance(case.layer, LiquidityCase):
        before, after = known(case.layer.loads)
        return _after(case, limit_bps, before, after, (before.loss, after.loss), "expected")
    if not case.step.portfolio.positions or case.layer.only_reduces():
        return NONE
    lost = known(
        lambda: valuation.expected_loss(case.step.snapshot, case.step.portfolio, case.prices)
    )
    return _liquidity_share(case, lost, limit_bps, "expected")


def lp_max_weight(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the value of all confirmed positions over the portfolio after the plan."""
    if isinstance(case.layer, LiquidityCase):
        before, after = known(case.layer.loads)
        return _after(case, limit_bps, before, after, (before.weight, after.weight), "in positions")
    if not case.step.portfolio.positions or case.layer.only_reduces():
        return NONE
    value = known(
        lambda: valuation.total_value(case.step.snapshot, case.step.portfolio, case.prices)
    )
    return _liquidity_share(case, value, limit_bps, "in positions")


def _liquidity_share(
    case: GuardCase, value: Fraction, limit_bps: int, what: str
) -> GuardMeasurement:
    left = case.total() - max(Fraction(0), case.trading_cost())
    if left <= 0:
        return GuardMeasurement(
            f"{format_money(value, case.numeraire)} {what} of an empty portfolio", value == 0
        )
    message = f"{format_ratio(value / left)} ({format_money(value, case.numeraire)} {what})"
    if value * BPS <= limit_bps * left:
        return GuardMeasurement(message, True)
    if case.is_risk_reducing():
        return GuardMeasurement(f"{message}: not applied to an exit", True)
    return GuardMeasurement(message, False)


def _after(
    case: GuardCase,
    limit_bps: int,
    before: LiquidityExposure,
    after: LiquidityExposure,
    sums: tuple[Fraction, Fraction],
    what: str,
) -> GuardMeasurement:
    """Return the share after the actions. Above the limit, a plan passes if it only withdraws and
    lowers the share.
    """
    if min(before.total, after.total) <= 0:
        return GuardMeasurement(
            f"{format_money(sums[1], case.numeraire)} {what} of an empty portfolio", sums[1] == 0
        )
    was, will = sums[0] / before.total, sums[1] / after.total
    message = f"{format_ratio(will)} ({format_money(sums[1], case.numeraire)} {what})"
    if will * BPS <= limit_bps:
        return GuardMeasurement(message, True)
    lowers = will < was and not any(isinstance(action, Provide) for action in case.plan.actions)
    return GuardMeasurement(
        f"{message}, lowered from {format_ratio(was)}" if lowers else message, lowers
    )


def plan_cost(case: GuardCase, limit_bps: int) -> GuardMeasurement | None:
    """Return gas, and overpayment in a pool off the reference, per unit of value provided, withdrawn
    or collected; None for a plan without actions.
    """
    if not case.plan.actions:
        return None
    moved, cost = sum((run.value for run in _runs(case)), Fraction(0)), case.cost()
    message = format_money(cost, case.numeraire)
    if case.is_exit():
        return GuardMeasurement(f"{message} of gas: not applied to liquidity above its limit", True)
    if moved == 0:
        return GuardMeasurement(message, cost <= 0)
    return GuardMeasurement(
        f"{format_ratio(cost / moved)} ({message})", cost * BPS <= limit_bps * moved
    )


def smallest_action(case: GuardCase, limit: Fraction) -> GuardMeasurement | None:
    """Return the value of the smallest action; one that a liquidity limit requires may be smaller.
    None for a plan without actions.
    """
    if not case.plan.actions:
        return None
    smallest, name = min((run.value, run.action.name) for run in _runs(case))
    message = f"{format_money(smallest, case.numeraire)} of {name}"
    if case.is_exit():
        return GuardMeasurement(f"{message}: not applied to liquidity above its limit", True)
    return GuardMeasurement(message, smallest >= limit)


def slippage(case: GuardCase, limit_bps: int) -> GuardMeasurement | None:
    """Return the largest overpayment that the minimums of the actions allow (amm/lp/minting.py);
    None for a plan without actions.
    """
    if not case.plan.actions:
        return None
    worst = Fraction(0)
    for run in _runs(case):
        if any(least > amount for least, amount in zip(run.minimums, run.amounts, strict=True)):
            return GuardMeasurement(
                f"action {run.number} has a minimum of {run.minimums}, the contracts move"
                f" {run.amounts}",
                False,
            )
        worst = max(worst, worst_overpayment_share(run, case.step.limits))
    return GuardMeasurement(format_ratio(worst), worst * BPS <= limit_bps)


def fair_floor_kept(case: GuardCase) -> GuardMeasurement | None:
    """Require each minimum of an action to be at least that of the reference price; None for a plan
    without actions.
    """
    if not case.plan.actions:
        return None
    for run in _runs(case):
        for least, minimum in zip(run.lowest_minimums, run.minimums, strict=True):
            if minimum < least:
                return GuardMeasurement(
                    f"action {run.number} has a minimum of {minimum}, the reference requires"
                    f" {least}",
                    False,
                )
    return GuardMeasurement("every action at or above it", True)


def pool_deviations(case: GuardCase) -> Iterator[tuple[Fraction, str]]:
    """Yield the deviation of each action's pool from the reference, with its name."""
    for run in _runs(case):
        if run.deviation is None:
            raise MissingData(f"pool {run.action.pool} has no price")
        yield run.deviation, f"pool {run.action.pool}"


def overspent(case: GuardCase) -> GuardMeasurement | None:
    """Refuse an action that provides more than investable balances and the minimums of earlier
    actions; None if there is none.
    """
    for run in _runs(case):
        if not isinstance(action := run.action, Provide):
            continue
        for token, raw in zip((action.token0, action.token1), action.desired_raw, strict=True):
            short = raw - run.before.spendable(token)
            if short > 0:
                return GuardMeasurement(
                    f"action {run.number} provides {short} base units of {case.label(token)}"
                    " too much",
                    False,
                )
    return None


def mispredicted(case: GuardCase) -> GuardMeasurement | None:
    """Refuse a plan that predicts other amounts of its actions, or other final balances, than the
    replay; None if there are none.
    """
    for run in _runs(case):
        simulated = run.liquidity, run.amounts, run.fees
        predicted = _predicted_amounts(run.action)
        if simulated != predicted:
            return GuardMeasurement(
                f"action {run.number} moves {simulated}, the plan predicts {predicted}", False
            )
    if isinstance(case.layer, LiquidityCase):
        ends = case.layer.replay.after.balances
        for token, raw in case.plan.holdings_after:
            if ends.get(token) != raw:
                return GuardMeasurement(
                    f"{case.label(token)} ends at {ends.get(token)} base units, the plan predicts"
                    f" {raw}",
                    False,
                )
    return None


def _predicted_amounts(action: LpAction) -> tuple[int, Amounts, Amounts]:
    """Return the liquidity, amounts and fees that an action predicts."""
    match action:
        case Withdraw():
            return action.liquidity, action.amounts_raw, action.fees_raw
        case Collect():
            return 0, (0, 0), action.fees_raw
        case Provide():
            return action.liquidity, action.amounts_raw, (0, 0)


def _runs(case: GuardCase) -> tuple[SimulatedAction, ...]:
    """Return the simulated actions, none for a plan of another kind. Raises MissingData."""
    return known(case.layer.runs) if isinstance(case.layer, LiquidityCase) else ()


HOLDING_GUARDS: tuple[Guard[Any], ...] = (
    limited(
        "impermanent_loss",
        lambda limits: limits.impermanent_loss_bps,
        impermanent_loss,
        "withdraw liquidity until the expected loss fits (trimtab lp), or raise"
        " limits.impermanent_loss",
    ),
    limited(
        "lp_max_weight",
        lambda limits: limits.lp_max_weight_bps,
        lp_max_weight,
        "withdraw liquidity until its share fits (trimtab lp), or raise limits.lp_max_weight",
    ),
)
"""Guards of the limits on positions, in the order of their verdicts."""
