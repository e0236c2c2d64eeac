"""Reviews of futures by a schedule: when one is due, and when it is done."""

from __future__ import annotations

from dataclasses import replace

from agent.layers.futures.policy.needs import (
    back_off_reason,
    cooldown_reason,
    futures_fault,
    reopening_s,
    spot_value_in_quote,
)
from agent.layers.futures.policy.targets import (
    DRIFT_REASONS,
    FuturesTrigger,
    fired_triggers,
    sizes_worth_an_order,
)
from agent.layers.futures.state import (
    futures_policy,
    futures_progress,
    futures_state,
    margin_account,
    with_policy,
)
from agent.margin.state import after_resting_fills
from agent.model import AdjustFutures, FuturesReading, Halt, StepInput
from agent.policy.decision import DecisionResult
from agent.policy.triggers.schedules import FUTURES_REVIEW, ScheduleStatus, schedule_status


def review_status(step: StepInput) -> ScheduleStatus | None:
    """Return the status of the futures' schedule at the step's block; None without one."""
    policy = futures_policy(step)
    if policy is None or policy.schedule is None:
        return None
    return schedule_status(
        policy.schedule,
        step.snapshot.head.timestamp_s,
        step.history,
        step.policy.jitter_bps,
        FUTURES_REVIEW,
    )


def mark_due_review(step: StepInput) -> StepInput:
    """Return the step whose futures policy says whether a review by its schedule is due."""
    policy = futures_policy(step)
    status = review_status(step)
    if policy is None or status is None:
        return step
    return with_policy(step, replace(policy, is_review_due=status.is_due))


def complete_review(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Return the result with the futures' due review among those that are done, if it is: every
    position is at its target, or the orders to the targets are not worth their cost. The review
    stays due while the account is unknown, another limit comes first, failed orders wait, or
    nothing may be opened, and until `trimtab rebalance` if futures.ask names it.
    """
    status = review_status(step)
    if status is None or not status.is_due or not _is_done(step, decision_result):
        return decision_result
    return replace(
        decision_result,
        is_reviewed=True,
        due_schedules=(*decision_result.due_schedules, status.name),
    )


def _is_done(step: StepInput, decision_result: DecisionResult) -> bool:
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None:
        return False
    if isinstance(decision_result.decision, AdjustFutures | Halt) or not decision_result.drifts:
        return False
    now_s = step.snapshot.head.timestamp_s
    if (
        step.snapshot.layer(FuturesReading).blocked_reason
        or futures_fault(step.snapshot, policy)
        or cooldown_reason(reopening_s(policy, futures_state(step)), now_s)
    ):
        return False
    account = after_resting_fills(account)
    triggers = fired_triggers(account, policy, spot_value_in_quote(step, decision_result.drifts))
    if not triggers:
        return True
    if triggers[0] not in DRIFT_REASONS or triggers[0].value in policy.manual_triggers:
        return False
    if FuturesTrigger.SCHEDULE not in triggers:
        return True
    return bool(futures_progress(step).hold_reason) and not any(
        back_off_reason(step.snapshot, step.history, market)
        for market in sizes_worth_an_order(account, policy)
    )
