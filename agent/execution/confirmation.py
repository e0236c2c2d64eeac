"""Confirmation of a plan: what it says, and the later plans that it covers."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from agent import codec
from agent.errors import Refused
from agent.execution.evaluation import REPLAN_REMEDY, ExitRefused
from agent.execution.step_context import StepOutcome
from agent.layers import execution as layer_execution
from agent.model import Confirmation, Cycle, Plan
from agent.policy import native_coin, quarantine
from agent.policy.orders import blocked_exits

UNCONFIRMED_NOTE = "which was not part of the confirmed plan"


def plan_hash(plan: Plan) -> str:
    """Return the hash of what a plan does; block, expiry, verdicts and the proven gap do not
    count.
    """
    plan_terms = replace(plan, block=0, expires_block=0, verdicts=(), gap=None)
    return hashlib.sha256(codec.dumps(plan_terms).encode()).hexdigest()


def confirmation_of(outcome: StepOutcome, plan: Plan) -> Confirmation:
    """Return the confirmation of this plan."""
    step_input = outcome.step_input
    exit_token = outcome.decision_result.exit_token
    return Confirmation(
        plan_hash(plan),
        exit_token,
        native_coin.held_balances(step_input).get(exit_token, 0) if exit_token else 0,
        plan.acts_in_layer,
        bool(plan.layer_actions),
        outcome.decision_result.filled_order_id,
        tuple(sorted(quarantined.token for quarantined in step_input.targets.quarantined_tokens)),
        tuple(sorted(blocked_exit.token for blocked_exit in outcome.decision_result.blocked_exits)),
    )


def covering_confirmation(cycle: Cycle, plan: Plan) -> Confirmation | None:
    """Return the cycle's confirmation if it covers this plan; None if the plan has to be confirmed.
    Actions in a layer and swaps are confirmed separately. After a restart nothing but the confirmed
    plan itself is covered: the owner who confirmed it may have left, and prices may have moved.
    """
    if (
        confirmation := cycle.confirmation
    ) is None or confirmation.acts_in_layer != plan.acts_in_layer:
        return None
    if confirmation.is_of_ended_process and confirmation.plan_hash != plan_hash(plan):
        return None
    return confirmation


def require_as_confirmed(confirmation: Confirmation, outcome: StepOutcome, plan: Plan) -> None:
    """Raise Refused if the plan differs in kind from the confirmed one: tokens excluded since,
    liquidity that has to move before the confirmed swaps, or a different limit order.
    """
    _require_no_new_exclusions(confirmation, outcome)
    for layer in layer_execution.LAYERS:
        layer.require_as_confirmed(confirmation, plan)
    if outcome.decision_result.filled_order_id != confirmation.order_id:
        raise Refused(
            "a limit order was added or removed after the confirmation", remedy=REPLAN_REMEDY
        )


def require_exit_possible(confirmation: Confirmation, outcome: StepOutcome) -> None:
    """Raise ExitRefused if the confirmed exit is no longer possible. Once approved, its token may
    hide its balance, spoil its market or fail screening.
    """
    step = outcome.step_input
    exit_token = confirmation.exit_token
    if not exit_token or exit_token == outcome.decision_result.exit_token:
        return
    token_label = step.portfolio.token(exit_token).label
    causes = [
        quarantine.format_quarantine(step.portfolio, step.targets.quarantined_tokens, {exit_token})
    ]
    causes += [
        f"{token_label} cannot be sold now: {blocked_exit.why}"
        for blocked_exit in step.blocked_exits
        if blocked_exit.token == exit_token
    ]
    if reasons := [f"{reason}, {UNCONFIRMED_NOTE}" for reason in causes if reason]:
        raise ExitRefused("; ".join(reasons), remedy=REPLAN_REMEDY)
    balance_raw = native_coin.held_balances(step).get(exit_token)
    if balance_raw is None:
        raise ExitRefused(
            f"{token_label} was to be sold and its balance cannot be read", remedy=REPLAN_REMEDY
        )
    if balance_raw < confirmation.exit_raw:
        raise ExitRefused(
            f"{token_label} was to be sold and is no longer in the wallet", remedy=REPLAN_REMEDY
        )


def _require_no_new_exclusions(confirmation: Confirmation, outcome: StepOutcome) -> None:
    """Raise Refused for tokens excluded since the plan was confirmed; an exit is never refused
    because of another token.
    """
    step = outcome.step_input
    if outcome.decision_result.exit_token:
        return
    if new_quarantined_tokens := {
        quarantined.token for quarantined in step.targets.quarantined_tokens
    } - {*confirmation.quarantined_tokens}:
        raise Refused(
            f"{quarantine.format_quarantine(step.portfolio, step.targets.quarantined_tokens, new_quarantined_tokens)}, {UNCONFIRMED_NOTE}",
            remedy=REPLAN_REMEDY,
        )
    if new_blocked_tokens := {blocked_exit.token for blocked_exit in step.blocked_exits} - {
        *confirmation.blocked_exit_tokens
    }:
        raise Refused(
            f"{blocked_exits.format_blocked_exits(step, new_blocked_tokens)}, {UNCONFIRMED_NOTE}",
            remedy=REPLAN_REMEDY,
        )
