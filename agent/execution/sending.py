"""Sending of one transaction of a step, and its booking."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused, Retryable
from agent.execution import approvals, evaluation
from agent.execution.bookkeeping import update_ledger
from agent.execution.settlement import settle_mined
from agent.execution.shortfall import with_shortfall
from agent.execution.step_context import OutcomeKind, StepActors, StepOutcome
from agent.execution.step_run import StepRun
from agent.layers import records
from agent.ports import PreparedTransaction


def execute(
    run: StepRun,
    actors: StepActors,
    outcome: StepOutcome,
    prepared: PreparedTransaction,
    what: str,
    otherwise: str,
) -> StepOutcome:
    """Send one transaction, then book it at a new snapshot."""
    intent = approvals.execute_prepared(actors, outcome.step_id, prepared)
    run.sent.append(intent)
    outcome = replace(outcome, transactions=tuple(run.sent))
    if not intent.succeeded:
        state = "reverted" if intent.receipt is not None else intent.state.value
        return replace(
            outcome, kind=OutcomeKind.FAILED, reason=f"{what} ended {state}; {otherwise}"
        )
    outcome = replace(outcome, kind=OutcomeKind.DONE)
    evaluation.clear_submission_refusals(run.store.budgets, outcome)
    try:
        snapshot = run.readers.reader.snapshot()
    except (Retryable, Refused):  # the transaction is mined; the next step books it
        return with_shortfall(outcome, intent, None)
    changed = settle_mined(
        run.store,
        snapshot,
        lambda: run.readers.step_input_at(snapshot),
        before=outcome.step_input.snapshot,
    )
    after = run.readers.step_input_at(snapshot)
    update_ledger(run.store, run.readers.recorded(after), changed)
    for after_input in records.AFTER_INPUT:
        after_input(run.store, after)
    return with_shortfall(replace(outcome, after=after), intent, snapshot)
