"""Plans of purchases in parts (limits.first_purchase), recorded as gradual executions."""

from __future__ import annotations

from dataclasses import replace

from agent.layers.gradual.state import ExecutionSlice, GradualExecution, GradualResult
from agent.model import Goal, Hold, Plan, PurchaseKind, Rebalance, StepInput
from agent.planning import planner
from agent.planning.partial_plans import (
    DAILY_LOSS,
    EVEN,
    daily_loss_reason,
    daily_loss_wait_reason,
    fits_daily_loss,
    move_value,
    plan_proportional_part,
)
from agent.policy.cash_flows import transfers
from agent.policy.cash_flows.balance_changes import DAY_S
from agent.policy.decision import DecisionResult
from agent.policy.drift import corrections, target_weights
from agent.units import Value, ceil_int, sign_of

PurchasePlan = tuple[DecisionResult, Plan | None]


def plan_purchase(
    step: StepInput, decided: DecisionResult, decision: Rebalance, kind: PurchaseKind
) -> PurchasePlan:
    """Return the purchase in one plan, or its next part; `begins` has the execution of a first
    part.

    Returns a hold without a plan while the remainder of limits.daily_loss is too little for a
    further part. Raises Refused as the planner does.
    """
    intended_value = move_value(decided, decision.goal)
    whole = planner.plan_after_tax(step, decision)
    plan, part = plan_proportional_part(step, decided, decision, whole)
    active = transfers.active_purchase(step)
    if active is not None and not step.history.invested:
        if not fits_daily_loss(step, plan):
            reason = f"{decision.reason}; {daily_loss_wait_reason(step)}"
            hold = Hold(reason, kept_by=DAILY_LOSS)
            return decided.held(hold), None
        reason = f"{decision.reason}{daily_loss_reason(step, decision, whole)}"
        decision = replace(decision, reason=reason)
        due = ExecutionSlice(active.done + 1, part, intended_value)
        part_due = replace(decided.layer(GradualResult), due=due)
        decided = replace(decided, decision=decision).with_layer(part_due)
        return decided, replace(plan, decision=decision)
    if part == 1 and kind is PurchaseKind.FIRST:
        return decided, plan
    if active is not None:
        kind = active.campaign.purchase or kind
    execution = _purchase_execution(
        step, decided, decision.goal, kind, intended_value, ceil_int(1 / part)
    )
    if part < 1:
        progress = transfers.format_progress(execution, 0)
        why_part = daily_loss_reason(step, decision, whole)
        decision = replace(decision, reason=f"{decision.reason}; {progress}{why_part}")
    due = ExecutionSlice(1, part, intended_value)
    first = GradualResult(due, decided.layer(GradualResult).ended, execution)
    decided = replace(decided, decision=decision).with_layer(first)
    return decided, replace(plan, decision=decision)


def _purchase_execution(
    step: StepInput,
    decided: DecisionResult,
    goal: Goal,
    kind: PurchaseKind,
    intended_value: Value,
    parts: int,
) -> GradualExecution:
    now_s, lacks = step.snapshot.head.timestamp_s, corrections(decided.drifts, goal)
    prices, deposits = decided.references.prices, tuple[tuple[str, int], ...]()
    if kind is PurchaseKind.TOP_UP:
        deposits = tuple(sorted(transfers.uninvested_deposits(step).items()))
    over_s = now_s + max(transfers.LASTS_S, (parts + 1) * DAY_S)
    return GradualExecution(
        pace=transfers.pace(step, parts),
        targets_bps=target_weights(step),
        destination=step.policy.destination,
        goal=goal,
        arrival=tuple(sorted((token, known.price) for token, known in prices.items())),
        sides=tuple((token, sign_of(lack)) for token, lack in lacks.items() if lack),
        wish=transfers.turnover_allowance(step) if step.history.invested else intended_value,
        rounds=parts,
        budget=None,
        began_s=now_s,
        ends_s=over_s,
        expires_s=over_s,
        first=EVEN,
        only=step.policy.only,
        purchase=kind,
        came=deposits,
    )
