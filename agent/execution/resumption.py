"""Start of a cycle, or the continuation of one whose process has ended."""

from __future__ import annotations

import uuid
from dataclasses import replace

from agent import codec
from agent.errors import ConfigError, OperatorNeeded, TrimtabError
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
    LayerRequest,
    PlanRequest,
    StepInput,
    Swap,
    SwapAtPrice,
    Unwrap,
)
from agent.planning.requests import proposer
from agent.store.store import Store

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


def names_amount(request: PlanRequest) -> bool:
    """True if the request repeated trades its amount again, unlike one that names targets."""
    return isinstance(request, Swap | SwapAtPrice | Unwrap | LayerRequest)


def resume_cycle(ports: StepPorts, request: PlanRequest) -> StepResult | None:
    """Return the open cycle of an ended process with the result of its last transaction; None if
    there is none. A cycle that is too old or was continued too often is closed, with the reason.
    What was confirmed covers only the same plan again.

    A cycle that its last transaction has ended is closed. It is returned, with the outcome, only if
    the request names an amount: the command that is repeated must not trade it twice, even if
    another request was carried out in between. Raises OperatorNeeded, once, if it sent such a
    request's transaction in a step that is unreadable.
    """
    store = ports.store
    if (cycle := _open_cycle(store, request)) is None:
        return None
    if reason := _not_resumed_reason(cycle, request, ports.readers.clock.now_s()):
        store.cycles.close(reason)
        return None
    try:
        cycle, outcome = _with_last_transaction(ports, cycle)
    except TrimtabError as error:
        reason = f"its last step is unreadable: {error.message}"
        store.cycles.close(reason)
        if names_amount(request) and _has_traded(store, cycle.sending_step_id):
            raise OperatorNeeded(
                f"the command that was interrupted sent a transaction (step {cycle.sending_step_id});"
                f" {reason}",
                "see trimtab history; the same command repeated trades its amount again",
            ) from None
        return None
    if not cycle.is_open:
        store.cycles.close(cycle.end_state.value)
        return StepResult(cycle, outcome) if names_amount(request) and outcome else None
    if (confirmation := cycle.confirmation) is not None:
        confirmation = replace(confirmation, is_of_ended_process=True)
    # The caps belong to the plan of that process: a larger one is confirmed, and approved, again.
    restarts = cycle.restarts + 1
    cycle = replace(
        cycle, request=request, restarts=restarts, confirmation=confirmation, spend_caps=()
    )
    store.cycles.write(cycle)
    return StepResult(cycle, None)


def _open_cycle(store: Store, request: PlanRequest) -> Cycle | None:
    """Return the open cycle of this request. One of another request ends; if it names an amount
    and had sent a transaction, it is opened again when its request is repeated.
    """
    if (cycle := store.cycles.find_open_cycle()) is not None:
        both_agent_cycles = isinstance(request, AgentCycle) and isinstance(
            cycle.request, AgentCycle
        )
        if both_agent_cycles or request == cycle.request:
            return cycle
        is_unreported = cycle.sending_step_id and names_amount(cycle.request)
        close_cycle = store.cycles.leave_unreported if is_unreported else store.cycles.close
        close_cycle("another request began")
    return store.cycles.reopen(request) if names_amount(request) else None


def _not_resumed_reason(cycle: Cycle, request: PlanRequest, now_s: int) -> str:
    """Return why an open cycle of this request is not continued; empty if it is."""
    max_age_s = MAX_AGE_OF_AMOUNT_S if names_amount(request) else MAX_AGE_S
    if not 0 <= now_s - cycle.began_s <= max_age_s:
        return f"not continued within {max_age_s} s of its start"
    is_unreported = cycle.sending_step_id and names_amount(request)
    if cycle.restarts >= MAX_RESTARTS and not is_unreported:
        return f"continued {MAX_RESTARTS} times"
    return ""


def _has_traded(store: Store, step_id: str) -> bool:
    """Return whether a transaction of the step was mined, approvals and cancels aside."""
    return any(
        intent.receipt is not None and intent.kind not in (IntentKind.APPROVE, IntentKind.CANCEL)
        for intent in store.journal.intents(step_id)
    )


def _with_last_transaction(ports: StepPorts, cycle: Cycle) -> tuple[Cycle, StepOutcome | None]:
    """Return the cycle after the transaction that was under way when the process ended, with the
    outcome of its step. One that never reached a block is planned again.
    """
    step_id = cycle.sending_step_id
    step_intents = ports.store.journal.intents(step_id) if step_id else ()
    mined_intents = [intent for intent in step_intents if intent.receipt is not None]
    if not mined_intents:
        open_ids = {intent.id for intent in ports.store.journal.open_intents()}
        is_pending = any(intent.id in open_ids for intent in step_intents)
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
