"""Orders of an off-chain futures venue, each recorded before it is posted, and posted once. A lost
answer is resolved by the order's client id: the venue either took the order, with its fills, or
never saw it, which is certain once the venue's own time is past the order's expiry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.errors import ErrorCode, Retryable, TrimtabError
from agent.execution.executor import JournaledExecutor
from agent.execution.submitter import SubmissionEvent, Submitter, require_before_deadline
from agent.model import Intent, IntentEvent, IntentKind, IntentState, Receipt, UnsignedTx
from agent.ports import Grant, Signer
from agent.ports.futures import OrderVenue
from agent.units import format_time

OUTCOME_POLLS = 5
"""Number of queries for an open order's outcome before the step continues without it."""


class VenueExecutor:
    """Implements ports.Executor on top of the chain's executor: venue orders go to the venue,
    everything else to the chain.
    """

    def __init__(
        self, chain: JournaledExecutor, submitter: Submitter, signer: Signer, venue: OrderVenue
    ) -> None:
        """Take the chain's executor and submitter, and the signer and the venue of orders."""
        self._chain = chain
        self._submitter = submitter
        self._signer = signer
        self._venue = venue

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Resolve open transactions on the chain, then open orders at the venue.

        An order is never posted again. If the venue does not answer, the chain continues: the order
        stays open, and no other order is sent.
        """
        return [*self._chain.reconcile(may_send=may_send), *self._resolve_all()]

    def cancel_pending(self, why: str) -> list[Intent]:
        """Cancel like the chain's executor. Orders are immediate-or-cancel, so none rests in the
        book: unsent orders are dropped, all others resolved.
        """
        return [*self._chain.cancel_pending(why), *self._resolve_all()]

    def resync_nonce(self) -> int:
        """Adopt the chain's current nonce as the chain's executor does."""
        return self._chain.resync_nonce()

    def ready(self, *, for_revoking: bool = False) -> bool:
        """True if the chain's executor is ready and no order is open."""
        return self._chain.ready(for_revoking=for_revoking) and not self._open()

    def run(
        self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str
    ) -> Intent:
        """Run one order from PLANNED to its end; run a transaction through the chain's executor. A
        partly filled order is FINAL with its fills; an order without a fill, or that the venue
        never saw, is REVERTED. Raises Refused before anything is posted, with the code `agent_key`
        for a key that may not trade, and Retryable while the outcome is open: the next `reconcile` resolves
        it, and no other order is sent until then.
        """
        if not tx.is_venue_order:
            return self._chain.run(step_id, kind, tx, grant, note)
        submitter = self._submitter
        submitter.require_running(grant)
        self._require_turn()
        self._venue.require_agent(grant.deadline_s)
        intent = submitter.plan(step_id, kind, tx, grant, note, grant.deadline_s)
        intent, refusal = self._post(intent, grant)
        ended = self._await(intent, refusal)
        if ended.state in (IntentState.FINAL, IntentState.REVERTED):
            return ended
        raise Retryable(
            f"{note}: the venue does not know the order {intent.tx_hash} yet",
            "run the command again: it first queries this order's outcome",
            code=ErrorCode.NOT_MINED,
        )

    def _post(self, intent: Intent, grant: Grant) -> tuple[Intent, str]:
        """Sign a PLANNED order, record it as BROADCAST, and post it; return the reason if the venue
        rejects it. Drops the order if signing or the last check fails.
        """
        submitter = self._submitter
        try:
            signed = self._signer.sign(intent.tx, grant)
        except TrimtabError as error:
            submitter.drop(intent, error.message)
            raise
        intent = submitter.move(intent, IntentState.SIGNED, tx_hash=signed.hash)
        try:
            submitter.require_running(grant)
            require_before_deadline(submitter.clock.now_s(), grant.deadline_s)
        except TrimtabError as error:
            submitter.drop(intent, error.message)
            raise
        intent = submitter.move(intent, IntentState.BROADCAST, "sent", event=IntentEvent.SEND)
        submitter.tell(SubmissionEvent("before:send", intent))
        refusal = ""
        try:
            refusal = self._venue.post(signed)
        except Retryable as error:
            submitter.tell(SubmissionEvent("fate-unknown", intent, error.message))
        submitter.tell(SubmissionEvent("after:send", intent))
        return intent, refusal

    def _await(self, intent: Intent, refusal: str) -> Intent:
        """Query the outcome until it is known, or the attempts are used up."""
        submitter = self._submitter
        for attempt in range(OUTCOME_POLLS):
            if attempt:
                submitter.clock.sleep(submitter.settings.poll_s)
            intent = self._resolve(intent, refusal)
            if intent.state not in (IntentState.BROADCAST, IntentState.MINED):
                break
        return intent

    def _resolve_all(self) -> list[Intent]:
        return [self._resolve(intent, "") for intent in self._open()]

    def _resolve(self, intent: Intent, refusal: str) -> Intent:
        """Return the intent in its current state: ended if its outcome is known."""
        submitter = self._submitter
        if intent.state is IntentState.PLANNED:
            return submitter.drop(intent, "the process ended before signing")
        if intent.state is IntentState.MINED:
            return submitter.close(intent)
        try:
            receipt = self._venue.outcome(intent)
            if receipt is None and intent.state is IntentState.SIGNED:
                return submitter.drop(intent, "the process ended before sending")
            if receipt is None and refusal:
                receipt = unfilled(intent)
            if receipt is None:
                return intent
            head = submitter.sender.head()
        except Retryable as error:
            submitter.tell(SubmissionEvent("fate-unknown", intent, error.message))
            return intent
        if intent.state is IntentState.SIGNED:  # sent by a copy of this store
            intent = submitter.move(intent, IntentState.BROADCAST, "found at the venue")
        receipt = replace(receipt, block_number=head.number, block_hash=head.hash)
        note = refusal or ("" if receipt.status else "nothing was filled")
        return submitter.close(submitter.move(intent, IntentState.MINED, note, receipt=receipt))

    def _open(self) -> Sequence[Intent]:
        return [
            intent for intent in self._submitter.journal.open_intents() if intent.tx.is_venue_order
        ]

    def _require_turn(self) -> None:
        """Raise Retryable while an order is open: it may still change the account."""
        if not (waiting := self._open()):
            return
        first = waiting[0]
        raise Retryable(
            f"the outcome of an earlier order is not known: {first.note}, {first.tx_hash}",
            "wait: it is resolved at the latest once it expires, "
            f"{format_time(first.deadline_s or 0)}",
            code=ErrorCode.OPEN_TRANSACTION,
        )


def unfilled(intent: Intent) -> Receipt:
    """Return the receipt of an order that ended without a fill."""
    return Receipt(str(intent.tx_hash), 0, 0, "", 0, 0, ())
