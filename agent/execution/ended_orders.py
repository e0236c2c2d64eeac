"""Proposals that trade for an order which the owner has ended, or armed again, since."""

from __future__ import annotations

from agent import codec
from agent.execution.shortfall import proposed_plan
from agent.guards import FaultKind, ProposalFault
from agent.model import (
    AgentCycle,
    ExecutionState,
    Intent,
    LimitOrder,
    Plan,
    Rebalance,
    StepRequest,
    SwapAtPrice,
)
from agent.policy.orders.conditional import fired_exit_order
from agent.store.store import Store


def ended_order_fault(store: Store, intent: Intent) -> ProposalFault | None:
    """Return why nobody should sign or execute a proposal whose exit order keeps its asset out no
    longer, or whose limit order was cancelled; None for any other.
    """
    plan = proposed_plan(store, intent)
    step = store.steps.get(intent.step_id)
    if plan is None or step is None or step.request_json is None:
        return None
    request = codec.loads(StepRequest, step.request_json)
    if plan.is_exit and isinstance(request, AgentCycle):
        orders = store.orders.orders_and_version()[0]
        if not any(fired_exit_order(orders, leg.token_in) for leg in plan.legs):
            reason = "the order that it sells for was armed again or switched off"
            return ProposalFault(FaultKind.NOT_ALLOWED, reason)
    elif _is_cancelled(store, plan, _limit_orders(request)):
        return ProposalFault(FaultKind.NOT_ALLOWED, "its limit order was cancelled")
    return None


def _limit_orders(request: StepRequest) -> tuple[LimitOrder, ...]:
    if isinstance(request, SwapAtPrice):
        return (request.order,)
    return request.orders if isinstance(request, AgentCycle) else ()


def _is_cancelled(store: Store, plan: Plan, limit_orders: tuple[LimitOrder, ...]) -> bool:
    """Return whether each of these orders that the plan may fill was cancelled."""
    if not isinstance(plan.decision, Rebalance) or not plan.decision.by_hand:
        return False
    sold_tokens = {leg.token_in for leg in plan.legs}
    filled_ids = {order.id for order in limit_orders if order.token_in in sold_tokens}
    cancelled_ids = {
        order.id
        for order in store.executions.limit_orders()
        if order.state is ExecutionState.CANCELLED
    }
    return bool(filled_ids) and filled_ids <= cancelled_ids
