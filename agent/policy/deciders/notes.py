"""Notes at the end of every decision's reason."""

from __future__ import annotations

from agent.model import StepInput
from agent.policy import quarantine
from agent.policy.cash_flows import balance_changes, cash_limit
from agent.policy.decision import DecisionResult
from agent.policy.orders import blocked_exits


def add_notes(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Return the decision with tokens in quarantine, blocked exits, what is excluded or not used,
    and accepted deposits in its reason.
    """
    return decision_result.with_notes(
        quarantine.format_quarantine(step.portfolio, step.targets.quarantined_tokens),
        blocked_exits.format_blocked_exits(step),
        step.exclusions.reason,
        cash_limit.unused_cash_text(step.portfolio, step.history.cash_flows),
        balance_changes.format_accepted_deposits(
            step.portfolio, step.history.cash_flows.accepted_deposits
        ),
    )
