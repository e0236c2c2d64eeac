"""Approvals and their revocation, payouts, single transactions of the owner's commands, and the
cancels of a hard pause.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from agent import codec
from agent.errors import PassingFault, Refused, Retryable, TrimtabError, UnsendableTransaction
from agent.execution.executor import AwaitingExternalSignature
from agent.execution.settlement import after_gas, settle_mined
from agent.execution.step_context import (
    CaughtUpReader,
    OutcomeKind,
    StepOutcome,
    StepReaders,
    StepTransactor,
)
from agent.execution.step_result import interruption_outcome
from agent.execution.submission.proposal_words import withdrawn_proposal_texts
from agent.guards import table
from agent.model import (
    Intent,
    IntentKind,
    IntentState,
    ManualAction,
    Payout,
    PerpOrder,
    Snapshot,
    StepInput,
)
from agent.policy import quarantine
from agent.policy.cash_flows import cash_limit
from agent.policy.decide import hard_pause_result
from agent.ports import Approval, Composer, Grant, OrderExecutor, PreparedTransaction
from agent.ports.perpetuals import futures_grant
from agent.store.journal.intents import IntentStore, replacement_family
from agent.store.store import Store
from agent.store.transitions import NONCE_USED_STATES
from agent.units import decimal_text
from agent.venues import allowances

MAX_RESETS = 3
RESET_LOOKBACK_NONCES = 12
"""Maximum consecutive revocations of an allowance that the token still reports, and the number of
newest nonces searched for them and for approvals without effect.
"""


def prepare_approval(
    composer: Composer, step_input: StepInput, missing_approvals: Sequence[Approval]
) -> PreparedTransaction:
    """Return the first missing approval as a transaction. If its token refuses the reset to zero,
    the amount that follows is approved directly. Raises Refused if the token refuses that too.
    """
    first_approval, *later_approvals = missing_approvals
    try:
        return composer.approval_transaction(step_input, first_approval)
    except UnsendableTransaction:
        next_approval = next(iter(later_approvals), None)
        if (
            first_approval.raw > 0
            or next_approval is None
            or (next_approval.token, next_approval.spender)
            != (first_approval.token, first_approval.spender)
        ):
            raise
        return composer.approval_transaction(step_input, next_approval)


def ineffective_approvals(journal: IntentStore, step: StepInput, approval: Approval) -> int:
    """Return the successful approvals of a token for a spender, newest first, of which the snapshot
    shows less: each waits for signatures in a cycle of its own where others sign. A transaction
    that may have used an allowance of the token ends the count; so do an approval that is shown,
    and those for which the token was left out before. A reset to zero between two of them does not.
    """
    shown_raw = next(
        (
            allowance.raw
            for allowance in step.snapshot.allowances
            if (allowance.token, allowance.spender) == (approval.token, approval.spender)
        ),
        0,
    )
    retried_from_s = max(
        (
            refusal.at_s + quarantine.FIRST_APPROVAL_WAIT_S
            for refusal in step.history.failures.ignored_approvals
            if refusal.token == approval.token
        ),
        default=0,
    )
    count = 0
    for nonce in _newest_nonces(journal):
        for intent in journal.intents_at(nonce):
            if not intent.succeeded:
                continue
            grant = journal.grant(intent.id)
            approval_terms = grant.approval_terms
            if approval_terms is None and _may_use_allowance(grant, approval.token):
                return count
            if approval_terms is None:
                continue
            if approval_terms[:2] == (approval.token, approval.spender):
                if intent.created_s < retried_from_s:
                    return count
                if count and approval_terms[2] == 0:
                    continue
                if approval_terms[2] <= shown_raw:
                    return count
                count += 1
    return count


def _may_use_allowance(grant: Grant, token: str) -> bool:
    """True unless a transaction surely used no allowance of the token."""
    if grant.kind is IntentKind.SWAP and grant.plan is not None:
        return any(leg.token_in == token for leg in grant.plan.legs)
    return grant.kind in (IntentKind.SWAP, IntentKind.LIQUIDITY, IntentKind.FUTURES)


def _newest_nonces(journal: IntentStore) -> range:
    """Return the newest nonces of the wallet, from the last one down."""
    next_nonce = journal.expected_nonce() or 0
    return range(next_nonce - 1, max(-1, next_nonce - 1 - RESET_LOOKBACK_NONCES), -1)


def execute_prepared(
    transactor: StepTransactor, step_id: str, prepared_tx: PreparedTransaction
) -> Intent:
    """Run one prepared transaction to its end."""
    return transactor.executor.run(step_id, prepared_tx.tx, prepared_tx.grant, prepared_tx.note)


def execute_together(
    transactor: StepTransactor, step_id: str, prepared_tx: PreparedTransaction
) -> Sequence[Intent]:
    """Run one prepared transaction to its end, with its companions if the executor can; without,
    the next step plans them again.
    """
    executor = transactor.executor
    if prepared_tx.companions and isinstance(executor, OrderExecutor):
        return executor.run_together(step_id, (prepared_tx, *prepared_tx.companions))
    return (execute_prepared(transactor, step_id, prepared_tx),)


def format_open_allowances(open_allowances: Sequence[Approval]) -> str:
    """Describe the open allowances by spender."""
    labels_by_spender: dict[str, list[str]] = {}
    for approval in open_allowances:
        labels_by_spender.setdefault(approval.spender_role, []).append(approval.token_label)
    return " and ".join(
        f"the {spender_name} can still spend {', '.join(token_labels)}"
        for spender_name, token_labels in labels_by_spender.items()
    )


def revoke_leftovers(
    readers: StepReaders, transactor: StepTransactor, store: Store, outcome: StepOutcome
) -> StepOutcome:
    """Set open allowances to zero, one transaction each, after a cycle, however it ended.

    Gas limits apply. Sends nothing while paused, while a transaction is open, or if nothing was
    confirmed. A failed revocation is reported and retried after the next cycle, unless the token
    still reports an allowance that was reset MAX_RESETS times. Raises AwaitingExternalSignature once
    one is proposed.
    """
    if outcome.kind is OutcomeKind.DECLINED and not outcome.transactions:
        return outcome
    sent_intents = list(outcome.transactions)
    step_input = outcome.input_after or outcome.step_input
    if not sent_intents and not transactor.composer.allowance_resets(step_input):
        return outcome
    if not transactor.executor.may_send():
        return outcome
    try:
        if sent_intents and outcome.input_after is None:
            step_input = readers.step_input_at(readers.reader.snapshot())
        leftover_approvals = transactor.composer.allowance_resets(step_input)
        misreported_approvals = [
            approval for approval in leftover_approvals if _is_misreported(store.journal, approval)
        ]
        leftover_approvals = [
            approval for approval in leftover_approvals if approval not in misreported_approvals
        ]
        if misreported_approvals:
            message = (
                f"{format_open_allowances(misreported_approvals)}, although it was set to zero"
                f" {MAX_RESETS} times; inspect the token, or run trimtab revoke"
            )
            outcome = replace(outcome, reason=f"{outcome.reason}; {message}")
        if not leftover_approvals:
            return outcome
        message = format_open_allowances(leftover_approvals)
        if not sent_intents and not transactor.confirm(
            replace(outcome, reason=f"{outcome.reason}; {message}: set to zero")
        ):
            return outcome
        failures = revoke_approvals(
            transactor, outcome.step_id, step_input, leftover_approvals, sent_intents
        )
        snapshot = readers.reader.snapshot()
        settle_mined(store, snapshot, lambda: readers.step_input_at(snapshot))
        if not failures:
            step_after = None if outcome.input_after is None else readers.step_input_at(snapshot)
            return replace(outcome, transactions=tuple(sent_intents), input_after=step_after)
        require_none_proposed(failures)
        failures_text = "; ".join(failure.message for failure in failures)
        message = f"open allowances remain: {failures_text}"
    except AwaitingExternalSignature:
        raise
    except TrimtabError as error:
        message = f"open allowances remain: {error.message}"
    return replace(outcome, transactions=tuple(sent_intents), reason=f"{outcome.reason}; {message}")


@dataclass(frozen=True, slots=True)
class RevocationFailure:
    """An allowance that was not set to zero; `is_by_token` is true if its token refuses that, so
    that trying again does not help. `cause` is the passing error, if one was raised.
    """

    message: str
    is_by_token: bool = False
    cause: TrimtabError | None = None


def require_none_proposed(failures: Sequence[RevocationFailure]) -> None:
    """Raise AwaitingExternalSignature if a revocation is proposed."""
    for failure in failures:
        if isinstance(failure.cause, AwaitingExternalSignature):
            raise failure.cause


def revoke_approvals(
    transactor: StepTransactor,
    step_id: str,
    step_input: StepInput,
    approvals: Sequence[Approval],
    sent_intents: list[Intent],
) -> list[RevocationFailure]:
    """Revoke each of these approvals and return the failures; one token's refusal does not stop the
    others. A fault that may pass does, such as an endpoint that lags behind the last revocation.
    """
    failures: list[RevocationFailure] = []
    for approval in approvals:
        try:
            intent = execute_prepared(
                transactor, step_id, transactor.composer.approval_transaction(step_input, approval)
            )
        except Refused as refusal:
            message = f"{approval.token_label}: {refusal.message}"
            is_by_token = isinstance(refusal, UnsendableTransaction)
            failures.append(RevocationFailure(message, is_by_token))
            continue
        except (Retryable, PassingFault) as error:
            failures.append(RevocationFailure(error.message, cause=error))
            break
        sent_intents.append(intent)
        if not intent.succeeded:
            message = f'{approval.token_label}: "{intent.note}" did not succeed'
            failures.append(RevocationFailure(message))
        step_input = after_gas(step_input, intent)
    return failures


def _is_misreported(journal: IntentStore, approval: Approval) -> bool:
    """True if its newest MAX_RESETS mined approvals all set the allowance to zero: the token
    misreports it.
    """
    zero_count = 0
    for nonce in _newest_nonces(journal):
        for intent in journal.intents_at(nonce):
            if intent.kind is not IntentKind.APPROVE or not intent.succeeded:
                continue
            approval_terms = journal.grant(intent.id).approval_terms
            if approval_terms is None or approval_terms[:2] != (approval.token, approval.spender):
                continue
            zero_count += 1
            if approval_terms[2] > 0 or zero_count == MAX_RESETS:
                return approval_terms[2] == 0
    return False


# --- One payout: judged on a fresh snapshot, then recorded, sent and booked like every transaction.


def pay(
    readers: StepReaders,
    store: Store,
    transactor: StepTransactor,
    payout: Payout,
    confirmed_addresses: tuple[str, ...],
) -> Intent:
    """Make one payout, judged on the newest snapshot, and return its final intent. The kill switch
    is read before it is sent.

    Raises Refused with every verdict before anything is sent, and Retryable and OperatorNeeded like
    a step.
    """
    step = cash_limit.restore_excluded_amounts(current_step_input(readers, store))
    step_id = uuid.uuid4().hex[:12]
    store.steps.begin(
        step_id, readers.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("payout"))
    )
    with ends_if_raised(store, step_id, "payout"):
        table.require_payout_allowed(table.judge_payout(step, payout, confirmed_addresses))
        prepared_tx = transactor.composer.payout_transaction(step, payout)
        intent = execute_prepared(transactor, step_id, prepared_tx)
    store.steps.end(
        step_id, "payout", prepared_tx.note, None, "done" if intent.succeeded else "failed"
    )
    current_step_input(readers, store)
    return intent


@dataclass(frozen=True, slots=True)
class OwnerAction:
    """A transaction that the owner asks for by a command; `success_text` is recorded if it is
    done.
    """

    name: str
    compose: Callable[[StepInput], PreparedTransaction]
    success_text: str


def send_by_command(
    readers: StepReaders,
    store: Store,
    transactor: StepTransactor,
    step: StepInput,
    action: OwnerAction,
    confirm: Callable[[PreparedTransaction], bool],
) -> tuple[str, tuple[Intent, ...]]:
    """Compose the transaction of the owner's action, send it once confirmed, and book it. Return
    the outcome (done, declined or failed) and the transactions. Raises Refused and other errors
    like `pay`.
    """
    step_id = uuid.uuid4().hex[:12]
    store.steps.begin(
        step_id, readers.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction(action.name))
    )
    intents: tuple[Intent, ...] = ()
    with ends_if_raised(store, step_id, action.name):
        prepared_tx = action.compose(step)
        if confirm(prepared_tx):
            intents = (execute_prepared(transactor, step_id, prepared_tx),)
    outcome_name = "declined"
    reason = "declined: nothing changed"
    if intents:
        outcome_name = "done" if intents[0].succeeded else "failed"
        reason = action.success_text if intents[0].succeeded else "failed: at most gas was spent"
    store.steps.end(step_id, action.name, reason, None, outcome_name)
    current_step_input(readers, store)
    return outcome_name, intents


@contextmanager
def ends_if_raised(store: Store, step_id: str, decision_name: str) -> Iterator[None]:
    """Record an error raised inside the context as the end of a step: as refused, waiting for the
    signer of a proposal, or error.
    """
    try:
        yield
    except TrimtabError as error:
        outcome_name = "refused" if isinstance(error, Refused) else interruption_outcome(error)
        store.steps.end(step_id, decision_name, str(error), None, outcome_name)
        raise


def current_step_input(readers: StepReaders, store: Store) -> StepInput:
    """Return the newest step input, at or after our last transaction, with all mined transactions
    booked.
    """
    caught_up_reader = CaughtUpReader(readers.reader, store.journal, readers.clock)
    return settled_step_input(readers, store, caught_up_reader.snapshot())


def settled_step_input(readers: StepReaders, store: Store, snapshot: Snapshot) -> StepInput:
    """Return the step input at a snapshot, with all transactions booked that are mined there."""
    assemble_step = partial(readers.step_input_at, snapshot)
    settle_mined(store, snapshot, assemble_step)
    return assemble_step()


# --- Hard pause: cancel pending transactions, revoke allowances, trade nothing (T14).


HARD_PAUSE_DECISION = "retreat"
"""Stored decision of a hard pause. No trigger returns it, so a replay does not repeat it."""


@dataclass(frozen=True, slots=True)
class PendingAndAllowances:
    """Subject of a hard pause: pending transactions, and allowances above zero."""

    step_input: StepInput
    pending_intents: tuple[Intent, ...]
    open_allowances: tuple[Approval, ...]


def pending_and_allowances(readers: StepReaders, store: Store) -> PendingAndAllowances:
    """Return pending transactions and open allowances; sends nothing, and records no step."""
    step_input = readers.step_input_at(readers.reader.snapshot())
    return PendingAndAllowances(
        step_input, cancellable_intents(store.journal), tuple(allowances.revocations(step_input))
    )


def pending_intents(journal: IntentStore) -> tuple[Intent, ...]:
    """Return open transactions whose nonce is in no block, replacements included, and the limit
    orders that rest at a venue.
    """
    intents = journal.open_intents()
    mined_nonces = {
        intent.tx.nonce
        for intent in intents
        if intent.state is IntentState.MINED and not intent.is_resting
    }
    return tuple(intent for intent in intents if intent.tx.nonce not in mined_nonces)


def cancellable_intents(journal: IntentStore) -> tuple[Intent, ...]:
    """Return what a cancel would end: pending transactions, without the rejections that wait for a
    signature while what they reject is open.
    """
    intents = pending_intents(journal)
    rejected_nonces = {
        intent.tx.nonce for intent in intents if intent.kind is not IntentKind.CANCEL
    }
    return tuple(
        intent
        for intent in intents
        if intent.kind is not IntentKind.CANCEL
        or intent.state is not IntentState.PLANNED
        or intent.tx.nonce not in rejected_nonces
    )


def cancel_and_revoke(
    readers: StepReaders, store: Store, transactor: StepTransactor, why: str
) -> StepOutcome:
    """Cancel pending transactions, then revoke allowances, through journal and signer.

    One token's refusal does not stop the others. Returns HALT if nothing needed to be done, DONE if
    nothing remains, FAILED with the reason otherwise. Raises Refused unless the kill switch is at
    hard or off, Retryable and OperatorNeeded like a step.
    """
    store.cycles.give_way(f"hard pause: {why}")
    initial_pending_intents = pending_intents(store.journal)
    transactor.executor.cancel_pending(why)
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store.journal, readers.clock))
    step_input = settled_step_input(readers, store, readers.reader.snapshot())
    step_id = uuid.uuid4().hex[:12]
    store.steps.begin(
        step_id,
        readers.clock.now_s(),
        codec.dumps(step_input),
        codec.dumps(ManualAction("pause --hard")),
    )
    open_allowances = allowances.revocations(step_input)
    with ends_if_raised(store, step_id, HARD_PAUSE_DECISION):
        sent_intents, revocation_failures = revoke_allowances(
            transactor, step_id, step_input, open_allowances
        )
        step_after = step_input
        if sent_intents:
            step_after = readers.step_input_at(readers.reader.snapshot())
    failures = [failure.message for failure in revocation_failures]
    if remaining_approvals := allowances.revocations(step_after):
        failures.append(format_open_allowances(remaining_approvals))
    failures += allowances.unread_allowances(step_after)
    remaining_intents = pending_intents(store.journal)
    failures += [
        f'"{note}" is still pending'
        for note in dict.fromkeys(intent.note for intent in remaining_intents)
    ]
    ended_intents = _with_cancels(store.journal, initial_pending_intents)
    withdrawn_texts = withdrawn_proposal_texts(
        store.journal, store.proposals, ended_intents, step_input.snapshot.head.timestamp_s
    )
    pending_nonces = {intent.tx.nonce for intent in remaining_intents}
    reason = _cancel_summary(
        store.journal,
        why,
        initial_pending_intents,
        ended_intents,
        pending_nonces,
        sent_intents,
        [*withdrawn_texts, *failures],
    )
    if failures:
        kind = OutcomeKind.FAILED
    elif initial_pending_intents or sent_intents:
        kind = OutcomeKind.DONE
    else:
        kind = OutcomeKind.HALT
    store.steps.end(step_id, HARD_PAUSE_DECISION, reason, None, kind.value)
    return StepOutcome(
        step_id,
        kind,
        reason,
        step_input,
        hard_pause_result(step_input, reason),
        None,
        transactions=(*ended_intents, *sent_intents),
        input_after=step_after,
    )


def revoke_allowances(
    transactor: StepTransactor,
    step_id: str,
    step_input: StepInput,
    open_allowances: Sequence[Approval],
) -> tuple[list[Intent], list[RevocationFailure]]:
    """Set each of these allowances to zero; return the transactions and the failures."""
    sent_intents: list[Intent] = []
    if not transactor.executor.may_send(for_revoking=True):
        failure = RevocationFailure("allowances are revoked once nothing is pending")
        return sent_intents, [failure] if open_allowances else []
    failures = revoke_approvals(transactor, step_id, step_input, open_allowances, sent_intents)
    return sent_intents, failures


def _with_cancels(journal: IntentStore, initial_pending_intents: Sequence[Intent]) -> list[Intent]:
    """Return the transactions of `initial_pending_intents` and their cancels in their current
    state.
    """
    newest_id_by_nonce = {intent.tx.nonce: intent.id for intent in initial_pending_intents}
    return [
        intent
        for nonce, intent_id in newest_id_by_nonce.items()
        for intent in replacement_family(journal.intents_at(nonce), intent_id)
    ]


@dataclass(frozen=True, slots=True)
class _OrderFill:
    """The filled part of an order at a venue; `is_whole` is true if no lot of it is unfilled."""

    nonce: int
    is_whole: bool
    text: str


def _order_fill(journal: IntentStore, intent: Intent) -> _OrderFill | None:
    """Return what was filled of an order at an off-chain venue; None for anything else."""
    grant = futures_grant(journal.grant(intent.id))
    if (
        not intent.tx.is_venue_order
        or intent.receipt is None
        or not intent.receipt.fills
        or grant is None
        or not isinstance(grant.action, PerpOrder)
    ):
        return None
    market = grant.account.market(grant.action.market)
    filled_raw = abs(sum(fill.size_raw for fill in intent.receipt.fills))
    size_raw = abs(grant.action.size_raw)
    filled_text = decimal_text(filled_raw, market.size_decimals)
    size_text = decimal_text(size_raw, market.size_decimals)
    return _OrderFill(
        intent.tx.nonce,
        size_raw - filled_raw < market.lot_raw,
        f'{filled_text} of {size_text} {market.symbol} of "{intent.note}" was filled',
    )


def _cancel_summary(
    journal: IntentStore,
    why: str,
    initial_pending_intents: Sequence[Intent],
    ended_intents: Sequence[Intent],
    pending_nonces: Set[int],
    sent_intents: Sequence[Intent],
    remarks: Sequence[str],
) -> str:
    if not initial_pending_intents and not sent_intents and not remarks:
        return f"hard pause ({why}): no pending transactions, no open allowances"
    resting_ids = {intent.id for intent in initial_pending_intents if intent.is_resting}
    mined_intents = [
        intent
        for intent in ended_intents
        if intent.state in NONCE_USED_STATES
        and intent.kind is not IntentKind.CANCEL
        and intent.id not in resting_ids
    ]
    order_fills = [_order_fill(journal, intent) for intent in ended_intents]
    sentences = []
    if initial_pending_intents:
        nonces = {intent.tx.nonce for intent in initial_pending_intents}
        filled_nonces = {fill.nonce for fill in order_fills if fill is not None and fill.is_whole}
        mined_nonces = {intent.tx.nonce for intent in mined_intents}
        cancelled_nonces = nonces - pending_nonces - mined_nonces - filled_nonces
        sentences.append(f"{len(cancelled_nonces)} of {len(nonces)} pending transactions cancelled")
    sentences += [
        f'"{intent.note}" was mined before it could be cancelled' for intent in mined_intents
    ]
    sentences += [fill.text for fill in order_fills if fill is not None]
    if sent_intents:
        revoked_count = sum(intent.succeeded for intent in sent_intents)
        sentences.append(f"{revoked_count} of {len(sent_intents)} allowances set to zero")
    return f"hard pause ({why}): {'; '.join([*sentences, *remarks])}"
