"""Start of a cycle, or the continuation of one whose process has ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Retryable, TrimtabError
from agent.execution.progress import after_approval
from agent.execution.senders import sender_of
from agent.execution.sending import failed_outcome
from agent.execution.shortfall import shortfall_by_receipt
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.execution.step_result import StepPorts, StepResult
from agent.model import (
    AgentCycle,
    Cycle,
    CycleEnd,
    Intent,
    IntentKind,
    PlanRequest,
    StepInput,
    names_amount,
)
from agent.planning.requests import proposer
from agent.store.store import Store
from agent.store.transitions import OPEN_STATES

MAX_AGE_S = 3_600
"""Longest time after its start at which a cycle is continued; its skips and its approved amounts
belong to the market of that time.
"""
MAX_AGE_OF_AMOUNT_S = 86_400
"""The same for a request that names an amount: its transaction may await an external signer."""
MAX_RESTARTS = 3
"""Maximum continuations of a cycle, since something in it may be what ends the process."""


def new_cycle(request: PlanRequest, now_s: int) -> Cycle:
    """Return a cycle that begins now."""
    return Cycle(uuid.uuid4().hex[:12], request, now_s)


def resume_cycle(ports: StepPorts, request: PlanRequest) -> StepResult | None:
    """Return the open cycle of an ended process with the result of its last transaction; None if
    there is none. A cycle that is too old or was continued too often is closed, with the reason.
    What was confirmed covers only the same plan again.

    The command of a request that names an amount must not trade it twice when it is repeated, even
    if another request was carried out in between. While its transaction is open, Retryable is
    raised. A cycle that its last transaction has ended is returned with the outcome, still open:
    the caller closes it once it is reported. OperatorNeeded is raised, once, if it traded more than
    MAX_AGE_OF_AMOUNT_S ago, or in a step that is unreadable.
    """
    store = ports.store
    if (cycle := _open_cycle(store, request)) is None:
        return None
    cycle = _at_executed_proposal(store, cycle)
    step_intents = _sent_together(store, cycle)
    if names_amount(request):
        _require_none_open(step_intents)
    has_traded = names_amount(request) and _has_traded(cycle, step_intents)
    if reason := _not_resumed_reason(cycle, ports.readers.clock.now_s(), has_traded=has_traded):
        store.cycles.close(reason)
        if has_traded:
            raise _unreported_error(cycle, reason)
        return None
    try:
        cycle, outcome = _with_last_transaction(ports, cycle, step_intents)
    except TrimtabError as error:
        reason = f"its last step is unreadable: {error.message}"
        store.cycles.close(reason)
        if has_traded:
            raise _unreported_error(cycle, reason) from None
        return None
    if not cycle.is_open:
        if names_amount(request):
            return StepResult(cycle, outcome)
        store.cycles.close(cycle.end_state.value)
        return None
    if (confirmation := cycle.confirmation) is not None:
        confirmation = replace(confirmation, is_of_ended_process=True)
    # The caps belong to the plan of that process: a larger one is confirmed, and approved, again.
    restarts = cycle.restarts + 1
    cycle = replace(
        cycle, request=request, restarts=restarts, confirmation=confirmation, spend_caps=()
    )
    store.cycles.write(cycle)
    return StepResult(cycle, None)


def close_cycle(
    store: Store, request: PlanRequest, reason: str, *, is_reported: bool = False
) -> None:
    """Close the open cycle of this request. One whose request names an amount stays open while its
    transaction is open, and after a trade until that `is_reported`: the repeated command reports it.
    """
    if names_amount(request) and (cycle := store.cycles.find_open_cycle()) is not None:
        cycle = _at_executed_proposal(store, cycle)
        step_intents = _sent_together(store, cycle)
        if _open_intents(step_intents) or (not is_reported and _has_traded(cycle, step_intents)):
            return
    store.cycles.close(reason)


def _open_cycle(store: Store, request: PlanRequest) -> Cycle | None:
    """Return the open cycle of this request. One of another request gives way; if it may have
    traded an amount, it is opened again when its request is repeated, without its confirmation.
    """
    if (cycle := store.cycles.find_open_cycle()) is not None:
        both_agent_cycles = isinstance(request, AgentCycle) and isinstance(
            cycle.request, AgentCycle
        )
        if both_agent_cycles or request == cycle.request:
            return cycle
        store.cycles.give_way("another request began")
    if not names_amount(request) or (cycle := store.cycles.reopen(request)) is None:
        return None
    return replace(cycle, confirmation=None)


def _not_resumed_reason(cycle: Cycle, now_s: int, *, has_traded: bool) -> str:
    """Return why an open cycle is not continued; empty if it is. One that has traded an amount is
    reported, whatever the clock said at its start.
    """
    max_age_s = MAX_AGE_OF_AMOUNT_S if names_amount(cycle.request) else MAX_AGE_S
    age_s = now_s - cycle.began_s
    if age_s > max_age_s or (age_s < 0 and not has_traded):
        return f"not continued within {max_age_s} s of its start"
    if cycle.restarts >= MAX_RESTARTS and not has_traded:
        return f"continued {MAX_RESTARTS} times"
    return ""


def _sent_together(store: Store, cycle: Cycle) -> tuple[Intent, ...]:
    """Return the intents of the cycle's sending step, cancels included, oldest first; of a step that
    trades without the revocations that follow, which have its id.
    """
    step_id = cycle.sending_step_id
    step_intents = tuple(store.journal.intents(step_id)) if step_id else ()
    trade_nonces = {intent.tx.nonce for intent in step_intents if _is_trade(intent)}
    if not trade_nonces:
        return step_intents
    return tuple(intent for intent in step_intents if intent.tx.nonce in trade_nonces)


def _at_executed_proposal(store: Store, cycle: Cycle) -> Cycle:
    """Return the cycle with the step whose proposal was executed after all as its sending step, if
    the repeated command has proposed another at its nonce.
    """
    step_intents = _sent_together(store, cycle)
    if any(intent.receipt is not None for intent in step_intents):
        return cycle
    for nonce in dict.fromkeys(intent.tx.nonce for intent in step_intents):
        for intent in store.journal.intents_at(nonce):
            if intent.receipt is not None and store.steps.cycle_id(intent.step_id) == cycle.id:
                return replace(cycle, sending_step_id=intent.step_id)
    return cycle


def _is_trade(intent: Intent) -> bool:
    return intent.kind not in (IntentKind.APPROVE, IntentKind.CANCEL)


def _has_traded(cycle: Cycle, step_intents: Sequence[Intent]) -> bool:
    """Return whether a transaction of the cycle was mined, approvals and cancels aside."""
    return cycle.has_traded or any(
        intent.receipt is not None and _is_trade(intent) for intent in step_intents
    )


def _open_intents(step_intents: Sequence[Intent]) -> list[Intent]:
    """Return the intents of a step that may still be mined; none once one of them is mined."""
    if any(intent.receipt is not None for intent in step_intents):
        return []
    return [intent for intent in step_intents if intent.state in OPEN_STATES]


def _require_none_open(step_intents: Sequence[Intent]) -> None:
    """Raise Retryable while a transaction of the step is open."""
    for intent in _open_intents(step_intents):
        raise Retryable(
            f"this command has sent a transaction before, which is not final yet: {intent.note},"
            f" {intent.tx_hash or intent.id}",
            "run the same command again: it reports that transaction and sends no second",
            code=ErrorCode.OPEN_TRANSACTION,
        )


def _unreported_error(cycle: Cycle, reason: str) -> OperatorNeeded:
    step_id = cycle.sending_step_id or cycle.swap_step_id or cycle.id
    return OperatorNeeded(
        f"the command that was interrupted sent a transaction (step {step_id}); {reason}",
        "see trimtab history; the same command repeated trades its amount again",
    )


def _with_last_transaction(
    ports: StepPorts, cycle: Cycle, step_intents: Sequence[Intent]
) -> tuple[Cycle, StepOutcome | None]:
    """Return the cycle after the transaction that was under way when the process ended, with the
    outcome of its step. One that never reached a block is planned again.
    """
    step_id = cycle.sending_step_id
    mined_intents = [intent for intent in step_intents if intent.receipt is not None]
    if not mined_intents:
        is_pending = bool(_open_intents(step_intents))
        return (cycle if is_pending else replace(cycle, sending_step_id="")), None
    cycle = replace(cycle, sending_step_id="")
    intents_without_cancels = [
        intent for intent in step_intents if intent.kind is not IntentKind.CANCEL
    ]
    intent = next(
        (original for original in intents_without_cancels if original in mined_intents),
        intents_without_cancels[0],
    )  # a mined cancel ends its own
    outcome = _outcome_after_transaction(
        ports.store, recorded_outcome(ports.store, cycle, step_id), intent
    )
    orders = [order for order in reversed(intents_without_cancels) if order.tx.is_venue_order]
    outcome = replace(outcome, transactions=tuple(orders) or (intent,))
    for sent_intent in outcome.transactions:
        cycle = cycle.with_transaction(sent_intent)
    if intent.kind is IntentKind.APPROVE:
        outcome_before = replace(outcome, transactions=())
        return after_approval(ports, cycle, outcome_before, intent).cycle, outcome_before
    if outcome.plan is None:
        return cycle.end(CycleEnd.DONE), outcome
    cycle_after = sender_of(outcome.plan).after_sent(cycle, outcome, outcome.plan, intent)
    return cycle_after, outcome


def _outcome_after_transaction(store: Store, outcome: StepOutcome, intent: Intent) -> StepOutcome:
    """Return the outcome of a step after its transaction; an approval leaves it as planned."""
    if intent.kind is IntentKind.APPROVE:
        return outcome
    if not intent.succeeded:
        return failed_outcome(outcome, intent, f'"{intent.note}"', "nothing was exchanged")
    short_tokens = tuple(shortfall_by_receipt(store, intent))
    kind = OutcomeKind.FAILED if short_tokens else OutcomeKind.DONE
    return replace(outcome, kind=kind, shortfall_tokens=short_tokens)


def recorded_outcome(store: Store, cycle: Cycle, step_id: str) -> StepOutcome:
    """Return the outcome of a step of an ended process, from its input in the journal, whose
    decision and plan follow from it. Raises ConfigError if it is unreadable, and Refused if it has
    no plan.
    """
    if (step_record := store.steps.get(step_id)) is None:
        raise ConfigError(f"step {step_id} is not in the journal", "start the cycle again")
    step = codec.loads(StepInput, step_record.input_json)
    proposal = proposer(cycle.request)(step)
    outcome_name = step_record.summary.outcome
    kind_by_name = {kind.value: kind for kind in OutcomeKind}
    kind = kind_by_name.get(outcome_name or "", OutcomeKind.PLANNED)  # "error"
    reason = step_record.summary.reason or proposal.decision_result.decision.reason
    return StepOutcome(step_id, kind, reason, step, proposal.decision_result, proposal.plan)
