"""What the proposals that wait for an external signer wait for, for the status of a portfolio."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from agent import codec, guards
from agent.chain.safe import open_external_signer
from agent.chain.sender import QuorumSender
from agent.errors import READ_FAILURES, ConfigError, Refused
from agent.execution.ended_orders import ended_order_fault
from agent.execution.shortfall import execution_reason
from agent.execution.submission.checks import only_undoes
from agent.execution.submission.held_up_exits import held_up_text
from agent.execution.submission.proposal_words import (
    DO_NOT_SIGN,
    UNCHECKED_ADVICE,
    UNWANTED_ADVICE,
    WITHDRAWAL_ADVICE,
    chain_deadline_s,
    execution_period,
    fault_advice,
    is_dropped,
    stays_executable_text,
    unsimulated_reason,
    waiting_act,
)
from agent.execution.submission.rejected_trades import rejected_before
from agent.execution.submission.signable_nonces import max_tip_by_nonce
from agent.figures import as_sentence
from agent.guards import FaultKind, ProposalFault
from agent.model import (
    Intent,
    IntentKind,
    IntentState,
    RaiseForWithdrawal,
    RequestState,
    StepInput,
    StepRequest,
    Unwrap,
)
from agent.ports import ExternalSigner, Grant, Sender
from agent.store.files.pause import KillSwitch
from agent.store.store import Store
from agent.wiring.context import AgentContext
from agent.wiring.signing_rules import signing_rules

STOP_COMMAND = "trimtab stop --send"


def open_proposal_intents(store: Store) -> list[Intent]:
    """Return the journal's proposals that no transaction is known to have settled, oldest first."""
    proposed_ids = store.proposals.proposal_blocks()
    if not proposed_ids:
        return []
    return [
        intent
        for intent in store.journal.open_intents()
        if intent.state is IntentState.PLANNED and intent.id in proposed_ids
    ]


def ended_order_texts(store: Store) -> list[str]:
    """Return a sentence about the proposal that waits, if the order that it sells for has ended."""
    return [
        f'The proposal {intent.id} ("{intent.note}") {fault.text}: {fault_advice(fault)}.'
        for intent in open_proposal_intents(store)[-1:]  # a rejection before what it rejects
        if (fault := ended_order_fault(store, intent)) is not None
    ]


def earlier_config_texts(store: Store) -> tuple[str, ...]:
    """Return a sentence about the proposal that waits while its config is edited."""
    return tuple(
        f'the proposal {intent.id} ("{intent.note}") waits, made for the config before this edit: if it'
        f" is not wanted any more, {WITHDRAWAL_ADVICE}"
        for intent in open_proposal_intents(store)[-1:]
        if intent.kind is not IntentKind.CANCEL
    )


def execution_texts(store: Store, first_nonce: int | None) -> list[str]:
    """Return how each proposal from this nonce on that is now known to be executed was, also one that
    was withdrawn; none for None, as before the first proposal.
    """
    next_nonce = store.journal.expected_nonce()
    if first_nonce is None or next_nonce is None:
        return []
    proposed_ids = store.proposals.proposal_blocks()
    return [
        execution_reason(store, intent)
        for nonce in range(first_nonce, next_nonce)
        for intent in store.journal.intents_at(nonce)
        if intent.id in proposed_ids and intent.succeeded
    ]


def used_nonce_text(context: AgentContext, chain_nonce: int) -> str:
    """Return that the next nonce of the journal is used on the chain, perhaps by a proposal that waits
    or was given up, and the command that settles it; "" without one. Until then no balance is compared.
    """
    store = context.store
    nonce = store.journal.expected_nonce()
    if nonce is None or nonce >= chain_nonce:
        return ""
    proposed_ids = store.proposals.proposal_blocks()
    intents = [
        intent
        for intent in store.journal.intents_at(nonce)
        if intent.id in proposed_ids and (intent.state is IntentState.PLANNED or is_dropped(intent))
    ]
    if not intents:
        return ""
    return (
        f"nonce {nonce} is used, and may have executed the proposal"
        f" {' or '.join(intent.id for intent in intents)}, so balances are not compared:"
        f" {settling_text(context, intents[-1], is_used=True)}"
    )


