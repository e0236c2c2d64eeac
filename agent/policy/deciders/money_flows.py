"""Decisions on money that came, goes, or is invested in parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.model import Hold, LayerResult
from agent.policy import native_coin
from agent.policy.cash_flows import purchases, transfers
from agent.policy.decision import DecisionContext, DecisionResult, halt_with


def wait_for_money_flows(context: DecisionContext) -> DecisionResult | None:
    """Wait while a withdrawal is open, a balance change unexplained, or the margin unknown."""
    if not context.exits_only_faults:
        return None
    halt = halt_with(context.exits_only_faults)
    next_s = transfers.next_part_s(
        context.step.snapshot, context.step.history.cash_flows.pending_payments
    )
    if next_s is None:
        return context.result(halt)
    return context.result(Hold(halt.reason, "limits.first_purchase"))


def continue_purchase(
    context: DecisionContext, *, layer_part: Callable[[DecisionContext], LayerResult] | None = None
) -> DecisionResult | None:
    """Trade the due part of the active purchase, or wait for it; `layer_part` returns a layer's
    part of the decision.
    """
    step = context.step
    if (decision_and_part := purchases.decide_part(step, context.drifts)) is None:
        return None
    decision, purchase_result = decision_and_part
    decision_result = replace(context.result(decision), purchase_result=purchase_result)
    if layer_part is not None:
        decision_result = decision_result.with_layer(layer_part(context))
    if purchase_result.due_part is not None and (refill := native_coin.top_up(step, decision)):
        return decision_result.without_trades(refill)
    return decision_result
