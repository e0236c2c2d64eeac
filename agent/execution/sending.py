"""Sending of one transaction of a step, and its booking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.errors import TrimtabError
from agent.execution import approvals, evaluation
from agent.execution.bookkeeping import update_ledger
from agent.execution.settlement import settle_mined
from agent.execution.shortfall import with_shortfall
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts
from agent.layers import records
from agent.model import Cycle, Intent, Plan
from agent.ports import Composer, PreparedTransaction


@dataclass(frozen=True, slots=True)
class Draft:
    """A transaction to send, its name, and what did not happen if it fails."""

    prepared_tx: PreparedTransaction
    name: str
    failure_text: str


@dataclass(frozen=True, slots=True)
class PlanSender:
    """How one kind of plan is sent: the test of its plans, its next transaction, and the cycle
    after that transaction with its outcome, which is the same in a process that only learns of it
    after a restart.
    """

    handles: Callable[[Plan], bool]
    draft_transaction: Callable[[Composer, StepOutcome, Plan], Draft]
    after_sent: Callable[[Cycle, StepOutcome, Plan, Intent], Cycle]


def execute(ports: StepPorts, outcome: StepOutcome, draft: Draft) -> tuple[StepOutcome, Intent]:
    """Send one transaction, or the orders of one action, then book them at a new snapshot. Return
    the outcome with all, and the first that succeeded, else the first.
    """
    intents = approvals.execute_together(ports.transactor, outcome.step_id, draft.prepared_tx)
    intent = next((sent for sent in intents if sent.succeeded), intents[0])
    outcome = replace(outcome, transactions=tuple(intents))
    if not intent.succeeded:
        return failed_outcome(outcome, intent, draft.name, draft.failure_text), intent
    outcome = replace(outcome, kind=OutcomeKind.DONE)
    evaluation.clear_submission_refusals(ports.store.budgets, outcome)
    try:
        snapshot = ports.readers.reader.snapshot()
    except TrimtabError:  # the transaction is mined; the next step books it
        return with_shortfall(outcome, intent, None), intent
    changed_blocks = settle_mined(
        ports.store,
        snapshot,
        lambda: ports.readers.step_input_at(snapshot),
        snapshot_before=outcome.step_input.snapshot,
    )
    input_after = ports.readers.step_input_at(snapshot)
    update_ledger(ports.store, ports.readers.ledger_step_input(input_after), changed_blocks)
    for layer in records.LAYERS:
        layer.record_input(ports.store, input_after)
    return with_shortfall(replace(outcome, input_after=input_after), intent, snapshot), intent


def failed_outcome(
    outcome: StepOutcome, intent: Intent, transaction_name: str, consequence: str
) -> StepOutcome:
    """Return the outcome of a step whose transaction did not succeed."""
    end_state = "reverted" if intent.receipt is not None else intent.state.value
    cause_text = f": {intent.failure_reason}" if intent.failure_reason else ""
    reason = f"{transaction_name} ended {end_state}{cause_text}; {consequence}"
    return replace(outcome, kind=OutcomeKind.FAILED, reason=reason)