def waiting_proposals(context: AgentContext, step: StepInput) -> Iterator[tuple[str, str]]:
    """Yield what each open proposal waits for, and a sentence about it: its signatures, its end, and
    what to do, or that it is stale, would fail, or waits for its rejection. Reads the chain while one
    waits.
    """
    intents = open_proposal_intents(context.store)
    rejected_nonces = {intent.tx.nonce for intent in intents if intent.kind is IntentKind.CANCEL}
    for intent in intents:
        is_rejected = intent.kind is not IntentKind.CANCEL and intent.tx.nonce in rejected_nonces
        awaited_text, advice = _waits_for(context, step, intent, is_rejected=is_rejected)
        waits_text = f"{': '.join(filter(None, (awaited_text, advice)))}."
        grant = context.store.journal.grant(intent.id)
        is_free = step.snapshot.nonce_latest <= intent.tx.nonce
        if is_free and not is_rejected and rejected_before(context.store.journal, intent.tx, grant):
            waits_text += f" {as_sentence(UNWANTED_ADVICE)}."
        if not is_rejected and (exits_text := held_up_text(step, grant)):
            waits_text += f" {as_sentence(exits_text)}."
        noun = "rejection" if intent.kind is IntentKind.CANCEL else "proposal"
        yield (
            f"the {noun} {intent.id} {awaited_text}",
            f'The proposal {intent.id} ("{intent.note}") {waits_text}',
        )


def next_command(context: AgentContext, intent: Intent) -> str:
    """Return the command that goes on after a proposal, as `renewing_command`. It sends no payment
    that is paid or was rejected; while paused it settles, and sends nothing that a pause forbids.
    """
    store = context.store
    is_paused = context.kill_switch.is_paused() is not False
    is_rejection = intent.kind is IntentKind.CANCEL
    if is_rejection and not is_paused and _is_stopping(context):
        return STOP_COMMAND
    if is_rejection:
        peers = store.journal.intents_at(intent.tx.nonce)
        rejected_intents = [peer for peer in peers if peer.kind is not IntentKind.CANCEL]
        intent = rejected_intents[-1] if rejected_intents else intent
    withdrawal_id = _paid_withdrawal(context, intent)
    if withdrawal_id is not None:
        sends = not is_rejection and not is_paused
        sends = sends and bool(store.requests.unsent_payments(withdrawal_id))
        return f"trimtab withdraw --resume {withdrawal_id}{' --send' if sends else ''}"
    if is_paused:
        is_hard = context.kill_switch.is_hard()
        return "trimtab pause --hard --send" if is_hard else "trimtab reconcile"
    return renewing_command(context, intent)


def renewing_command(context: AgentContext, intent: Intent) -> str:
    """Return the command that goes on after a proposal, and proposes anew what was withdrawn, rejected
    or expired.
    """
    return required_command(context, intent) or "trimtab rebalance --send"


def required_command(context: AgentContext, intent: Intent) -> str | None:
    """Return the only command that goes on after a proposal: with the withdrawal that it pays or for
    which it sells, or with the stop that is under way; None if any command does.
    """
    if intent.kind is not IntentKind.CANCEL:
        withdrawal_id = _paid_withdrawal(context, intent) or _financed_withdrawal(context, intent)
        if withdrawal_id is not None:
            return f"trimtab withdraw --resume {withdrawal_id} --send"
    return STOP_COMMAND if _is_stopping(context) else None


def _is_stopping(context: AgentContext) -> bool:
    stop = context.store.requests.active_stop()
    return stop is not None and stop.state is RequestState.OPEN


def _paid_withdrawal(context: AgentContext, intent: Intent) -> int | None:
    """Return the number of the withdrawal that a payment belongs to; None once it is released."""
    requests = context.store.requests
    payout = context.store.journal.grant(intent.id).payout
    if payout is None or not requests.is_withdrawal(payout.request_id):
        return None
    if requests.is_released(payout.request_id):
        return None
    return payout.request_id


def _financed_withdrawal(context: AgentContext, intent: Intent) -> int | None:
    """Return the number of the newest open withdrawal that has yet to pay what a trade raises or
    unwraps.
    """
    step = context.store.steps.get(intent.step_id)
    if step is None or step.request_json is None:
        return None
    request = codec.loads(StepRequest, step.request_json)
    if not isinstance(request, RaiseForWithdrawal | Unwrap):
        return None
    for owner_request in reversed(context.store.requests.newest(open_only=True)):
        for payment in context.store.requests.unsent_payments(owner_request.id):
            if payment.native if isinstance(request, Unwrap) else payment.token == request.token:
                return owner_request.id
    return None


def settling_text(context: AgentContext, intent: Intent, *, is_used: bool) -> str:
    """Return the command that settles a proposal whose nonce is used, or that has expired, and what
    it does.
    """
    used_text = ", or says what else used the nonce" if is_used else ""
    return f"{next_command(context, intent)} settles it and goes on{used_text}"


