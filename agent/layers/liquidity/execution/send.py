"""Sends liquidity actions, one per plan."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused
from agent.execution.evaluation import REPLAN_REMEDY
from agent.execution.sending import Draft, PlanSender
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import note_of
from agent.layers.liquidity.execution.cycle import pool_to_skip, skip_pool
from agent.layers.liquidity.state import LiquidityCycle, LiquidityState
from agent.model import Confirmation, Cycle, CycleEnd, Intent, Plan
from agent.ports import Composer


def _draft(composer: Composer, outcome: StepOutcome, plan: Plan) -> Draft:
    """Return the plan's first liquidity action."""
    prepared_tx = composer.layer_transaction(outcome.step_input, plan)
    return Draft(prepared_tx, f'"{prepared_tx.note}"', "no liquidity was moved")


def _after_sent(cycle: Cycle, outcome: StepOutcome, plan: Plan, _: Intent) -> Cycle:
    """Return the cycle after the plan's first action, successful or not."""
    liquidity_cycle = cycle.layer(LiquidityCycle)
    history = outcome.step_input.history
    if not liquidity_cycle.has_sent_action:
        liquidity_cycle = replace(
            liquidity_cycle,
            has_sent_action=True,
            previous_rebalance_s=history.reviews.last_rebalance_s,
            previous_action_s=history.layer(LiquidityState).last_action_s,
        )
    has_failed = outcome.kind is OutcomeKind.FAILED
    if has_failed and (pool := pool_to_skip(cycle, plan)):
        return skip_pool(cycle.with_layer(liquidity_cycle), pool, note_of(outcome, failed=True))
    liquidity_cycle = replace(liquidity_cycle, action_count=liquidity_cycle.action_count + 1)
    cycle = cycle.with_layer(liquidity_cycle)
    if has_failed:
        return cycle.end(CycleEnd.FAILED)
    return cycle.begin_plan() if liquidity_cycle.may_act_again else cycle.end(CycleEnd.STEP_LIMIT)


LIQUIDITY_SENDER = PlanSender(lambda plan: bool(plan.layer_actions), _draft, _after_sent)


def require_as_confirmed(confirmation: Confirmation, plan: Plan) -> None:
    """Raise Refused if liquidity has to move before the confirmed swaps."""
    if plan.layer_actions and not confirmation.has_actions:
        raise Refused("liquidity must be moved before the confirmed swaps", remedy=REPLAN_REMEDY)
