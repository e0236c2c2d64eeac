"""Executor for orders of an off-chain futures venue: posted once and resolved by their client
order ids; orders that rest are cancelled on request, or while the kill switch is on. Each state
change is recorded before the action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from agent.errors import (
    ErrorCode,
    PassingFault,
    Refused,
    Retryable,
    TrimtabError,
    UnsendableTransaction,
)
from agent.execution.executor import JournaledExecutor
from agent.execution.submission.checks import guard_refusal, require_before_deadline
from agent.execution.submission.events import SubmissionEvent
from agent.execution.submission.submitter import Submitter
from agent.model import (
    UNREAD_ACCOUNT,
    FuturesAction,
    FuturesGrant,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    OrderCancel,
    PerpOrder,
    Receipt,
    StopOrder,
    UnsignedTx,
)
from agent.ports import Grant, PreparedTransaction, Signer
from agent.ports.perpetuals import (
    OrderSigner,
    OrderVenue,
    futures_grant,
    granted_action,
)
from agent.units import format_time

VENUE_ACCEPTANCE = "accepted by the venue"
"""Limit of the verdict on an order that the venue rejected; the measurement is its reason."""
OUTCOME_POLLS = 5
"""Number of queries for an open order's outcome before the step continues without it."""


class VenueExecutor:
    """Implements ports.Executor on top of the chain's executor: venue orders go to the venue,
    everything else to the chain.
    """

    def __init__(
        self,
        chain_executor: JournaledExecutor,
        submitter: Submitter,
        signer: Signer,
        venue: OrderVenue,
    ) -> None:
        """Take the chain's executor and submitter, and the signer and the venue of orders."""
        self._chain_executor = chain_executor
        self._submitter = submitter
        self._signer = signer
        self._venue = venue

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Resolve open transactions on the chain, then open orders at the venue, even if the chain's
        executor raises: its error is raised once they are settled.

        An order is never posted again. If the venue does not answer, the chain continues: the order
        stays open, and no other order is sent. Resting limit orders get the receipt of their fills
        so far. While the kill switch is on they are cancelled, at any level, because they only
        open; a cancel that fails is sent again by the next call.
        """

        def settle_orders() -> list[Intent]:
            resolved_orders = self._resolve_all()
            if not may_send or self._submitter.is_paused() is False:
                return resolved_orders
            return resolved_orders + self._cancel_all("the kill switch is on")

        return _with_orders(
            lambda: self._chain_executor.reconcile(may_send=may_send), settle_orders
        )

    def cancel_pending(self, why: str) -> list[Intent]:
        """Cancel like the chain's executor: resting limit orders are cancelled, unsent orders
        dropped, all others resolved. Resting stops stay, because they only close positions ahead of
        liquidation. An error of the chain's executor is raised once the orders are settled.
        """
        return _with_orders(
            lambda: self._chain_executor.cancel_pending(why),
            lambda: self._resolve_all() + self._cancel_all(why),
        )

    def cancel_resting_orders(
        self, reason_by_cloid: Mapping[str, str], step_id: str = ""
    ) -> list[Intent]:
        """See ports.Executor. Needs no snapshot: the market and the order are in the journal."""
        resting_orders = [intent for intent in self._open_orders() if intent.is_resting]
        resolved_orders = []
        for intent in resting_orders:
            why = reason_by_cloid.get(str(intent.tx_hash))
            if why is None or intent.tx_hash in self._cloids_being_cancelled():
                continue
            try:
                self._cancel(intent, why, step_id or intent.step_id)
            except TrimtabError as error:
                self._submitter.on_event(SubmissionEvent("fate-unknown", intent, error.message))
            resolved_orders.append(self._resolve(intent, ""))
        return resolved_orders

    def resync_nonce(self) -> int:
        """Adopt the chain's current nonce as the chain's executor does."""
        return self._chain_executor.resync_nonce()

    def mined_receipt(self, nonce: int, since_block: int) -> Receipt | None:
        """See ports.Executor."""
        return self._chain_executor.mined_receipt(nonce, since_block)

    def may_send(self, *, for_revoking: bool = False) -> bool:
        """True if the chain's executor is ready and no order is open but those that rest."""
        is_chain_ready = self._chain_executor.may_send(for_revoking=for_revoking)
        return is_chain_ready and all(intent.is_resting for intent in self._open_orders())

    def run(self, step_id: str, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Run one order from PLANNED to its end; run a transaction through the chain's executor. A
        partly filled order is FINAL with its fills; an order without a fill, or that the venue
        never saw, is REVERTED. A limit order that rests is MINED, with its fills so far, and later
        FINAL, also without a fill; one that the venue rejects is REVERTED, and raises Refused with
        the venue's reason. Raises Refused before anything is posted, with the code `agent_key`
        for a key that may not trade. Raises Retryable while the outcome is open: the next
        `reconcile` resolves it, and no other order is sent until then.
        """
        if not tx.is_venue_order:
            return self._chain_executor.run(step_id, tx, grant, note)
        submitter = self._submitter
        submitter.require_running(grant)
        self._require_none_unresolved(grant)
        self._venue.require_approved_key(grant.deadline_s, is_reduction=_only_reduces(grant))
        intent = submitter.record_intent(step_id, tx, grant, note, grant.deadline_s)
        intent, rejection_reason = self._post(intent, grant)
        resolved_order = self._await_outcome(intent, rejection_reason)
        if resolved_order.state is IntentState.REVERTED and _is_limit_order(grant):
            reason = resolved_order.failure_reason
            raise guard_refusal(
                "simulation",
                reason or "rejected",
                VENUE_ACCEPTANCE,
                f"{note}: the venue rejects it: {reason or 'without a reason'}",
                "the next step plans it again",
                error_type=UnsendableTransaction,
            )
        self._require_resolved(resolved_order)
        return resolved_order

    def run_together(
        self, step_id: str, prepared_orders: Sequence[PreparedTransaction]
    ) -> Sequence[Intent]:
        """See ports.OrderExecutor. Each order is an intent of its own with its own client order id,
        and nothing is posted before all are BROADCAST, so that each is resolved by itself, also
        after a lost answer or a restart. Raises like `run`.
        """
        signer = self._signer
        first_order = prepared_orders[0]
        first_grant = first_order.grant
        if not isinstance(signer, OrderSigner):
            return [self.run(step_id, first_order.tx, first_grant, first_order.note)]
        submitter = self._submitter
        submitter.require_running(first_grant)
        self._require_none_unresolved(first_grant)
        self._venue.require_approved_key(first_grant.deadline_s, is_reduction=True)
        grant_by_id: dict[str, Grant] = {}
        intents = []
        for order in prepared_orders:
            intent = submitter.record_intent(
                step_id, order.tx, order.grant, order.note, order.grant.deadline_s
            )
            grant_by_id[intent.id] = order.grant
            intents.append(intent)
        intents, reasons = self._post_together(signer, intents, grant_by_id)
        resolved_orders = [
            self._await_outcome(intent, reason)
            for intent, reason in zip(intents, reasons, strict=True)
        ]
        for order_intent in resolved_orders:
            self._require_resolved(order_intent)
        return resolved_orders

    def _post_together(
        self,
        signer: OrderSigner,
        intents: Sequence[Intent],
        grant_by_id: Mapping[str, Grant],
    ) -> tuple[list[Intent], list[str]]:
        """Sign PLANNED orders as one action, record all as BROADCAST, and post it; return them
        with the reasons of those that the venue rejects. Orders that the signer refuses are dropped
        and left out; all are dropped if it refuses the first, or if the last check fails.
        """
        submitter = self._submitter
        signable_intents: list[Intent] = []
        first_grant = grant_by_id[intents[0].id]
        try:
            for intent in intents:
                if (cloid := self._signable_cloid(signer, intent, grant_by_id)) is not None:
                    signable_intents.append(
                        submitter.move(intent, IntentState.SIGNED, tx_hash=cloid)
                    )
            signed_orders = signer.sign_orders(
                [(intent.tx, grant_by_id[intent.id]) for intent in signable_intents]
            )
            require_before_deadline(submitter.clock.now_s(), first_grant.deadline_s)
            submitter.require_running(first_grant)
        except TrimtabError as error:
            signed_by_id = {intent.id: intent for intent in signable_intents}
            open_ids = {intent.id for intent in self._open_orders()}
            for intent in intents:
                if intent.id in open_ids:
                    submitter.drop(signed_by_id.get(intent.id, intent), error.message)
            raise
        sent_intents = submitter.record_sending(signable_intents, first_grant)
        submitter.on_event(SubmissionEvent("before:send", sent_intents[0]))
        reasons = [""] * len(sent_intents)
        try:
            reasons = list(self._venue.post_orders(signed_orders, len(sent_intents)))
        except Retryable as error:
            submitter.on_event(SubmissionEvent("fate-unknown", sent_intents[0], error.message))
        submitter.on_event(SubmissionEvent("after:send", sent_intents[0]))
        return sent_intents, reasons

    def _signable_cloid(
        self, signer: OrderSigner, intent: Intent, grant_by_id: Mapping[str, Grant]
    ) -> str | None:
        """Return the client order id of an order that may be signed; None for a companion that may
        not, which is dropped. Raises Refused for the first order.
        """
        try:
            return signer.require_signable(intent.tx, grant_by_id[intent.id])
        except Refused as refusal:
            if intent.id == next(iter(grant_by_id)):
                raise
            self._submitter.drop(intent, refusal.message)
            return None

    def _require_resolved(self, intent: Intent) -> None:
        """Raise Retryable while the outcome of an order is open."""
        if intent.state in (IntentState.FINAL, IntentState.REVERTED) or intent.is_resting:
            return
        raise Retryable(
            f"{intent.note}: the outcome of the order {intent.tx_hash} is not known yet",
            "run the command again: it first queries this order's outcome",
            code=ErrorCode.NOT_MINED,
        )

    def _cancel(self, order: Intent, why: str, step_id: str) -> None:
        """Cancel a resting limit order by an action of its own, also while paused. Reads no chain,
        whose faults do not delay it.
        """
        submitter = self._submitter
        order_grant = futures_grant(submitter.journal.grant(order.id))
        if order_grant is None or not isinstance(order_grant.action, PerpOrder):
            raise ValueError(f"intent {order.id} is not an order")
        action = OrderCancel(order_grant.action.market, str(order.tx_hash))
        now_s = submitter.clock.now_s()
        draft = self._venue.draft(UNREAD_ACCOUNT, action, now_s)
        if draft.nonce is None:
            raise ValueError("a cancel at a venue has the venue's nonce")
        grant = Grant(
            IntentKind.FUTURES,
            now_s=now_s,
            deadline_s=draft.deadline_s,
            max_gas_wei=0,
            layer_grant=FuturesGrant(action, UNREAD_ACCOUNT),
        )
        self._venue.require_approved_key(draft.deadline_s, is_reduction=True)
        tx = replace(order.tx, nonce=draft.nonce, data=draft.data)
        note = f"cancel an order that rests: {why}"
        intent = submitter.record_intent(step_id, tx, grant, note, draft.deadline_s)
        self._await_outcome(*self._post(intent, grant, while_paused=True))

    def _cancel_all(self, why: str) -> list[Intent]:
        return self.cancel_resting_orders(
            {str(intent.tx_hash): why for intent in self._open_orders() if intent.is_resting}
        )

    def _cloids_being_cancelled(self) -> set[str]:
        """Return the client order ids of the orders whose cancel may still arrive."""
        return {
            action.cloid for _, action in self._open_actions() if isinstance(action, OrderCancel)
        }

    def _open_actions(self) -> Iterator[tuple[Intent, FuturesAction | None]]:
        """Yield the open orders with their actions; None if the grant names none."""
        for intent in self._open_orders():
            order_grant = futures_grant(self._submitter.journal.grant(intent.id))
            yield intent, None if order_grant is None else order_grant.action

    def _post(
        self, intent: Intent, grant: Grant, *, while_paused: bool = False
    ) -> tuple[Intent, str]:
        """Sign a PLANNED order, record it as BROADCAST, and post it; return the reason if the venue
        rejects it. Drops the order if signing or the last check fails, which includes the kill
        switch unless `while_paused`.
        """
        submitter = self._submitter
        try:
            signed_order = self._signer.sign(intent.tx, grant)
        except TrimtabError as error:
            submitter.drop(intent, error.message)
            raise
        intent = submitter.move(intent, IntentState.SIGNED, tx_hash=signed_order.hash)
        try:
            require_before_deadline(submitter.clock.now_s(), grant.deadline_s)
            if not while_paused:
                submitter.require_running(grant)
        except TrimtabError as error:
            submitter.drop(intent, error.message)
            raise
        if while_paused:
            intent = submitter.move(intent, IntentState.BROADCAST, "sent", event=IntentEvent.SEND)
        else:
            (intent,) = submitter.record_sending([intent], grant)
        submitter.on_event(SubmissionEvent("before:send", intent))
        rejection_reason = ""
        try:
            rejection_reason = self._venue.post_orders(signed_order, 1)[0]
        except Retryable as error:
            submitter.on_event(SubmissionEvent("fate-unknown", intent, error.message))
        submitter.on_event(SubmissionEvent("after:send", intent))
        return intent, rejection_reason

    def _await_outcome(self, intent: Intent, rejection_reason: str) -> Intent:
        """Query the outcome until it is known, or the attempts are used up."""
        submitter = self._submitter
        for attempt in range(OUTCOME_POLLS):
            if attempt:
                submitter.clock.sleep(submitter.settings.poll_s)
            intent = self._resolve(intent, rejection_reason)
            if intent.is_resting or intent.state not in (IntentState.BROADCAST, IntentState.MINED):
                break
        return intent

    def _resolve_all(self) -> list[Intent]:
        return [self._resolve(intent, "") for intent in self._open_orders()]

    def _resolve(self, intent: Intent, rejection_reason: str) -> Intent:
        """Return the intent in its current state: ended if its outcome is known, MINED with the
        receipt of its fills so far if it rests.
        """
        submitter = self._submitter
        if intent.state is IntentState.PLANNED:
            return submitter.drop(intent, "the process ended before signing")
        if intent.state is IntentState.MINED and not intent.is_resting:
            return submitter.settle_nonce(intent)
        try:
            receipt = self._venue.outcome(intent)
            if receipt is None and intent.state is IntentState.SIGNED:
                return submitter.drop(intent, "the process ended before sending")
            if receipt is None and rejection_reason:
                receipt = unfilled_receipt(intent)
            if receipt is None or not _is_newer(receipt, intent.receipt):
                return intent
            head = submitter.sender.head()
        except (Retryable, PassingFault) as error:
            submitter.on_event(SubmissionEvent("fate-unknown", intent, error.message))
            return intent
        if intent.state is IntentState.SIGNED:  # sent by a copy of this store
            intent = submitter.move(intent, IntentState.BROADCAST, "found at the venue")
        receipt = replace(
            receipt,
            block_number=head.number,
            block_hash=head.hash,
            failure_reason="" if receipt.status else rejection_reason or receipt.failure_reason,
        )
        note = receipt.failure_reason or _fills_note(intent, receipt)
        intent = submitter.move(intent, IntentState.MINED, note, receipt=receipt)
        return intent if intent.is_resting else submitter.settle_nonce(intent)

    def _open_orders(self) -> Sequence[Intent]:
        return [
            intent for intent in self._submitter.journal.open_intents() if intent.tx.is_venue_order
        ]

    def _require_none_unresolved(self, grant: Grant) -> None:
        """Raise Retryable while the outcome of an order is not known, because it may still change
        the account. This includes orders whose grant names no action. A cancel changes no position.
        Raises Refused for a limit order in a market in which another rests: together they could
        open twice what is planned.
        """
        new_action = granted_action(grant)
        unresolved_orders = []
        for intent, action in self._open_actions():
            if not intent.is_resting and not isinstance(action, OrderCancel):
                unresolved_orders.append(intent)
            elif not isinstance(new_action, PerpOrder) or isinstance(action, OrderCancel):
                continue
            elif new_action.kind.can_rest and _may_open_in(action, new_action.market):
                raise guard_refusal(
                    "simulation",
                    "an order rests",
                    "none in this market",
                    f"an order of {new_action.market} still rests at the venue",
                    error_type=UnsendableTransaction,
                )
        if not unresolved_orders:
            return
        first_unresolved_order = unresolved_orders[0]
        raise Retryable(
            f"the outcome of an earlier order is not known: {first_unresolved_order.note}, {first_unresolved_order.tx_hash}",
            f"wait: it is resolved by the time it expires, {format_time(first_unresolved_order.deadline_s or 0)}",
            code=ErrorCode.OPEN_TRANSACTION,
        )


def _with_orders(
    settle_chain: Callable[[], list[Intent]], settle_orders: Callable[[], list[Intent]]
) -> list[Intent]:
    """Return the intents that the chain's executor and the venue settle. Raises the error of the
    chain's executor once the orders are settled.
    """
    try:
        chain_intents = settle_chain()
    except TrimtabError:
        settle_orders()
        raise
    return chain_intents + settle_orders()


def _may_open_in(action: FuturesAction | None, market: str) -> bool:
    return action is None or (isinstance(action, PerpOrder) and action.market == market)


def _is_limit_order(grant: Grant) -> bool:
    action = granted_action(grant)
    return isinstance(action, PerpOrder) and action.kind.can_rest


def _only_reduces(grant: Grant) -> bool:
    """True for an order that opens nothing: a reduction, a resting stop, or a cancel."""
    action = granted_action(grant)
    if isinstance(action, PerpOrder):
        return action.is_reduce_only
    return isinstance(action, StopOrder | OrderCancel)


def _is_newer(receipt: Receipt, earlier_receipt: Receipt | None) -> bool:
    """True unless the receipt of a limit order says nothing new, or lacks a fill that is known."""
    if earlier_receipt is None:
        return True
    if not set(earlier_receipt.fills) <= set(receipt.fills):
        return False
    return (receipt.fills, receipt.is_open) != (earlier_receipt.fills, earlier_receipt.is_open)


def _fills_note(intent: Intent, receipt: Receipt) -> str:
    """Return the note on the transition by this receipt."""
    if receipt.is_open:
        return f"rests at the venue, {len(receipt.fills)} fills so far"
    if intent.is_resting:
        return f"ended at the venue with {len(receipt.fills)} fills"
    return "" if receipt.status else "nothing was filled"


def unfilled_receipt(intent: Intent) -> Receipt:
    """Return the receipt of an order that ended without a fill."""
    return Receipt(str(intent.tx_hash), 0, 0, "", 0, 0, ())
