"""Progress of a cycle in its steps' inputs, and what it leaves out after a refusal or an endpoint's
error, so that it can go on.
"""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused, Retryable, TrimtabError
from agent.execution import evaluation
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.execution.step_result import StepPorts, StepResult, close_step, note_of
from agent.model import (
    AgentCycle,
    BlockedExit,
    Cycle,
    CycleEnd,
    Intent,
    IntentKind,
    InterruptedExit,
    StepInput,
    TokenRefusal,
)
from agent.model.runs.cycle import increment_count
from agent.policy import failures
from agent.policy.orders.blocked_exits import (
    RETRY_REMEDY,
    add_refusal,
    add_submission_refusal,
    may_take_direct_route,
)


def readers_with_progress(readers: StepReaders, cycle: Cycle) -> StepReaders:
    """Return readers whose step inputs include the progress of the cycle."""
    assemble = readers.assemble
    return replace(
        readers,
        assemble=lambda snapshot, history: with_progress(cycle, assemble(snapshot, history)),
    )


def with_progress(cycle: Cycle, step: StepInput) -> StepInput:
    """Return the step input with caps and gas of the current plan, and what the layers did."""
    progress = replace(
        step.progress,
        spend_caps=cycle.spend_caps,
        spent_gas_wei=cycle.spent_gas_wei,
        direct_route_tokens=cycle.direct_route_tokens,
    )
    step = replace(step, progress=progress)
    for layer_part in cycle.layers:
        step = layer_part.with_progress(
            failures.with_refused_markets(step, layer_part.refusal_time_by_exit)
        )
    return step


def skip_declined_exit(cycle: Cycle, outcome: StepOutcome, why: str) -> Cycle:
    """Skip an exit that was declined or whose gas was refused, without recording a refusal by its
    token.
    """
    blocked_exit = BlockedExit(outcome.decision_result.exit_token, why, evaluation.NO_ACTION_REMEDY)
    return replace(
        cycle.after_exit(blocked_exit), withheld_exits=(*cycle.withheld_exits, note_of(outcome))
    )


def skip_refused_exit(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, refusal: Refused
) -> StepResult:
    """Skip an exit refused by its token, the simulation or the signer; any other refusal ends the
    cycle. If no exit was sold and the remaining plan is refused too, the refusal does not count
    against the token: router or endpoint may be at fault.
    """
    reason = str(refusal)
    if outcome.plan is None:
        reason += f"; {outcome.reason}"  # include the decision's reason
    refused_outcome = close_step(
        ports.store,
        replace(
            outcome, kind=OutcomeKind.REFUSED, reason=reason, refusal_verdicts=refusal.verdicts
        ),
    )
    concerns_trade = evaluation.concerns_trade(refusal)
    concerns_exit = concerns_trade or evaluation.is_wallet_limit_refusal(refusal)
    is_token_refusal = isinstance(refusal, evaluation.ExitRefused)
    exit_token = outcome.decision_result.exit_token
    if (
        concerns_exit
        and not is_token_refusal
        and may_take_direct_route(
            outcome.step_input.portfolio,
            outcome.step_input.progress.direct_route_tokens,
            outcome.plan,
            exit_token,
        )
    ):
        return StepResult(cycle.take_direct_route(exit_token), refused_outcome)
    if concerns_exit and exit_token and not concerns_trade:
        why = f"refused at submission: {refusal.message}"
        return StepResult(skip_declined_exit(cycle, refused_outcome, why), refused_outcome)
    confirmed_exit_token = "" if cycle.confirmation is None else cycle.confirmation.exit_token
    if concerns_trade and confirmed_exit_token:
        return StepResult(
            _without_refused_exit(ports, cycle, outcome, refusal, confirmed_exit_token),
            refused_outcome,
        )
    if concerns_trade:
        _restore_earlier_refusals(ports, cycle, outcome)
    return StepResult(cycle.end(CycleEnd.REFUSED), refused_outcome)


def _without_refused_exit(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, refusal: Refused, exit_token: str
) -> Cycle:
    """Record the refusal of the confirmed exit, and leave it out."""
    if not isinstance(refusal, evaluation.ExitRefused):
        earlier_refusal = _refusal_by_token(outcome).get(exit_token)
        earlier_refusal_by_token = dict(cycle.earlier_refusals) | {exit_token: earlier_refusal}
        cycle = replace(cycle, earlier_refusals=tuple(earlier_refusal_by_token.items()))
    blocked_exit = BlockedExit(
        exit_token, f"refused at submission: {refusal.message}", RETRY_REMEDY
    )
    ports.store.budgets.mark_submission_refusals(
        add_submission_refusal(
            outcome.step_input.snapshot, outcome.step_input.history.failures, blocked_exit
        )
    )
    return cycle.after_exit(blocked_exit)


