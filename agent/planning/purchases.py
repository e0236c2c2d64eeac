"""Plans of purchases in parts (limits.first_purchase)."""

from __future__ import annotations

from dataclasses import replace

from agent.layers import sales
from agent.model import (
    Hold,
    Plan,
    Purchase,
    PurchaseKind,
    PurchasePart,
    PurchaseResult,
    Rebalance,
    StepInput,
)
from agent.planning.partial_plans import DAILY_LOSS_LIMIT, daily_loss_wait_reason, fits_daily_loss
from agent.planning.purchase_plans import (
    daily_loss_reason,
    goal_value_to_move,
    plan_proportional_part,
)
from agent.policy.cash_flows import purchases
from agent.policy.decision import DecisionResult
from agent.units import Value, ceil_int

PurchasePlan = tuple[DecisionResult, Plan | None]


def plan_purchase(
    step: StepInput, decision_result: DecisionResult, decision: Rebalance, kind: PurchaseKind
) -> PurchasePlan:
    """Return the purchase in one plan, or its next part; a first part begins the purchase.

    Returns a hold without a plan while the remainder of limits.daily_loss is too little for a
    further part. Raises Refused as the planner does.
    """
    intended_value = goal_value_to_move(decision_result, decision.goal)
    whole_plan = sales.plan_sales(step, decision)
    plan, goal_fraction = plan_proportional_part(step, decision_result, decision, whole_plan)
    active_purchase = step.history.cash_flows.purchase
    if active_purchase is not None and not step.history.cash_flows.newly_invested_raw:
        if not fits_daily_loss(step, plan):
            wait_reason = daily_loss_wait_reason(step)
            cancel_text = purchases.format_cancel_command(active_purchase)
            reason = f"{decision.reason}; {wait_reason}; {cancel_text}"
            hold = Hold(reason, limiting_rule=DAILY_LOSS_LIMIT)
            return decision_result.without_trades(hold), None
        reason = f"{decision.reason}{daily_loss_reason(step, decision, whole_plan)}"
        decision = replace(decision, reason=reason)
        due_part = PurchasePart(active_purchase.parts_done + 1, goal_fraction, intended_value)
        part_result = replace(decision_result.purchase_result, due_part=due_part)
        decision_result = replace(decision_result, decision=decision, purchase_result=part_result)
        return decision_result, replace(plan, decision=decision)
    if goal_fraction == 1 and kind is PurchaseKind.FIRST:
        return decision_result, plan
    if active_purchase is not None:
        kind = active_purchase.terms.kind
    terms = _purchase_terms(
        step, decision_result, kind, intended_value, ceil_int(1 / goal_fraction)
    )
    if goal_fraction < 1:
        progress_text = purchases.format_progress(terms, 0)
        loss_note = daily_loss_reason(step, decision, whole_plan)
        decision = replace(decision, reason=f"{decision.reason}; {progress_text}{loss_note}")
    due_part = PurchasePart(1, goal_fraction, intended_value)
    purchase_result = PurchaseResult(due_part, decision_result.purchase_result.end_reason, terms)
    decision_result = replace(decision_result, decision=decision, purchase_result=purchase_result)
    return decision_result, replace(plan, decision=decision)


def _purchase_terms(
    step: StepInput,
    decision_result: DecisionResult,
    kind: PurchaseKind,
    intended_value: Value,
    part_count: int,
) -> Purchase:
    now_s = step.snapshot.head.timestamp_s
    interval_s = step.limits.first_purchase_s or 1
    reference_by_token = decision_result.references.reference_by_token
    deposits = tuple[tuple[str, int], ...]()
    if kind is PurchaseKind.TOP_UP:
        deposits = tuple(sorted(purchases.uninvested_deposits(step.history).items()))
    return Purchase(
        kind=kind,
        value_to_move=purchases.turnover_allowance(step)
        if step.history.cash_flows.newly_invested_raw
        else intended_value,
        part_count=part_count,
        interval_s=interval_s,
        arrival_prices=tuple(
            sorted((token, reference.price) for token, reference in reference_by_token.items())
        ),
        began_s=now_s,
        expires_s=purchases.parts_expiry_s(now_s, part_count, interval_s),
        deposits=deposits,
    )
