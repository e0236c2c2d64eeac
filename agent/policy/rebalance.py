"""Rebalance of a fired trigger, or the hold instead: cooldown, price of gas, confirmation by the
preceding blocks, and corrections that are not worth a trade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.model import (
    AssetDrift,
    Decision,
    Destination,
    Goal,
    History,
    Hold,
    Limits,
    NoTradeZone,
    Policy,
    Portfolio,
    Rebalance,
    Snapshot,
    StepInput,
    is_tracking,
)
from agent.policy import minimum
from agent.policy.cash_flows import purchases
from agent.policy.drift import corrections, rebalance_goal
from agent.policy.one_sided import restrict_to_side
from agent.policy.triggers import bands, price_confirmation
from agent.policy.triggers.bands import TriggerResult
from agent.policy.triggers.tracking import edge_drifts
from agent.reference import ReferencePrices
from agent.units import Price, Value, format_duration, format_time

WAITING_RULES = ("policy.cooldown", "gas")
"""Rules of the holds of a fired trigger whose trade is only postponed."""


def rebalance_or_hold(
    step: StepInput,
    drifts: tuple[AssetDrift, ...],
    references: ReferencePrices,
    trigger_result: TriggerResult,
    combined_goal: Goal | None = None,
) -> tuple[Decision, bool]:
    """Return the decision of a fired trigger, and whether its review is done.

    The decision is a hold within the cooldown, while gas is too expensive, or if no correction is
    worth a trade; else a rebalance. `combined_goal` is that of the parts that divide the wallet,
    each with its own cooldown.
    """
    if combined_goal is None and (
        cooldown := active_cooldown(step.snapshot, step.policy, step.history)
    ):
        return Hold(f"{trigger_result.reason}; {cooldown.reason}", "policy.cooldown"), False
    if gas_reason := minimum.gas_too_high_reason(step, drifts, references):
        return Hold(f"{trigger_result.reason}; {gas_reason}", limiting_rule="gas"), False
    is_first_purchase = purchases.is_first_purchase(step.limits, step.history)
    if combined_goal is not None:
        goal = combined_goal
    elif buys_to_targets_first(step):
        goal = purchases.purchase_goal(step, drifts)
    else:
        goal = current_goal(step.portfolio, step.policy, drifts)
    largest_correction_value = largest_correction(drifts, goal)
    if not is_worth_a_trade(step.limits, drifts, largest_correction_value):
        return _too_small_hold(
            step.portfolio, step.policy, step.limits, largest_correction_value, trigger_result
        ), trigger_result.is_review_due
    if is_first_purchase:
        rebalance_name = purchases.first_rebalance_name(step.portfolio, step.limits, drifts, goal)
        reason = f"{rebalance_name}; {trigger_result.reason}"
        if is_tracking(step.policy.trigger) and combined_goal is None:
            # Its ranges say where to trade back to, and this trade goes to the targets.
            weights_text = "; ".join(
                bands.weight_and_target_text(drift) for drift in drifts if drift.is_outside_band
            )
            reason = f"{rebalance_name}; {weights_text}"
        exempt_turnover = purchases.turnover_allowance(step)
        return Rebalance(
            reason, goal, exempt_turnover=exempt_turnover
        ), trigger_result.is_review_due
    return Rebalance(trigger_result.reason, goal), trigger_result.is_review_due


def _too_small_hold(
    portfolio: Portfolio,
    policy: Policy,
    limits: Limits,
    largest_correction_value: Value,
    trigger_result: TriggerResult,
) -> Hold:
    """Return the hold of a fired trigger whose largest correction is too small, or on the side that
    policy.only excludes.
    """
    hold_reason = f"{trigger_result.reason}; nothing to do"
    limiting_rule = ""
    if policy.trade_side is not None:
        hold_reason += f" under policy.only = {policy.trade_side.value}"
        limiting_rule = "policy.only"
    if largest_correction_value and limits.min_trade:
        hold_reason += (
            f": the largest correction is {portfolio.numeraire.money_text(largest_correction_value)}, min_trade"
            f" {portfolio.numeraire.money_text(limits.min_trade)}"
        )
        limiting_rule = "limits.min_trade"
    return replace(
        review_hold(TriggerResult(False, hold_reason, trigger_result.next_s)),
        limiting_rule=limiting_rule,
    )


def largest_correction(drifts: tuple[AssetDrift, ...], goal: Goal) -> Value:
    """Return the largest value to buy or sell of an asset until the goal is reached."""
    return max(abs(correction_value) for correction_value in corrections(drifts, goal).values())


DUST_SHARE = Fraction(1, 10**9)
"""Share of the portfolio up to which a correction is of rounding: no swap trades it."""


def is_worth_a_trade(
    limits: Limits, drifts: tuple[AssetDrift, ...], largest_correction_value: Value
) -> bool:
    """True if the largest correction is worth a trade."""
    dust_value = DUST_SHARE * sum(drift.value for drift in drifts)
    return largest_correction_value > dust_value and largest_correction_value >= (
        limits.min_trade or 0
    )


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Why no rebalance follows the last action yet, and until when."""

    reason: str
    end_s: int


