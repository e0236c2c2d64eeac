"""Guards of liquidity: cost, minimums and predictions of actions, and the limits of expected loss
and weight after every plan. Above a limit, a plan that only withdraws passes if it reduces the
excess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from agent.guards.case import GuardCase, GuardMeasurement, measure_in_layer
from agent.guards.guard import Guard, format_money, format_ratio, limit_guard
from agent.layers.liquidity.guard_case import LiquidityCase
from agent.layers.liquidity.policy import valuation
from agent.layers.liquidity.policy.book import Amounts, LiquidityExposure
from agent.layers.liquidity.policy.replay import SimulatedAction, worst_overpayment_share
from agent.model import Collect, LpAction, Portfolio, Provide, Snapshot, Withdraw
from agent.units import BPS, Price

NO_POSITION = GuardMeasurement("no liquidity position", True)


def impermanent_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the expected impermanent loss of all confirmed positions over their horizon, over the
    portfolio after the plan.

    Reference prices are used, so a manipulated pool has no effect (T3). Swaps do not change the
    amounts of positions.
    """
    return _measure_positions(
        case, limit_bps, lambda exposure: exposure.loss, valuation.expected_loss, "expected"
    )


def lp_max_weight(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the value of all confirmed positions over the portfolio after the plan."""
    return _measure_positions(
        case, limit_bps, lambda exposure: exposure.value, valuation.total_value, "in positions"
    )


def _measure_positions(
    case: GuardCase,
    limit_bps: int,
    exposure_value: Callable[[LiquidityExposure], Fraction],
    positions_value: Callable[[Snapshot, Portfolio, Mapping[str, Price]], Fraction],
    qualifier: str,
) -> GuardMeasurement:
    """Return the share of what `exposure_value` reads before and after actions, or of
    `positions_value` for a plan without.
    """
    if isinstance(case.layer_answers, LiquidityCase):
        exposure_before, exposure_after = measure_in_layer(case.layer_answers.exposures)
        return _measure_after_actions(
            case,
            limit_bps,
            exposure_before,
            exposure_after,
            exposure_value(exposure_before),
            exposure_value(exposure_after),
            qualifier,
        )
    if not case.step.portfolio.positions or case.layer_answers.only_reduces():
        return NO_POSITION
    measured_value = measure_in_layer(
        lambda: positions_value(case.step.snapshot, case.step.portfolio, case.prices)
    )
    return _measure_liquidity(case, measured_value, limit_bps, qualifier)


def _measure_liquidity(
    case: GuardCase, measured_value: Fraction, limit_bps: int, qualifier: str
) -> GuardMeasurement:
    portfolio_value_after = case.portfolio_value() - max(Fraction(0), case.trading_cost())
    if portfolio_value_after <= 0:
        return GuardMeasurement(
            f"{format_money(measured_value, case.numeraire)} {qualifier} of an empty portfolio",
            measured_value == 0,
        )
    measured_text = f"{format_ratio(measured_value / portfolio_value_after)} ({format_money(measured_value, case.numeraire)} {qualifier})"
    if measured_value * BPS <= limit_bps * portfolio_value_after:
        return GuardMeasurement(measured_text, True)
    if case.is_risk_reducing():
        return GuardMeasurement(f"{measured_text}: not applied to an exit", True)
    return GuardMeasurement(measured_text, False)


def _measure_after_actions(
    case: GuardCase,
    limit_bps: int,
    exposure_before: LiquidityExposure,
    exposure_after: LiquidityExposure,
    value_before: Fraction,
    value_after: Fraction,
    qualifier: str,
) -> GuardMeasurement:
    """Return the share after the actions. Above the limit, a plan passes if it only withdraws and
    lowers the share.
    """
    if min(exposure_before.portfolio_value, exposure_after.portfolio_value) <= 0:
        return GuardMeasurement(
            f"{format_money(value_after, case.numeraire)} {qualifier} of an empty portfolio",
            value_after == 0,
        )
    share_before = value_before / exposure_before.portfolio_value
    share_after = value_after / exposure_after.portfolio_value
    measured_text = (
        f"{format_ratio(share_after)} ({format_money(value_after, case.numeraire)} {qualifier})"
    )
    if share_after * BPS <= limit_bps:
        return GuardMeasurement(measured_text, True)
    is_lowered = share_after < share_before and not any(
        isinstance(action, Provide) for action in case.plan.layer_actions
    )
    return GuardMeasurement(
        f"{measured_text}, lowered from {format_ratio(share_before)}"
        if is_lowered
        else measured_text,
        is_lowered,
    )


def plan_cost(case: GuardCase, limit_bps: int) -> GuardMeasurement | None:
    """Return gas, and overpayment in a pool off the reference, per unit of value provided,
    withdrawn or collected; None for a plan without actions.
    """
    if not case.plan.layer_actions:
        return None
    moved_value = sum((simulation.value for simulation in _simulated_actions(case)), Fraction(0))
    cost = case.cost()
    cost_text = format_money(cost, case.numeraire)
    if case.is_required_by_layer():
        return GuardMeasurement(
            f"{cost_text} of gas: not applied to liquidity above its limit", True
        )
    if moved_value == 0:
        return GuardMeasurement(cost_text, cost <= 0)
    return GuardMeasurement(
        f"{format_ratio(cost / moved_value)} ({cost_text})", cost * BPS <= limit_bps * moved_value
    )


def smallest_action(case: GuardCase, limit: Fraction) -> GuardMeasurement | None:
    """Return the value of the smallest action; one that a liquidity limit requires may be smaller.
    None for a plan without actions.
    """
    if not case.plan.layer_actions:
        return None
    smallest_value, action_name = min(
        (simulation.value, simulation.action.name) for simulation in _simulated_actions(case)
    )
    action_text = f"{format_money(smallest_value, case.numeraire)} of {action_name}"
    if case.is_required_by_layer():
        return GuardMeasurement(f"{action_text}: not applied to liquidity above its limit", True)
    return GuardMeasurement(action_text, smallest_value >= limit)


def slippage(case: GuardCase, limit_bps: int) -> GuardMeasurement | None:
    """Return the largest overpayment within the band of prices that the limits accept
    (amm/lp/slippage.py), to which fair_floor ties the minimums; None for a plan without actions.
    """
    if not case.plan.layer_actions:
        return None
    largest_overpayment_share = Fraction(0)
    for simulation in _simulated_actions(case):
        if any(
            minimum > amount
            for minimum, amount in zip(simulation.minimums, simulation.amounts, strict=True)
        ):
            return GuardMeasurement(
                f"action {simulation.number} has a minimum of {simulation.minimums}, the contracts move"
                f" {simulation.amounts}",
                False,
            )
        largest_overpayment_share = max(
            largest_overpayment_share, worst_overpayment_share(simulation, case.step.limits)
        )
    return GuardMeasurement(
        format_ratio(largest_overpayment_share), largest_overpayment_share * BPS <= limit_bps
    )


def measure_fair_floor(case: GuardCase, _: bool) -> GuardMeasurement | None:
    """Require each minimum of an action to be at least that of the reference price; None for a plan
    without actions.
    """
    if not case.plan.layer_actions:
        return None
    for simulation in _simulated_actions(case):
        for lowest_minimum, minimum in zip(
            simulation.lowest_minimums, simulation.minimums, strict=True
        ):
            if minimum < lowest_minimum:
                return GuardMeasurement(
                    f"action {simulation.number} has a minimum of {minimum}, the reference requires"
                    f" {lowest_minimum}",
                    False,
                )
    return GuardMeasurement("every action at or above it", True)


def measure_overspending(case: GuardCase, _: bool) -> GuardMeasurement | None:
    """Refuse an action that provides more than investable balances and the minimums of earlier
    actions; None if there is none.
    """
    for simulation in _simulated_actions(case):
        if not isinstance(action := simulation.action, Provide):
            continue
        for token, desired_raw in zip(
            (action.token0, action.token1), action.desired_raw, strict=True
        ):
            overspent_raw = desired_raw - simulation.book_before.spendable_raw(token)
            if overspent_raw > 0:
                return GuardMeasurement(
                    f"action {simulation.number} provides {overspent_raw} base units of {case.label(token)}"
                    " too much",
                    False,
                )
    return None


def measure_misprediction(case: GuardCase, _: bool) -> GuardMeasurement | None:
    """Refuse a plan that predicts other amounts of its actions, or other final balances, than the
    replay; None if there are none.
    """
    for simulation in _simulated_actions(case):
        simulated_amounts = simulation.liquidity, simulation.amounts, simulation.fees
        predicted_amounts = _predicted_amounts(simulation.action)
        if simulated_amounts != predicted_amounts:
            return GuardMeasurement(
                f"action {simulation.number} moves {simulated_amounts}, the plan predicts {predicted_amounts}",
                False,
            )
    if isinstance(case.layer_answers, LiquidityCase):
        final_raw_by_token = case.layer_answers.replay.book_after.wallet_raw_by_token
        for token, predicted_raw in case.plan.holdings_after:
            if final_raw_by_token.get(token) != predicted_raw:
                return GuardMeasurement(
                    f"{case.label(token)} ends at {final_raw_by_token.get(token)} base units, the plan predicts"
                    f" {predicted_raw}",
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


def _simulated_actions(case: GuardCase) -> tuple[SimulatedAction, ...]:
    """Return the simulated actions, none for a plan of another kind. Raises MissingData."""
    return (
        measure_in_layer(case.layer_answers.simulated_actions)
        if isinstance(case.layer_answers, LiquidityCase)
        else ()
    )


POSITION_GUARDS: tuple[Guard[Any], ...] = (
    limit_guard(
        "impermanent_loss",
        lambda limits: limits.impermanent_loss_bps,
        impermanent_loss,
        "withdraw liquidity until the expected loss fits (trimtab lp), or raise"
        " limits.impermanent_loss",
    ),
    limit_guard(
        "lp_max_weight",
        lambda limits: limits.lp_max_weight_bps,
        lp_max_weight,
        "withdraw liquidity until its share fits (trimtab lp), or raise limits.lp_max_weight",
    ),
)
"""Guards of the limits on positions, in the order of their verdicts."""
