"""Reconcile open transactions with the chain: finish, resend the same bytes, replace, or cancel."""

from __future__ import annotations

from agent.errors import ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable, TrimtabError
from agent.execution.submission.reorgs import ReorgHandler
from agent.execution.submission.replacement import TxReplacer
from agent.execution.submission.signable_nonces import open_transactions
from agent.execution.submission.submitter import (
    IN_FLIGHT_STATES,
    Submitter,
    unseen_transaction_error,
)
from agent.model import Intent, IntentEvent, IntentKind, IntentState
from agent.ports import ConflictingTransactionFinder
from agent.store.journal.intents import replacement_family
from agent.store.transitions import ENDED_IN_BLOCK_STATES, OPEN_STATES

_NONCE_CHECKS = 3
"""Number of times that a used nonce without a receipt of ours is checked before its transaction is
searched for: nodes behind one address can lag.
"""


class Reconciler:
    """Resolves nonces one by one, oldest first. A nonce is resolved once one of our transactions is
    final.
    """

    def __init__(self, submitter: Submitter, replacer: TxReplacer) -> None:
        self._submitter = submitter
        self._replacer = replacer
        self._reorg_handler = ReorgHandler(submitter)
        self._journal = submitter.journal
        self._sender = submitter.sender

    def run(self, *, may_send: bool) -> list[Intent]:
        """Resolve every open intent, including those reopened by a reorg; return them in their new
        state.
        """
        self._reorg_handler.follow_reorgs()
        initial_open_intents = open_transactions(self._journal)
        for intent in initial_open_intents:
            if intent.state is IntentState.PLANNED:
                self._submitter.drop(intent, "the process ended before signing")
        for nonce in sorted({intent.tx.nonce for intent in initial_open_intents}):
            self._resolve(nonce, may_send)
        if not initial_open_intents or not self._submitter.unfinished_intents():
            self.require_or_adopt_nonce()
        return [self._journal.stored_intent(intent) for intent in initial_open_intents]

    def cancel_pending(self, why: str) -> list[Intent]:
        """Drop unsent intents and cancel pending ones; return them in their new state. Used at a
        hard kill switch, which is read again before each cancel.
        """
        initial_open_intents = open_transactions(self._journal)
        for nonce in sorted({intent.tx.nonce for intent in initial_open_intents}):
            self._cancel_at(nonce, why)
        self.run(may_send=True)
        return [self._journal.stored_intent(intent) for intent in initial_open_intents]

    def _cancel_at(self, nonce: int, why: str) -> None:
        unmined_intents = [
            intent
            for intent in self._journal.intents_at(nonce)
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST)
        ]
        if not unmined_intents or self._record_chain_state(unmined_intents, nonce) == "mined":
            return
        for intent in self._journal.intents_at(nonce):
            if intent.state is IntentState.SIGNED:
                self._submitter.drop(intent, why)
        in_flight_intents = self._submitter.in_flight_intents(nonce)
        if in_flight_intents and not any(
            intent.kind is IntentKind.CANCEL for intent in in_flight_intents
        ):
            self._replacer.cancel(in_flight_intents[0], why)

    def require_or_adopt_nonce(self) -> int:
        """Return the chain's next nonce if the journal expects it; a new journal adopts it. Raises
        OperatorNeeded if another sender used the wallet, PassingFault while its transaction is
        pending or not shown, Retryable if the endpoint is behind the journal.
        """
        next_nonce, next_pending_nonce = self._nonces()
        expected_nonce = self._journal.expected_nonce()
        if (
            expected_nonce is not None and next_nonce < expected_nonce
        ):  # pending transactions may be ours
            self._reorg_handler.require_no_deep_reorg(expected_nonce - 1)
            raise Retryable(
                f"the endpoint's next nonce is {next_nonce}, the journal's "
                f"{expected_nonce}: the endpoint lags "
                f"behind our transaction at nonce {expected_nonce - 1}, or the chain was restarted",
                "try again; after a restart of a local chain set a new file in store.url; "
                "if the chain dropped blocks, run trimtab adopt",
                code=ErrorCode.LAG,
            )
        if next_pending_nonce > next_nonce:
            raise PassingFault(
                f"nonce {next_nonce} of {self._submitter.signer.address} has a pending transaction that"
                f" is not in this store{self._conflicting_hash_text(next_nonce)}",
                "another program uses this wallet, or this store is a restored copy: stop the other"
                " sender, wait until it is mined, then run trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        if expected_nonce is None:
            self._journal.adopt_nonce(next_nonce, self._submitter.clock.now_s())
            return next_nonce
        if next_nonce > expected_nonce:
            raise self._used_nonce_error(expected_nonce, next_nonce)
        return next_nonce

    def resync_nonce(self) -> int:
        """Adopt the chain's nonce, and end intents that foreign transactions replaced; only on the
        operator's command.

        Raises Retryable while any transaction of the wallet may still be mined.
        """
        next_nonce, next_pending_nonce = self._nonces()
        if next_pending_nonce > next_nonce:
            raise Retryable(
                f"a transaction at nonce {next_nonce} is pending",
                "wait until it is mined, then run trimtab adopt",
                code=ErrorCode.FOREIGN_PENDING,
            )
        unfinished_intents = [
            intent
            for intent in open_transactions(self._journal)
            if intent.state is not IntentState.MINED
        ]
        for intent in unfinished_intents:
            is_known = intent.tx_hash is not None and (
                self._sender.status_of(intent.tx_hash).state != "unknown"
                or self._submitter.mined_hash(intent.tx.nonce) == intent.tx_hash
            )
            if is_known or intent.tx.nonce >= next_nonce:
                raise Retryable(
                    f"{intent.note} ({intent.tx_hash}) is open",
                    "run the command that resolves it first, then trimtab adopt",
                    code=ErrorCode.OPEN_TRANSACTION,
                )
        # The nonce first: the journal accepts a foreign winner only below the expected nonce.
        self._journal.adopt_nonce(next_nonce, self._submitter.clock.now_s())
        why = "a foreign transaction took the nonce; adopted by the operator"
        for intent in unfinished_intents:
            if intent.state is IntentState.BROADCAST:
                self._submitter.move(intent, IntentState.REPLACED, why)
            else:
                self._submitter.drop(intent, why)
        return next_nonce

    def _nonces(self) -> tuple[int, int]:
        return self._sender.nonces(self._submitter.signer.address)

    def _resolve(self, nonce: int, may_send: bool) -> None:
        for intent in self._journal.reopenable_intents_at(nonce):
            self._submitter.move(
                intent,
                IntentState.BROADCAST,
                "the transaction that took its nonce lost its block",
                event=IntentEvent.REOPEN,
            )
        intents_at_nonce = self._journal.intents_at(nonce)
        winning_intents = [
            intent for intent in intents_at_nonce if intent.state in ENDED_IN_BLOCK_STATES
        ]
        for winning_intent in winning_intents:
            if any(
                intent.state in OPEN_STATES
                for intent in replacement_family(intents_at_nonce, winning_intent.id)
            ):
                # An earlier process was killed between ending the winner and the others.
                self._submitter.settle_nonce(winning_intent)
                return
        unfinished_intents = [
            intent
            for intent in intents_at_nonce
            if intent.state in (IntentState.SIGNED, IntentState.BROADCAST, IntentState.MINED)
        ]
        if not unfinished_intents:
            return
        if self._record_chain_state(unfinished_intents, nonce) == "unknown":
            if may_send and self._may_resend(unfinished_intents[-1]):
                with self._replacer.settling_refusals(unfinished_intents[-1]):
                    self._resend_or_cancel(unfinished_intents)
                if self._submitter.in_flight_intents(nonce):
                    self._await_final(nonce, may_send)
        elif (
            not self._await_final(nonce, may_send)
            and may_send
            and self._submitter.is_paused() is False
        ):
            self._cancel_expired(nonce)

    def _record_chain_state(self, unfinished_intents: list[Intent], nonce: int) -> str:
        """Return "mined", "pending" or "unknown": the furthest state of our transactions at
        `nonce`. A signed transaction known to a node moves to BROADCAST. Raises if the nonce is
        used and no receipt of ours shows by what (`_used_nonce_error`).
        """
        next_nonce = 0
        for attempt in range(_NONCE_CHECKS):
            if attempt:
                self._submitter.clock.sleep(self._submitter.settings.poll_s)
            next_nonce, _ = self._nonces()
            state_by_id = {
                intent.id: self._sender.status_of(str(intent.tx_hash)).state
                for intent in unfinished_intents
            }
            for intent in unfinished_intents:
                # sent by a copy of this store
                if state_by_id[intent.id] != "unknown" and intent.state is IntentState.SIGNED:
                    self._submitter.move(intent, IntentState.BROADCAST, "found on the chain")
            if "mined" in state_by_id.values():
                return "mined"
            if "pending" in state_by_id.values() and next_nonce <= nonce:
                return "pending"
            if any(intent.state is IntentState.MINED for intent in unfinished_intents):
                return "mined"
            if next_nonce <= nonce:
                break
        if next_nonce > nonce:
            raise self._used_nonce_error(nonce, next_nonce)
        if next_nonce < nonce:
            raise Retryable(
                f"the endpoint's next nonce is {next_nonce}, a transaction of ours has {nonce}: the"
                " endpoint lags",
                "try again",
                code=ErrorCode.LAG,
            )
        return "unknown"

    def _await_final(self, nonce: int, may_send: bool) -> bool:
        """Wait for a block and its confirmations; False if nothing was mined in time, or a reorg
        removed the block.
        """
        poll_callbacks = [self._replacer.replacement_callback(nonce)] if may_send else []
        mined_intent = self._submitter.await_mined(nonce, *poll_callbacks)
        return (
            mined_intent is not None
            and self._submitter.await_final(mined_intent).state is not IntentState.BROADCAST
        )

    def _resend_or_cancel(self, unfinished_intents: list[Intent]) -> None:
        """Resend a transaction that no node knows, unchanged or at a higher fee, else cancel it."""
        for intent in reversed(unfinished_intents):
            if intent.state is IntentState.BROADCAST and self._is_below_base_fee(intent):
                self._replacer.bump_or_cancel(intent.tx.nonce)
                return
            grant = self._journal.grant(intent.id)
            try:
                simulation = self._submitter.simulate(intent.tx, intent.deadline_s, grant)
                signed_tx = self._submitter.sign_again(intent, simulation.head.timestamp_s)
                self._submitter.require_running(grant)
            except Refused as error:
                if intent.state is IntentState.SIGNED:
                    # BROADCAST is written before bytes are sent, so these were never sent.
                    self._submitter.drop(intent, error.message)
                    continue
                if (
                    self._submitter.is_paused() is False or self._submitter.is_hard_pause()
                ) and self._is_unknown_to_nodes(unfinished_intents):
                    self._replacer.cancel(intent, error.message)
                return
            self._submitter.send(intent, signed_tx, grant)
            return

    def _may_resend(self, intent: Intent) -> bool:
        """True if the kill switch permits a resend; at hard it permits only cancels and
        revocations.
        """
        return self._submitter.is_running(self._journal.grant(intent.id))

    def _is_below_base_fee(self, intent: Intent) -> bool:
        """True if its fee is below the base fee, so the same bytes would stay pending."""
        base_fee_wei = self._sender.head().base_fee_wei
        return base_fee_wei is not None and intent.tx.max_gas_price_wei < base_fee_wei

    def _is_unknown_to_nodes(self, unfinished_intents: list[Intent]) -> bool:
        """True if no node knows a transaction at the nonce: a simulation also fails for one mined
        just now.
        """
        return all(
            self._sender.status_of(str(intent.tx_hash)).state == "unknown"
            for intent in unfinished_intents
        )

    def _cancel_expired(self, nonce: int) -> None:
        """Cancel a pending transaction past its deadline, because it would only burn gas."""
        in_flight_intents = self._submitter.in_flight_intents(nonce)
        if not in_flight_intents or any(
            intent.kind is IntentKind.CANCEL for intent in in_flight_intents
        ):
            return
        now_s = self._sender.head().timestamp_s
        deadline_s = in_flight_intents[0].deadline_s
        if deadline_s is not None and now_s >= deadline_s:
            why = f"still pending at chain time {now_s}, after its deadline {deadline_s}"
            with self._replacer.settling_refusals(in_flight_intents[0]):
                self._replacer.cancel(in_flight_intents[0], why)
            self._await_final(nonce, may_send=True)

    def _used_nonce_error(self, nonce: int, next_nonce: int) -> OperatorNeeded | Retryable:
        """Return the error for a used nonce without a receipt of ours. Receipts can be hidden for a
        while: Retryable if a block has one of our hashes, or if ours may be in one and the
        endpoints show none. OperatorNeeded if a block has another; without one the nonce alone says
        so, and may be an endpoint's mistake: PassingFault.
        """
        owner = self._submitter.signer.address
        own_hashes = self._submitter.own_hashes(nonce)
        own_hashes_text = ", ".join(own_hashes)
        mined_hash = self._submitter.mined_hash(nonce)
        if mined_hash in own_hashes:
            return Retryable(
                f"our transaction {mined_hash} is in a block, but the endpoints do not show its receipt",
                "wait; the next run settles it",
                code=ErrorCode.LAG,
            )
        if mined_hash is None and self._may_be_ours(nonce):
            return unseen_transaction_error(owner, nonce, own_hashes_text)
        own_hashes_note = "this store has no sent transaction at that nonce"
        if own_hashes:
            own_hashes_note = f"none of ours is in a block: {own_hashes_text}"
        mined_hash_text = (
            self._conflicting_hash_text(nonce) if mined_hash is None else f": {mined_hash}"
        )
        error_type = PassingFault if mined_hash is None else OperatorNeeded
        return error_type(
            f"nonce {nonce} of {owner} was used by a transaction that is not in this"
            f" store{mined_hash_text} (the chain's next is {next_nonce}; {own_hashes_note})",
            "another program uses this wallet, or this store is a restored copy: stop the other"
            " sender, check the balances, then run trimtab adopt",
            code=ErrorCode.FOREIGN_NONCE,
        )

    def _may_be_ours(self, nonce: int) -> bool:
        """Return whether bytes of ours may have reached a node: sent by us, or by an external
        signer.
        """
        proposed_ids = self._submitter.proposed_ids()
        return any(
            intent.state in IN_FLIGHT_STATES
            or (intent.id in proposed_ids and intent.tx_hash is not None)
            for intent in self._journal.intents_at(nonce)
        )

    def _conflicting_hash_text(self, nonce: int) -> str:
        """Return ": " and the hash of the transaction at that nonce, "" if no endpoint
        knows one.
        """
        if not isinstance(self._sender, ConflictingTransactionFinder):
            return ""
        try:
            tx_hash = self._sender.conflicting_tx_hash(self._submitter.signer.address, nonce)
        except TrimtabError:
            return ""
        return "" if tx_hash is None else f": {tx_hash}"
