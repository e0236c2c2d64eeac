"""Senders of plans: those of the layers, and that of swaps, which also sells exits."""

from __future__ import annotations

from dataclasses import replace

from agent.execution import evaluation
from agent.execution.sending import Draft, PlanSender
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import note_of
from agent.layers import execution as layer_execution
from agent.model import BlockedExit, Cycle, CycleEnd, Intent, Plan
from agent.ports import Composer


def sender_of(plan: Plan) -> PlanSender:
    """Return the sender of this plan."""
    layer_senders = (layer.sender for layer in layer_execution.LAYERS)
    return next(sender for sender in (*layer_senders, SWAP_SENDER) if sender.handles(plan))


def _draft_swap(composer: Composer, outcome: StepOutcome, plan: Plan) -> Draft:
    return Draft(
        composer.swap_transaction(outcome.step_input, plan), "the swap", "nothing was exchanged"
    )


def _after_swap(cycle: Cycle, outcome: StepOutcome, _: Plan, __: Intent) -> Cycle:
    """Return the cycle after an exit, which the next one follows, or after the rebalance, which
    only actions of a layer follow.
    """
    is_failed = outcome.kind is OutcomeKind.FAILED
    if exit_token := outcome.decision_result.exit_token:
        blocked_exit = None
        if is_failed and not outcome.shortfall_tokens:
            blocked_exit = BlockedExit(
                exit_token, evaluation.REVERTED_REASON, evaluation.NO_ACTION_REMEDY
            )
        exit_notes = (*cycle.sent_exits, note_of(outcome, failed=is_failed))
        return replace(cycle.after_exit(blocked_exit), sent_exits=exit_notes)
    cycle = replace(cycle, swap_step_id=outcome.step_id)
    if is_failed:
        return cycle.end(CycleEnd.FAILED)
    if any(layer_part.may_act_again for layer_part in cycle.layers):
        return cycle.begin_plan()
    return cycle.end(CycleEnd.DONE)


SWAP_SENDER = PlanSender(lambda _: True, _draft_swap, _after_swap)