def active_cooldown(
    snapshot: Snapshot,
    policy: Policy,
    history: History,
    other_action: tuple[int | None, str] = (None, ""),
) -> Cooldown | None:
    """Return the cooldown; None outside a cooldown.

    It counts from the last rebalance, the last trades of the layers, and `other_action`: the chain
    time and the name of a further action, which starts no cooldown of rebalances.
    """
    actions = [
        (history.reviews.last_rebalance_s, "rebalance"),
        *(layer_state.last_trade_end for layer_state in history.layers),
        other_action,
    ]
    last_action_s, action_name = max(
        ((at_s, action_name) for at_s, action_name in actions if at_s is not None),
        default=(None, ""),
    )
    if last_action_s is None or snapshot.head.timestamp_s >= last_action_s + policy.cooldown_s:
        return None
    end_s = last_action_s + policy.cooldown_s
    reason = (
        f"but the last {action_name} was at {format_time(last_action_s)}; no rebalance follows before"
        f" {format_time(end_s)} (cooldown {format_duration(policy.cooldown_s)})"
    )
    return Cooldown(reason, end_s)


def current_goal(portfolio: Portfolio, policy: Policy, drifts: tuple[AssetDrift, ...]) -> Goal:
    """Return the goal of a rebalance now."""
    trigger = policy.trigger
    numeraire = portfolio.numeraire.address
    if not isinstance(trigger, NoTradeZone):
        goal = bands.cap_goal(drifts, rebalance_goal(drifts, policy.destination))
        return restrict_to_side(drifts, goal, policy.trade_side, numeraire)
    if bands.must_reduce_weight(policy, drifts):
        return bands.reduction_goal(drifts)
    is_leaving = any(drift.is_outside_band and not drift.target_bps for drift in drifts)
    if trigger.risk.widths and (is_leaving or policy.trade_side is not None):
        ranged_drifts = edge_drifts(
            trigger.risk, drifts, numeraire, fired_only=policy.trade_side is None
        )
        goal = rebalance_goal(ranged_drifts, Destination.BAND)
        return restrict_to_side(drifts, goal, policy.trade_side, numeraire)
    return replace(rebalance_goal(drifts, policy.destination), risk=trigger.risk)


def buys_to_targets_first(step: StepInput) -> bool:
    """Return whether the next rebalance is a first purchase, which goes to the targets, wherever
    later ones trade to.
    """
    is_first_purchase = purchases.is_first_purchase(step.limits, step.history)
    return is_first_purchase and not has_fixed_horizon(step.policy)


def has_fixed_horizon(policy: Policy) -> bool:
    """Return whether the trigger is a zone with a horizon of the owner."""
    return isinstance(policy.trigger, NoTradeZone) and not is_tracking(policy.trigger)


def confirm_rebalance(
    step: StepInput,
    prices: Mapping[str, Price],
    decision: Rebalance,
    *,
    review_done: bool,
    needs_no_confirmation: bool,
) -> tuple[Decision, bool]:
    """Return the rebalance if it needs no confirmation or the preceding blocks confirm it; else a hold
    whose review stays due.
    """
    unconfirmed_why = (
        ""
        if needs_no_confirmation
        else price_confirmation.unconfirmed_reason(step, prices, price_confirmation.trigger_signals)
    )
    if unconfirmed_why:
        return unconfirmed_hold(decision.reason, unconfirmed_why), False
    return decision, review_done


def unconfirmed_hold(reason: str, unconfirmed_why: str) -> Hold:
    """Return the hold of what the preceding blocks do not confirm yet."""
    return Hold(
        f"{reason}; but {unconfirmed_why}; checked again in the next cycle",
        limiting_rule="policy.confirm_blocks",
    )


def review_hold(trigger_result: TriggerResult) -> Hold:
    """Return the hold of a trigger, with the time of its next review."""
    next_review = "checked again in the next cycle"
    if trigger_result.next_s is not None:
        next_review = f"next review {format_time(trigger_result.next_s)}"
    reason = trigger_result.reason
    if next_review not in reason:
        reason = f"{reason}; {next_review}"
    return Hold(reason)