def _restore_earlier_refusals(ports: StepPorts, cycle: Cycle, outcome: StepOutcome) -> None:
    """Restore the earlier refusals of this cycle's refused exits, unless an exit was sold."""
    if cycle.earlier_refusals and len(cycle.sent_exits) == len(cycle.failed_exits):
        ports.store.budgets.mark_submission_refusals(
            evaluation.without_doubtful_refusals(
                tuple(_refusal_by_token(outcome).values()), dict(cycle.earlier_refusals)
            )
        )


def _refusal_by_token(outcome: StepOutcome) -> dict[str, TokenRefusal]:
    refusals = outcome.step_input.history.failures.submission_refusals
    return {refusal.token: refusal for refusal in refusals}


def leave_out_ignoring_token(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, refusal: evaluation.ApprovalIgnored
) -> StepResult:
    """Record that a token ignored its approvals. The cycle of the policy goes on without it; ends
    the cycle if the plan cannot do without it, or is the owner's.
    """
    refused_outcome = close_step(
        ports.store, replace(outcome, kind=OutcomeKind.REFUSED, reason=str(refusal))
    )
    if not refusal.is_new:
        return StepResult(cycle.end(CycleEnd.REFUSED), refused_outcome)
    step = outcome.step_input
    ports.store.budgets.mark_ignored_approvals(
        add_refusal(
            step.snapshot,
            step.history.failures.ignored_approvals,
            refusal.token,
            refusal.message,
        )
    )
    if not isinstance(cycle.request, AgentCycle):
        return StepResult(cycle.end(CycleEnd.REFUSED), refused_outcome)
    return StepResult(cycle.after_exit(), refused_outcome)


def after_approval(
    ports: StepPorts, cycle: Cycle, outcome: StepOutcome, intent: Intent
) -> StepResult:
    """Return the result of a step that has sent this approval, for the use of the next; a failed
    one skips its exit or ends the cycle.
    """
    approval_terms = ports.store.journal.grant(intent.id).approval_terms
    if approval_terms is not None:
        token, _, approved_raw = approval_terms
        if approved_raw > 0:  # resets to zero are no attempts
            cycle = replace(
                cycle, approval_attempts=increment_count(cycle.approval_attempts, token)
            )
    if intent.succeeded:
        return StepResult(cycle, close_step(ports.store, outcome))
    if intent.receipt is not None and intent.tx.to == outcome.decision_result.exit_token:
        refusal = evaluation.ExitRefused(f'"{intent.note}" reverted')
        return skip_refused_exit(ports, cycle, outcome, refusal)
    reason = f'"{intent.note}" did not succeed'
    failed_outcome = replace(outcome, kind=OutcomeKind.FAILED, reason=reason)
    return StepResult(cycle.end(CycleEnd.FAILED), close_step(ports.store, failed_outcome))


def skip_interrupted_exit(
    ports: StepPorts,
    cycle: Cycle,
    exit_token: str,
    error: TrimtabError,
    *,
    may_retry_on_direct_route: bool,
    step_id: str = "",
) -> StepResult:
    """Skip an exit that was not sent because an endpoint failed, or plan it again without a route
    through another token. Raise any other error, and this one if the next nonce is unknown: the
    swap of the step was sent or a transaction is open.
    """
    if not isinstance(error, Retryable) or not exit_token or exit_token in cycle.tried_exit_tokens:
        raise error
    step_intents = ports.store.journal.intents(step_id) if step_id else ()
    sent_intents = [
        intent
        for intent in step_intents
        if intent.kind is not IntentKind.APPROVE and intent.receipt is not None
    ]
    if sent_intents or not ports.transactor.executor.may_send():
        raise error
    if may_retry_on_direct_route:
        return StepResult(cycle.take_direct_route(exit_token), None)
    interruption = InterruptedExit(exit_token, error.message, error.remedy, error.code)
    why = f"it could not be sent: {error.message}"
    blocked_exit = BlockedExit(exit_token, why, error.remedy or evaluation.NO_ACTION_REMEDY)
    cycle = replace(
        cycle.after_exit(blocked_exit), interrupted_exits=(*cycle.interrupted_exits, interruption)
    )
    return StepResult(cycle, None)