def _waits_for(
    context: AgentContext, step: StepInput, intent: Intent, *, is_rejected: bool
) -> tuple[str, str]:
    """Return what an open proposal waits for, and what to do, empty for nothing."""
    snapshot = step.snapshot
    if snapshot.nonce_latest > intent.tx.nonce:
        execution = context.store.proposals.execution(intent.id)
        sent_text = "" if execution is None else f" (its execution was sent in {execution.tx_hash})"
        used_text = f"waits no longer, since its nonce is used{sent_text}"
        if is_rejected:
            used_text += " by it or its rejection (trimtab proposal list names which was executed)"
        return used_text, settling_text(context, intent, is_used=True)
    grant = context.store.journal.grant(intent.id)
    if intent.deadline_s is not None and snapshot.head.timestamp_s >= intent.deadline_s:
        expired_text = "has expired"
        if chain_deadline_s(intent, grant) is None and intent.kind is not IntentKind.CANCEL:
            expired_text += f" here; {stays_executable_text(intent)}, and {WITHDRAWAL_ADVICE}"
        return expired_text, settling_text(context, intent, is_used=False)
    if is_rejected:
        period_text = execution_period(intent, grant)
        return f"is void once its rejection is executed; it can be executed {period_text}", ""
    try:
        signer, sender = _external_signer_and_sender(context)
        minimums_fault = None if grant.plan is None else guards.judge_minimums(step, grant.plan)
        now_s = snapshot.head.timestamp_s
        fault = proposal_fault(context, intent, signer, now_s, minimums_fault)
        if fault is not None:
            return fault.text, fault_advice(fault)
        simulation = sender.simulate(intent.tx, signer.address)
        next_act = signer.next_act(context.store.proposals.signatures(intent.id), intent.id)
    except (*READ_FAILURES, ConfigError) as error:
        return f"could not be checked, {error.message}", UNCHECKED_ADVICE
    if unsimulated_why := unsimulated_reason(intent.tx, simulation):
        return f"could not be checked, {unsimulated_why}", UNCHECKED_ADVICE
    if simulation.reverted:
        return f"would fail now, {simulation.reason}", f"{DO_NOT_SIGN}; {WITHDRAWAL_ADVICE}"
    pause_reason = None
    if is_stopped_by_pause(context.kill_switch, grant):
        pause_reason = context.kill_switch.reason_and_time()
    next_act = waiting_act(intent, grant, next_act, pause_reason)
    return f"awaits {next_act.awaited}", next_act.instruction


def proposal_fault(
    context: AgentContext,
    intent: Intent,
    signer: ExternalSigner,
    now_s: int,
    minimums_fault: ProposalFault | None,
) -> ProposalFault | None:
    """Return why nobody should sign or execute a proposal: what store and config say against it,
    the fault of its minimums at the prices now, or the rule of the signer that refuses it. None if
    nothing speaks against it. Raises the failures of a read.
    """
    fault = stored_fault(context.store, context.payout_addresses, intent) or minimums_fault
    if fault is None or not fault.is_stale:
        grant = replace(context.store.journal.grant(intent.id), now_s=now_s)
        try:
            signer.require_signable(intent.tx, grant)
        except Refused as refusal:
            return ProposalFault(FaultKind.NOT_ALLOWED, refusal.message)
    return fault


def stored_fault(
    store: Store, payout_addresses: Collection[str], intent: Intent
) -> ProposalFault | None:
    """Return why nobody should sign or execute a proposal, as far as store and config say; None if
    nothing in them speaks against it. `payout_addresses` are the confirmed ones of the config.
    """
    payout = store.journal.grant(intent.id).payout
    if payout is not None and payout.to not in payout_addresses:
        reason = f"{payout.to} is no confirmed address of wallet.payout_addresses any more"
        return ProposalFault(FaultKind.NOT_ALLOWED, reason)
    return ended_order_fault(store, intent)


def _external_signer_and_sender(context: AgentContext) -> tuple[ExternalSigner, Sender]:
    return open_external_signer(
        signing_rules(context),
        partial(max_tip_by_nonce, context.store.journal),
        context.endpoints,
        QuorumSender(context.endpoints, context.config.chain.chain_id),
        context.transport,
        is_safe=context.config.wallet.safe,
    )


def is_stopped_by_pause(kill_switch: KillSwitch, grant: Grant) -> bool:
    """Return whether a pause forbids to sign and execute a proposal."""
    undoes_hard = only_undoes(grant) and kill_switch.is_hard()
    return kill_switch.is_paused() is not False and not undoes_hard
