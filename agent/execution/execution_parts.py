"""Records of purchases in parts and limit orders: each part before it is sent, and the end."""

from __future__ import annotations

from agent.execution.step_context import StepOutcome
from agent.model import ExecutionState, StepInput
from agent.policy.cash_flows.purchases import decide_part
from agent.policy.drift import compute_drifts
from agent.policy.step_faults import decision_faults
from agent.reference import reference_prices
from agent.store.store import Store


def end_purchase(store: Store, outcome: StepOutcome) -> None:
    """Record the end of a purchase that the decision ends."""
    active_purchase = outcome.step_input.history.cash_flows.purchase
    end_reason = outcome.decision_result.purchase_result.end_reason
    if active_purchase is not None and end_reason:
        chain_s = outcome.step_input.snapshot.head.timestamp_s
        store.executions.end(active_purchase.id, ExecutionState.ENDED, end_reason, chain_s)


def end_finished_purchase(store: Store, step: StepInput) -> None:
    """Record the end of a purchase of which nothing is left at this step, so that a later drift is
    not bought as another part of it.
    """
    active_purchase = step.history.cash_flows.purchase
    references = reference_prices(step)
    if active_purchase is None or decision_faults(step, references):  # the next cycle judges it
        return
    part_decision = decide_part(step, compute_drifts(step, references.price_by_token))
    if part_decision is not None and part_decision[1].end_reason:
        chain_s = step.snapshot.head.timestamp_s
        store.executions.end(
            active_purchase.id, ExecutionState.ENDED, part_decision[1].end_reason, chain_s
        )


def record_part_begin(store: Store, outcome: StepOutcome) -> None:
    """Record the part of a purchase, or the limit order, that is sent next; a new purchase is
    recorded before its first part. Raises Refused if it has ended meanwhile.
    """
    decision_result = outcome.decision_result
    active_purchase = outcome.step_input.history.cash_flows.purchase
    due_part = decision_result.purchase_result.due_part
    new_purchase = decision_result.purchase_result.new_purchase
    part_number = 1 if due_part is None else due_part.number
    if decision_result.filled_order_id:
        execution_id = decision_result.filled_order_id
    elif new_purchase is not None:
        execution_id = store.executions.begin_purchase(new_purchase)
    elif due_part is not None and active_purchase is not None:
        execution_id = active_purchase.id
    else:
        return
    at_s = outcome.step_input.snapshot.head.timestamp_s
    store.executions.begin_attempt(execution_id, part_number, outcome.step_id, at_s)
