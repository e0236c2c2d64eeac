"""Send approvals one by one, revoke leftover allowances, make payments, and cancel everything at a
hard pause.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent import codec
from agent.errors import Refused, Retryable, TrimtabError
from agent.execution.settlement import after_gas, settle_mined
from agent.execution.step_context import (
    CaughtUpReader,
    OutcomeKind,
    StepActors,
    StepOutcome,
    StepReaders,
)
from agent.execution.submitter import format_open_allowances
from agent.guards import table
from agent.model import Intent, IntentKind, IntentState, ManualAction, Payout, StepInput
from agent.policy.cash_flows import balance_changes
from agent.policy.decide import halt_for
from agent.ports import Approval, Journal, PreparedTransaction, StepStorage
from agent.store.journal import family
from agent.venues import composer

MAX_RESETS, RESET_LOOKBACK_NONCES = 3, 12
"""Maximum consecutive revocations of an allowance that the token still reports, and number of
newest nonces searched.
"""


def approve(
    actors: StepActors, outcome: StepOutcome, needed: Sequence[Approval], sent: list[Intent]
) -> None:
    """Send approvals until one fails; the gas of each counts for the next. Afterwards the plan has
    to be made anew.
    """
    step_input = outcome.step_input
    for approval in needed:
        intent = execute_prepared(
            actors, outcome.step_id, actors.composer.approve(step_input, approval)
        )
        sent.append(intent)
        if not intent.succeeded:
            return
        step_input = after_gas(step_input, intent)


def execute_prepared(actors: StepActors, step_id: str, prepared: PreparedTransaction) -> Intent:
    """Carry one prepared transaction through to its end."""
    return actors.executor.run(
        step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note
    )


def revoke_leftovers(
    readers: StepReaders, actors: StepActors, store: StepStorage, outcome: StepOutcome
) -> StepOutcome:
    """Reset open allowances to zero, one transaction each, however the step ended.

    Gas limits apply. Sends nothing while paused, with a transaction open, or if nothing was
    confirmed. A failed revocation is reported and retried after the next step, unless the allowance
    was reset many times and the token still reports it.
    """
    if (
        outcome.kind is OutcomeKind.DECLINED and not outcome.transactions
    ) or not actors.executor.ready():
        return outcome
    sent = list(outcome.transactions)
    try:
        found = outcome.after or (
            readers.step_input_at(readers.reader.snapshot()) if sent else outcome.step_input
        )
        open_still = actors.composer.open_approvals(found)
        vain = [approval for approval in open_still if _reset_in_vain(store.journal, approval)]
        open_still = [approval for approval in open_still if approval not in vain]
        if vain:
            message = (
                f"{format_open_allowances(vain)}, although it was set to zero {MAX_RESETS} times;"
                " check what its token does, or trimtab revoke"
            )
            outcome = replace(outcome, reason=f"{outcome.reason}; {message}")
        if not open_still:
            return outcome
        message = format_open_allowances(open_still)
        if not sent and not actors.confirm(
            replace(outcome, reason=f"{outcome.reason}; {message}: set to zero")
        ):
            return outcome
        troubles = set_to_zero(actors, outcome.step_id, found, open_still, sent)
        snapshot = readers.reader.snapshot()
        settle_mined(store, snapshot, lambda: readers.step_input_at(snapshot))
        if not troubles:
            after = None if outcome.after is None else readers.step_input_at(snapshot)
            return replace(outcome, transactions=tuple(sent), after=after)
        message = f"open allowances remain: {'; '.join(troubles)}"
    except TrimtabError as error:
        message = f"open allowances remain: {error.message}"
    return replace(outcome, transactions=tuple(sent), reason=f"{outcome.reason}; {message}")


def set_to_zero(
    actors: StepActors,
    step_id: str,
    step_input: StepInput,
    allowed: Sequence[Approval],
    sent: list[Intent],
) -> list[str]:
    """Revoke each of these approvals and report every failure; one token's refusal does not stop
    the others.
    """
    troubles: list[str] = []
    for approval in allowed:
        try:
            intent = execute_prepared(
                actors, step_id, actors.composer.approve(step_input, approval)
            )
        except Refused as refusal:
            troubles.append(f"{approval.label}: {refusal.message}")
            continue
        except Retryable as error:
            troubles.append(error.message)
            break
        sent.append(intent)
        if not intent.succeeded:
            troubles.append(f"{approval.label}: «{intent.note}» did not succeed")
        step_input = after_gas(step_input, intent)
    return troubles


def _reset_in_vain(journal: Journal, approval: Approval) -> bool:
    """True if its newest MAX_RESETS mined approvals all set it to zero: the token misreports its
    allowance.
    """
    zeroed, end = 0, journal.expected_nonce() or 0
    for nonce in range(end - 1, max(-1, end - 1 - RESET_LOOKBACK_NONCES), -1):
        for intent in journal.intents_at(nonce):
            granted = (
                journal.grant(intent.id).approve
                if intent.kind is IntentKind.APPROVE and intent.succeeded
                else None
            )
            if granted is None or granted[:2] != (approval.token, approval.spender):
                continue
            zeroed += 1
            if granted[2] > 0 or zeroed == MAX_RESETS:
                return granted[2] == 0
    return False


# --- One payment out of the wallet: judged on a fresh snapshot, recorded, sent, followed and booked
# like every transaction.


def pay(
    readers: StepReaders,
    store: StepStorage,
    actors: StepActors,
    payout: Payout,
    confirmed: tuple[str, ...],
) -> Intent:
    """Make one payment, judged on the newest snapshot, and return its intent as it ended. The kill
    switch is read when it is sent.

    Raises Refused with every verdict before anything is sent, and Retryable and OperatorNeeded like
    a step.
    """
    step = balance_changes.restore_excluded(current_step_input(readers, store))
    step_id = uuid.uuid4().hex[:12]
    store.steps.begin(
        step_id, readers.clock.now_s(), codec.dumps(step), codec.dumps(ManualAction("payout"))
    )
    try:
        table.require_payout_allowed(table.judge_payout(step, payout, confirmed))
        prepared = actors.composer.payout(step, payout)
        intent = actors.executor.run(
            step_id, prepared.grant.kind, prepared.tx, prepared.grant, prepared.note
        )
    except TrimtabError as error:
        store.steps.end(
            step_id,
            "payout",
            str(error),
            None,
            "refused" if isinstance(error, Refused) else "error",
        )
        raise
    current_step_input(readers, store)
    store.steps.end(
        step_id, "payout", prepared.note, None, "done" if intent.succeeded else "failed"
    )
    return intent


def current_step_input(readers: StepReaders, store: StepStorage) -> StepInput:
    """Return the newest step input, at or after our own last transaction, with everything mined
    booked.
    """
    snapshot = CaughtUpReader(readers.reader, store.journal, readers.clock).snapshot()
    assembled = partial(readers.step_input_at, snapshot)
    settle_mined(store, snapshot, assembled)
    return assembled()


# --- The kill switch at hard: cancel pending transactions, revoke allowances, trade nothing (T14).


HARD_PAUSE_DECISION = "retreat"
"""Decision of a hard pause in the store: not a trigger's, so that a replay does not decide it
again."""


@dataclass(frozen=True, slots=True)
class OpenExposure:
    """Subject of a hard pause: transactions that are in no block, and allowances above zero."""

    step_input: StepInput
    waiting: tuple[Intent, ...]
    allowed: tuple[Approval, ...]


def open_exposure(readers: StepReaders, store: StepStorage) -> OpenExposure:
    """Read pending transactions and open allowances; writes and sends nothing."""
    step_input = readers.step_input_at(readers.reader.snapshot())
    return OpenExposure(
        step_input, pending_intents(store.journal), tuple(composer.revocations(step_input))
    )


def pending_intents(journal: Journal) -> tuple[Intent, ...]:
    """Open transactions whose nonce is in no block, replacements included."""
    found = journal.open_intents()
    mined = {intent.tx.nonce for intent in found if intent.state is IntentState.MINED}
    return tuple(intent for intent in found if intent.tx.nonce not in mined)


def cancel_and_revoke(
    readers: StepReaders, store: StepStorage, actors: StepActors, why: str
) -> StepOutcome:
    """Cancel, then revoke, each through journal and signer.

    One token's refusal does not stop the others. Returns HALT if there was nothing to do, DONE if
    all is done, FAILED with the reason if something remains. Raises Refused unless the switch is at
    hard or off, Retryable and OperatorNeeded like a step.
    """
    before = pending_intents(store.journal)
    actors.executor.cancel_pending(why)
    readers = replace(readers, reader=CaughtUpReader(readers.reader, store.journal, readers.clock))
    snapshot = readers.reader.snapshot()
    settle_mined(store, snapshot, lambda: readers.step_input_at(snapshot))
    step_input = readers.step_input_at(snapshot)
    step_id = uuid.uuid4().hex[:12]
    store.steps.begin(
        step_id,
        readers.clock.now_s(),
        codec.dumps(step_input),
        codec.dumps(ManualAction("pause --hard")),
    )
    allowed = composer.revocations(step_input)
    sent, troubles = revoke_allowances(actors, step_id, step_input, allowed)
    after = readers.step_input_at(readers.reader.snapshot()) if sent else step_input
    if left := composer.revocations(after):
        troubles.append(format_open_allowances(left))
    troubles += [
        f"«{note}» is still pending"
        for note in dict.fromkeys(intent.note for intent in pending_intents(store.journal))
    ]
    cancels = _cancels(store.journal, before)
    reason = _cancel_summary(why, before, cancels, sent, troubles)
    kind = (
        OutcomeKind.FAILED if troubles else OutcomeKind.DONE if before or sent else OutcomeKind.HALT
    )
    store.steps.end(step_id, HARD_PAUSE_DECISION, reason, None, kind.value)
    return StepOutcome(
        step_id,
        kind,
        reason,
        step_input,
        halt_for(step_input, reason),
        None,
        transactions=(*cancels, *sent),
        after=after,
    )


def revoke_allowances(
    actors: StepActors, step_id: str, step_input: StepInput, allowed: Sequence[Approval]
) -> tuple[list[Intent], list[str]]:
    """Reset each of these approvals to zero; return the transactions, and the reasons of
    failures.
    """
    sent: list[Intent] = []
    if not actors.executor.ready(for_revoking=True):
        return sent, ["allowances are revoked once nothing is pending"] if allowed else []
    troubles = set_to_zero(actors, step_id, step_input, allowed, sent)
    return sent, troubles


def _cancels(journal: Journal, before: Sequence[Intent]) -> list[Intent]:
    """Return the formerly pending transactions and their cancels in their present state."""
    newest = {intent.tx.nonce: intent.id for intent in before}
    return [
        intent
        for nonce, known in newest.items()
        for intent in family(journal.intents_at(nonce), known)
    ]


def _cancel_summary(
    why: str,
    before: Sequence[Intent],
    cancels: Sequence[Intent],
    sent: Sequence[Intent],
    troubles: Sequence[str],
) -> str:
    if not before and not sent and not troubles:
        return f"hard pause ({why}): no pending transactions, no open allowances"
    won = [
        intent for intent in cancels if intent.succeeded and intent.kind is not IntentKind.CANCEL
    ]
    nonces = len({intent.tx.nonce for intent in before})
    parts = [f"{nonces - len(won)} of {nonces} pending transactions cancelled"] if before else []
    parts += [f"«{intent.note}» was mined before it could be cancelled" for intent in won]
    parts += (
        [f"{sum(intent.succeeded for intent in sent)} of {len(sent)} allowances set to zero"]
        if sent
        else []
    )
    return f"hard pause ({why}): {'; '.join([*parts, *troubles])}"
