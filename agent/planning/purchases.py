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
from agent.planning.partial_plans import DAILY_LOSS, daily_loss_wait_reason, fits_daily_loss
from agent.planning.purchase_plans import daily_loss_reason, move_value, plan_proportional_part
from agent.policy.cash_flows import purchases
from agent.policy.cash_flows.balance_changes import DAY_S
from agent.policy.decision import DecisionResult
from agent.units import Value, ceil_int

PurchasePlan = tuple[DecisionResult, Plan | None]


def plan_purchase(
    step: StepInput, decided: DecisionResult, decision: Rebalance, kind: PurchaseKind
) -> PurchasePlan:
    """Return the purchase in one plan, or its next part; a first part begins the purchase.

    Returns a hold without a plan while the remainder of limits.daily_loss is too little for a
    further part. Raises Refused as the planner does.
    """
    intended_value = move_value(decided, decision.goal)
    whole = sales.plan_sales(step, decision)
    plan, part = plan_proportional_part(step, decided, decision, whole)
    active = step.history.cash_flows.purchase
    if active is not None and not step.history.cash_flows.invested:
        if not fits_daily_loss(step, plan):
            waits, ends = daily_loss_wait_reason(step), purchases.format_cancel(active)
            reason = f"{decision.reason}; {waits}; {ends}"
            hold = Hold(reason, kept_by=DAILY_LOSS)
            return decided.held(hold), None
        reason = f"{decision.reason}{daily_loss_reason(step, decision, whole)}"
        decision = replace(decision, reason=reason)
        due = PurchasePart(active.done + 1, part, intended_value)
        purchase = replace(decided.purchase, due=due)
        decided = replace(decided, decision=decision, purchase=purchase)
        return decided, replace(plan, decision=decision)
    if part == 1 and kind is PurchaseKind.FIRST:
        return decided, plan
    if active is not None:
        kind = active.terms.kind
    terms = _terms(step, decided, kind, intended_value, ceil_int(1 / part))
    if part < 1:
        progress = purchases.format_progress(terms, 0)
        why_part = daily_loss_reason(step, decision, whole)
        decision = replace(decision, reason=f"{decision.reason}; {progress}{why_part}")
    due = PurchasePart(1, part, intended_value)
    first = PurchaseResult(due, decided.purchase.ended, terms)
    decided = replace(decided, decision=decision, purchase=first)
    return decided, replace(plan, decision=decision)


def _terms(
    step: StepInput,
    decided: DecisionResult,
    kind: PurchaseKind,
    intended_value: Value,
    parts: int,
) -> Purchase:
    now_s = step.snapshot.head.timestamp_s
    prices, deposits = decided.references.prices, tuple[tuple[str, int], ...]()
    if kind is PurchaseKind.TOP_UP:
        deposits = tuple(sorted(purchases.uninvested_deposits(step.history).items()))
    return Purchase(
        kind=kind,
        wish=purchases.turnover_allowance(step)
        if step.history.cash_flows.invested
        else intended_value,
        parts=parts,
        interval_s=step.limits.first_purchase_s or 1,
        arrival=tuple(sorted((token, known.price) for token, known in prices.items())),
        began_s=now_s,
        expires_s=now_s + max(purchases.LASTS_S, (parts + 1) * DAY_S),
        came=deposits,
    )
