"""Executors, one transaction at a time: with our own key, and with an external signer. Each state
change is recorded before the action.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from agent import codec
from agent.errors import (
    ErrorCode,
    OperatorNeeded,
    Refused,
    Retryable,
)
from agent.execution.submission.checks import guard_refusal
from agent.execution.submission.proposal_words import (
    DO_NOT_SIGN,
    NOT_TAKEN_BACK,
    UNCHECKED_ADVICE,
    UNWANTED_ADVICE,
    WITHDRAWAL_ADVICE,
    chain_deadline_s,
    execution_period,
    fault_advice,
    is_dropped,
    rejection_title,
    unsimulated_reason,
    waiting_act,
)
from agent.execution.submission.reconcile import Reconciler
from agent.execution.submission.rejected_trades import rejected_before
from agent.execution.submission.replacement import TxReplacer
from agent.execution.submission.submitter import (
    IN_FLIGHT_STATES,
    Submitter,
    unseen_transaction_error,
)
from agent.guards import FaultKind, ProposalFault
from agent.model import (
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    Provide,
    Receipt,
    SignedTx,
    UnsignedTx,
)
from agent.ports import ExternalSigner, Grant, MinedTransaction, Sender, Signer
from agent.store.files.recorder import FileOutbox
from agent.store.journal.intents import IntentStore
from agent.store.journal.proposals import ProposalStore
from agent.store.transitions import OPEN_STATES
from agent.units import format_time, pluralize

MAX_BLOCKS_LOST = 3
"""Reorgs that take back one transaction's block before it is left to the next reconciliation."""


class JournaledExecutor:
    """Implements ports.Executor; one per process, wallet and chain (agent/store/files/locks.py)."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._replacer = TxReplacer(self._submitter)
        self._reconciler = Reconciler(self._submitter, self._replacer)

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Resolve every open intent against the chain and return them in their new state.

        Sends nothing with `may_send` False or while the kill switch is on; at hard it sends only
        cancels and revocations. Raises OperatorNeeded if another sender has used a nonce or has a
        transaction pending, NotAccepted if one of ours may be neither resent nor cancelled, Retryable
        if the endpoint cannot answer.
        """
        return self._reconciler.run(may_send=may_send)

    def cancel_pending(self, why: str) -> list[Intent]:
        """Cancel every pending transaction, drop unsent ones, and return them in their new state.

        Sends only while the kill switch is at hard or off, else raises Refused. Raises
        OperatorNeeded if a cancel cannot be sent, Retryable if the endpoint cannot answer.
        """
        return self._reconciler.cancel_pending(why)

    def cancel_resting_orders(self, reasons: Mapping[str, str], step_id: str = "") -> list[Intent]:
        """See ports.Executor. No transaction of a chain rests."""
        return []

    def resync_nonce(self) -> int:
        """Adopt the chain's current nonce on the operator's command, and return it; for a wallet
        that was used manually, or a store restored from a backup. Raises Retryable while a
        transaction of the agent is open.
        """
        return self._reconciler.resync_nonce()

    def mined_receipt(self, nonce: int, since_block: int) -> Receipt | None:
        """See ports.Executor."""
        tx_hash = self._submitter.mined_hash(nonce)
        return None if tx_hash is None else self._submitter.sender.status_of(tx_hash).receipt

    def may_send(self, *, for_revoking: bool = False) -> bool:
        """True if a transaction may be sent now: the kill switch was read and is off, and no
        transaction of ours is unfinished. For revocations (`for_revoking`) the switch may be at
        hard.
        """
        unfinished_intents = self._submitter.unfinished_intents()
        is_allowed = self._submitter.is_paused() is False or (
            for_revoking and self._submitter.is_hard_pause()
        )
        return is_allowed and not unfinished_intents

    def run(self, step_id: str, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Run one transaction from PLANNED to its end and return it: FINAL or REVERTED, MINED while
        blocks are slow.

        One that nodes refuse for its tip is replaced at once by one that pays the demanded tip. A
        transaction pending too long is either replaced at a higher fee, and the mined intent
        returned, or cancelled, and returned as CANCELLED once the cancel is final.
        `grant.deadline_s` is the chain time after which it must not be sent. Raises Refused before
        anything is sent (kill switch, simulation, deadline, nonce, signing rules). Raises Retryable
        if it was sent and is not mined in time, or loses its block, or if the outcome of sending is
        unknown, and NotAccepted if every node refuses it: the next `reconcile` resolves it, and
        nothing new is planned until then.
        """
        submitter = self._submitter
        submitter.require_running(grant)
        self._require_final_mint(grant)
        self._require_next_nonce(tx)
        submitter.simulate(tx, grant.deadline_s, grant)
        intent = submitter.record_intent(step_id, tx, grant, note, grant.deadline_s)
        with self._replacer.settling_refusals(intent):
            intent = submitter.launch(intent, grant, grant.deadline_s)
        last_intent = self._await_final(intent)
        if last_intent.kind is IntentKind.CANCEL and grant.kind is not IntentKind.CANCEL:
            return submitter.journal.stored_intent(intent)
        return last_intent

    def _await_final(self, intent: Intent) -> Intent:
        """Wait for a block of the transaction at this nonce and its confirmations, in another block if
        a reorg takes it back; return the mined one. Raises Retryable if it is in no block then.
        """
        submitter = self._submitter
        nonce = intent.tx.nonce
        replace_if_due = self._replacer.replacement_callback(nonce)
        for _ in range(MAX_BLOCKS_LOST + 1):
            mined_intent = submitter.await_mined(nonce, replace_if_due)
            if mined_intent is None:
                break
            last_intent = submitter.await_final(mined_intent)
            if last_intent.state is not IntentState.BROADCAST:
                return last_intent
        intent = next(iter(submitter.in_flight_intents(nonce)), intent)
        raise Retryable(
            f"{intent.note}: transaction {intent.tx_hash} was sent but not mined within"
            f" {submitter.settings.mined_timeout_s:.0f} s{submitter.unaccepted_text(intent)}",
            "run the command again: it first waits for this transaction",
            code=ErrorCode.NOT_MINED,
        )

    def _require_final_mint(self, grant: Grant) -> None:
        """Raise if a reorg can still change the position's id: added liquidity could then go to
        someone else's position.
        """
        provide_action = grant.layer_action
        journal = self._submitter.journal
        if not isinstance(provide_action, Provide) or provide_action.token_id is None:
            return
        for intent in journal.open_intents():
            earlier_action = journal.grant(intent.id).layer_action
            if (
                isinstance(earlier_action, Provide)
                and earlier_action.token_id is None
                and earlier_action.contract == provide_action.contract
            ):
                raise Retryable(
                    f"the mint of {intent.tx_hash} is not final: a reorg "
                    "may still change its position's id",
                    "run the command again once it is confirmed",
                    code=ErrorCode.MINT_NOT_FINAL,
                )

    def _require_next_nonce(self, tx: UnsignedTx) -> None:
        """Raise unless the nonce is free and the next one of both chain and journal."""
        if unfinished_intents := self._submitter.unfinished_intents():
            first_unfinished_intent = unfinished_intents[0]
            open_note = unfinished_intents[0].note
            if first_unfinished_intent.state in IN_FLIGHT_STATES:
                unaccepted_text = self._submitter.unaccepted_text(first_unfinished_intent)
                open_note = f"{open_note}, {first_unfinished_intent.tx_hash}{unaccepted_text}"
            raise Retryable(
                f"an earlier transaction is not finished: {open_note}",
                "reconcile first",
                code=ErrorCode.OPEN_TRANSACTION,
            )
        expected_nonce = self._reconciler.require_or_adopt_nonce()
        if tx.nonce != expected_nonce:
            raise guard_refusal(
                "nonce",
                str(tx.nonce),
                str(expected_nonce),
                "the wallet's nonce changed since the transaction was composed",
                "plan again",
            )


class ReadOnlySigner:
    """ports.Signer of a read-only wallet: refuses to sign."""

    def __init__(self, address: str) -> None:
        self.address = address

    def sign(self, tx: UnsignedTx, grant: Grant) -> NoReturn:
        """Always raises."""
        raise Refused(
            f"nothing is signed for {self.address} in a read-only run", remedy="add --send"
        )


def rejection_of(tx: UnsignedTx, wallet: str) -> UnsignedTx:
    """Return the empty call of the wallet to itself that makes `tx` void once it is mined."""
    return replace(tx, to=wallet, value_wei=0, data="0x")


PROPOSAL_FORMAT = 1
"""Version of the layout of proposal files."""


class AwaitingExternalSignature(Retryable):
    """A transaction was proposed and awaits its signer, who does `how_to_sign`; the file
    `proposal_path` contains `proposal`. `reverts` is whether it would revert now, None if it could
    not be simulated. `next_command` is how the owner goes on, as an imperative clause, None
    if any command does; `is_withdrawable` is whether it waited before the command, which may want something else.
    """

    title = "Proposed"

    def __init__(
        self,
        message: str,
        how_to_sign: str,
        document: dict[str, Any],
        path: str,
        *,
        reverts: bool | None,
        next_command: str | None = None,
        is_withdrawable: bool = False,
    ) -> None:
        super().__init__(message)
        self.how_to_sign = how_to_sign
        self.proposal = document
        self.proposal_path = path
        self.reverts = reverts
        self.fault: ProposalFault | None = None
        self.is_withdrawable = is_withdrawable
        self.was_rejected_before = False
        self.held_up_text = ""
        self.go_on_with(next_command)

    def go_on_with(self, next_command: str | None) -> None:
        """Advise `next_command`, an imperative clause, once it is signed, or to run the command again;
        while it would revert, or is not simulated, or its minimums have a fault, not to sign it.
        """
        self.next_command = next_command
        command_text = next_command or "run the command again"
        self.remedy = (
            f"{self.how_to_sign}, then {command_text}: it settles the proposal from the chain and"
            " continues"
        )
        if self.is_withdrawable:
            self.remedy += f"\nor give it up: {WITHDRAWAL_ADVICE}"
        if self.was_rejected_before:
            self.remedy += f"\n{UNWANTED_ADVICE}"
        if self.fault is not None:
            self.remedy = f"{fault_advice(self.fault)}; then {command_text}"
        elif self.reverts:
            self.remedy = f"{DO_NOT_SIGN}: {WITHDRAWAL_ADVICE}; then {command_text}"
        elif self.reverts is None:
            self.remedy = f"{UNCHECKED_ADVICE}: {command_text}"

    def mark_rejected_before(self) -> None:
        """Say what to do if the owners, who have rejected the same trade, do not want it again."""
        self.was_rejected_before = True
        self.go_on_with(self.next_command)

    def mark_held_up(self, held_up_text: str) -> None:
        """Say which fired exits wait for its end; "" changes nothing."""
        self.held_up_text = held_up_text
        if held_up_text:
            self.message += f"; {held_up_text}"

    def mark_fault(self, fault: ProposalFault | None) -> None:
        """Say why nobody should sign or execute it at the prices now; None changes nothing, nor does
        a fault after one that makes it stale: its advice, to withdraw, stays.
        """
        is_known_stale = self.fault is not None and self.fault.is_stale
        if fault is not None and not is_known_stale:
            self.fault = fault
            self.message += f"; it {fault.text}"
            self.go_on_with(self.next_command)


class RefusingSigner:
    """ports.Signer of a wallet with an external signer: refuses every transaction."""

    def __init__(self, external_signer: ExternalSigner) -> None:
        self.address = external_signer.address

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Always raises."""
        raise OperatorNeeded(
            f"trimtab cannot sign for {self.address}: wallet.mode is propose, but a transaction"
            " signed in another mode is pending",
            "resend it with the former wallet.mode, or replace it with another "
            "transaction at its nonce and run trimtab adopt",
            code=ErrorCode.OPEN_TRANSACTION,
        )


class ProposingExecutor(JournaledExecutor):
    """Executor for an external signer: records and proposes transactions, and sends none. Intents
    stay PLANNED until the chain has the proposed transaction, then follow the journal's
    transitions. An intent is on disk before it is proposed, and the proposal is made from the
    journal alone.
    """

    def __init__(
        self,
        submitter: Submitter,
        proposals: ProposalStore,
        required_command: Callable[[Intent], str | None],
        external_signer: ExternalSigner,
        outbox: FileOutbox,
    ) -> None:
        super().__init__(replace(submitter, signer=RefusingSigner(external_signer)))
        self.external_signer = external_signer
        self.outbox = outbox
        self._journal = submitter.journal
        self._sender = submitter.sender
        self._proposals = proposals
        self._required_command = required_command

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Settle proposals that are mined or expired.

        Raises AwaitingExternalSignature while one is unsigned, OperatorNeeded if another
        transaction took its nonce.
        """
        proposal_block_by_id = self._proposals.proposal_blocks()
        initial_open_intents = self._journal.open_intents()
        for intent in reversed(self.unsigned_intents()):  # a rejection before what it rejects
            self._settle(intent, proposal_block_by_id[intent.id])
        self._record_sent_late(proposal_block_by_id)
        self._reconciler.run(may_send=False)
        return [self._journal.stored_intent(intent) for intent in initial_open_intents]

    def run(self, step_id: str, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Record the transaction and propose it.

        Always raises: AwaitingExternalSignature once it is proposed. Before that, Refused by the
        kill switch, the simulation, the nonce or the signing rules, Retryable if endpoints fail or
        disagree, and OperatorNeeded by the simulation or the external signer.
        """
        submitter = self._submitter
        submitter.require_running(grant)
        self._require_final_mint(grant)
        self._require_next_nonce(tx)
        head = submitter.simulate(tx, grant.deadline_s, grant).head
        self.external_signer.require_signable(tx, grant)
        rejection_text = rejected_before(self._journal, tx, grant)
        if rejection_text:
            note += f", {rejection_text}"
        intent = submitter.record_intent(step_id, tx, grant, note, grant.deadline_s)
        self._take_over_signatures(intent)
        self._proposals.mark_proposed(intent.id, head.number)
        raise self._propose(intent)

    def cancel_pending(self, why: str) -> list[Intent]:
        """Withdraw every proposal. A signer who has seen a proposal can still send it: a swap until
        its deadline, an approval or payment at any time. One that anybody can execute already is not
        withdrawn: its rejection is proposed, also if it was dropped before.

        A proposal that the chain already has is settled, also if it was dropped before. Raises
        AwaitingExternalSignature for a rejection, OperatorNeeded if another transaction took its nonce.
        """
        proposal_block_by_id = self._proposals.proposal_blocks()
        self._record_sent_late(proposal_block_by_id)
        unsigned_intents = self.unsigned_intents()
        rejections = [intent for intent in unsigned_intents if intent.kind is IntentKind.CANCEL]
        for intent in unsigned_intents:
            if intent in rejections:
                continue
            is_mined = self._record_if_mined(intent, proposal_block_by_id[intent.id])
            signatures_text = "" if is_mined else self._sufficient_signatures(intent)
            awaiting = self._reject(intent, signatures_text, why) if signatures_text else None
            self.outbox.remove_proposal(intent.id)  # kept if a pause forbids the rejection
            if awaiting is not None:
                raise awaiting
            if not is_mined:
                self._drop(intent, why)
        next_nonce, _ = self._sender.nonces(self.external_signer.address)
        is_rejected = any(rejection.tx.nonce == next_nonce for rejection in rejections)
        self.reject_dropped(why, by_any_signature=is_rejected)  # keeps a rejection that waits
        for intent in rejections:
            is_mined = self._record_if_mined(intent, proposal_block_by_id[intent.id])
            self.outbox.remove_proposal(intent.id)
            if not is_mined:
                self._drop(intent, why)
        cancelled_intents = super().cancel_pending(why)
        cancelled_ids = {intent.id for intent in cancelled_intents}
        return [
            *(
                self._journal.stored_intent(intent)
                for intent in unsigned_intents
                if intent.id not in cancelled_ids
            ),
            *cancelled_intents,
        ]

    def unsigned_intents(self) -> list[Intent]:
        """Return the proposed intents that no transaction of the chain is known to have settled."""
        proposed_ids = self._proposals.proposal_blocks()
        return [
            intent
            for intent in self._journal.open_intents()
            if intent.state is IntentState.PLANNED and intent.id in proposed_ids
        ]

    def submitter_of(self, signer: Signer, sender: Sender) -> Submitter:
        """Return a submitter with another account, such as the one that executes a Safe's call."""
        return replace(self._submitter, signer=signer, sender=sender)

    def resync_nonce(self) -> int:
        """See JournaledExecutor. If the nonce was used by a dropped proposal that was sent after all,
        that is recorded instead.
        """
        if self._record_sent_late(self._proposals.proposal_blocks()):
            self._reconciler.run(may_send=False)
            return self._reconciler.require_or_adopt_nonce()
        unsigned_intents = self.unsigned_intents()
        next_nonce = super().resync_nonce()
        for intent in unsigned_intents:
            if is_dropped(self._journal.stored_intent(intent)):
                self.outbox.remove_proposal(intent.id)
        return next_nonce

    def mined_receipt(self, nonce: int, since_block: int) -> Receipt | None:
        """See ports.Executor. A wallet's empty call to itself stands for whatever used the nonce."""
        address = self.external_signer.address
        tx = UnsignedTx(self._sender.head().chain_id, nonce, address, 0, "0x", 0, None, None, None)
        mined_tx = self.external_signer.mined_at_nonce(tx, since_block)
        return None if mined_tx is None else self._sender.status_of(mined_tx.tx_hash).receipt

    def reject_dropped(self, why: str, *, by_any_signature: bool) -> None:
        """Raise AwaitingExternalSignature for the rejection of a dropped proposal that anybody can still
        execute, such as a payment: the chain knows no deadline of it. `by_any_signature` rejects one
        with too few recorded signatures too, since others may have been given elsewhere.
        """
        proposed_ids = self._proposals.proposal_blocks()
        next_nonce, _ = self._sender.nonces(self.external_signer.address)
        for intent in self._journal.intents_at(next_nonce):
            if intent.id not in proposed_ids:
                continue
            if signatures_text := self.executable_signatures(
                intent, by_any_signature=by_any_signature
            ):
                raise self._reject(intent, signatures_text, why)

    def executable_signatures(self, intent: Intent, *, by_any_signature: bool = False) -> str:
        """Return how many signatures let anybody execute a dropped proposal now, such as "2 of 2
        signatures"; "" if it is not dropped, its nonce is used, or too few are recorded, for
        `by_any_signature` none.
        """
        next_nonce, _ = self._sender.nonces(self.external_signer.address)
        if not is_dropped(intent) or intent.tx.nonce != next_nonce:
            return ""
        return self._sufficient_signatures(intent, by_any_signature=by_any_signature)

    def _sufficient_signatures(self, intent: Intent, *, by_any_signature: bool = False) -> str:
        """Return how many signatures let anybody execute the proposal now; "" if too few are
        recorded, for `by_any_signature` none, or the chain's deadline has passed. A rejection may be
        executed.
        """
        signers = self._proposals.signatures(intent.id)
        deadline_s = chain_deadline_s(intent, self._journal.grant(intent.id))
        has_expired = deadline_s is not None and self._sender.head().timestamp_s >= deadline_s
        if intent.kind is IntentKind.CANCEL or has_expired:
            return ""
        signatures_text = self.external_signer.sufficient_signatures(signers)
        if by_any_signature and signers and not signatures_text:
            return f"{pluralize(len(signers), 'signature')}, and perhaps others given elsewhere,"
        return signatures_text

    def _reject(self, intent: Intent, signatures_text: str, why: str) -> AwaitingExternalSignature:
        """Propose an empty call at the nonce of a proposal, which makes it void once it is mined. It has
        the deadline of a trade; for another call, which stays executable, as much time as that had.
        """
        submitter = self._submitter
        grant = self._journal.grant(intent.id)
        deadline_s = chain_deadline_s(intent, grant)
        if deadline_s is None:
            deadline_s = self._sender.head().timestamp_s + grant.deadline_s - grant.now_s
        rejection_grant = Grant(IntentKind.CANCEL, grant.now_s, deadline_s, grant.max_gas_wei)
        tx = rejection_of(intent.tx, self.external_signer.address)
        submitter.require_running(rejection_grant)
        self.external_signer.require_signable(tx, rejection_grant)
        was_proposed = any(
            peer.kind is IntentKind.CANCEL for peer in self._open_intents_at(tx.nonce)
        )
        rejection = self._recorded_rejection(intent, rejection_grant, why)
        awaiting = self._propose(rejection)
        if was_proposed:
            awaiting.title = "Waiting"
        awaiting.message = (
            f"{awaiting.message}\n{signatures_text} of the proposal {intent.id} exist, and no pause takes"
            f" them back: whoever has enough can execute it {execution_period(intent, grant)}. It is void once"
            f" its rejection is executed, an empty call of {tx.to} to itself at nonce {tx.nonce};"
            f" {NOT_TAKEN_BACK}"
        )
        return awaiting

    def _recorded_rejection(self, intent: Intent, rejection_grant: Grant, why: str) -> Intent:
        """Return the open rejection of a proposal, recorded if there is none."""
        tx = rejection_of(intent.tx, self.external_signer.address)
        earlier_rejections = [
            peer for peer in self._open_intents_at(tx.nonce) if peer.kind is IntentKind.CANCEL
        ]
        rejection = next(iter(earlier_rejections), None) or self._submitter.record_intent(
            intent.step_id,
            tx,
            rejection_grant,
            rejection_title(intent, why),
            rejection_grant.deadline_s,
        )
        self._proposals.mark_proposed(rejection.id, self._proposals.proposal_blocks()[intent.id])
        return rejection

    def _take_over_signatures(self, intent: Intent) -> None:
        """Record the signatures of dropped proposals of the same call, such as a payment that is asked
        for again: owners sign a call and its nonce, not the proposal.
        """
        call = (intent.tx.to, intent.tx.value_wei, intent.tx.data)
        for peer in self._journal.intents_at(intent.tx.nonce):
            if peer.id != intent.id and call == (peer.tx.to, peer.tx.value_wei, peer.tx.data):
                signature_by_owner = self._proposals.signatures(peer.id)
                if signature_by_owner:
                    self._proposals.add_signatures(intent.id, signature_by_owner)

    def _open_intents_at(self, nonce: int) -> list[Intent]:
        return [intent for intent in self._journal.intents_at(nonce) if intent.state in OPEN_STATES]

    def _settle(self, intent: Intent, since_block: int) -> None:
        """Settle one proposal that is mined or expired; raise AwaitingExternalSignature
        otherwise.
        """
        # Read the head before the nonce: if the nonce is then still free and the deadline has
        # passed, the proposal was not sent in time.
        head = self._sender.head()
        if self._record_if_mined(intent, since_block):
            return
        if intent.deadline_s is not None and head.timestamp_s >= intent.deadline_s:
            why = f"the proposal {intent.id} expired at {format_time(intent.deadline_s)} unsent"
            self._drop(intent, why)
            return
        reverts = False
        try:
            simulation = self._sender.simulate(intent.tx, self.external_signer.address)
            reverts = simulation.reverted
            unsimulated_why = unsimulated_reason(intent.tx, simulation)
        except Retryable as error:
            unsimulated_why = error.message
        awaiting = self._propose(
            intent,
            reverts=reverts,
            unsimulated_why=unsimulated_why,
            is_withdrawable=intent.kind is not IntentKind.CANCEL,
        )
        grant = replace(self._journal.grant(intent.id), now_s=head.timestamp_s)
        try:
            self.external_signer.require_signable(intent.tx, grant)
        except Refused as refusal:
            awaiting.mark_fault(ProposalFault(FaultKind.NOT_ALLOWED, refusal.message))
        awaiting.title = "Waiting"  # it was proposed before this command
        raise awaiting

    def _record_if_mined(self, intent: Intent, since_block: int) -> bool:
        """Return whether the proposed transaction is mined, or another that was proposed at its
        nonce, and record that as SIGNED if so. Raises OperatorNeeded if a foreign transaction took its
        nonce, Retryable while the endpoints do not show which one did.
        """
        next_nonce, _ = self._sender.nonces(self.external_signer.address)
        if next_nonce <= intent.tx.nonce:
            return False
        if any(peer.tx_hash is not None for peer in self._open_intents_at(intent.tx.nonce)):
            return True  # reconciliation follows it by hash and drops the others
        mined_tx = self.external_signer.mined_at_nonce(intent.tx, since_block)
        if mined_tx is None:
            raise unseen_transaction_error(
                self.external_signer.address,
                intent.tx.nonce,
                f'the proposal {intent.id} ("{intent.note}")',
            )
        if mined_tx.is_proposal:
            self._record_mined(intent, mined_tx)
            return True
        if self._record_mined_peer(intent.tx.nonce, self._proposals.proposal_blocks()):
            return True
        raise OperatorNeeded(
            f"nonce {intent.tx.nonce} of {self.external_signer.address} was used by {mined_tx.tx_hash}, a"
            f' different transaction, in place of {intent.id} ("{intent.note}")',
            "find out who signed it and check the balances, then run trimtab adopt",
            code=ErrorCode.NONCE_USED,
        )

    def _propose(
        self,
        intent: Intent,
        *,
        reverts: bool = False,
        unsimulated_why: str = "",
        is_withdrawable: bool = False,
    ) -> AwaitingExternalSignature:
        grant = self._journal.grant(intent.id)
        proposal_document = self._proposal_document(intent)
        outbox_path = self.outbox.write_proposal(
            intent.id, json.dumps(proposal_document, indent=2) + "\n"
        )
        submitter = self._submitter
        pause_reason = None if submitter.is_running(grant) else submitter.pause_reason()
        signatures = self._proposals.signatures(intent.id)
        next_act = self.external_signer.next_act(signatures, intent.id)
        next_act = waiting_act(intent, grant, next_act, pause_reason)
        doubt_text = "; it would revert now" if reverts else ""
        if unsimulated_why:
            doubt_text = f"; it could not be simulated: {unsimulated_why}"
        awaiting = AwaitingExternalSignature(
            f'"{intent.note}" is proposed and awaits {next_act.awaited}: {outbox_path}{doubt_text}',
            next_act.instruction,
            proposal_document,
            outbox_path,
            reverts=None if unsimulated_why else reverts,
            next_command=self._required_command(intent),
            is_withdrawable=is_withdrawable,
        )
        if rejected_before(self._journal, intent.tx, grant):
            awaiting.mark_rejected_before()
        return awaiting

    def _proposal_document(self, intent: Intent) -> dict[str, Any]:
        grant = self._journal.grant(intent.id)
        plan_json = None if grant.plan is None else json.loads(codec.dumps(grant.plan))
        return {
            "proposal": PROPOSAL_FORMAT,
            "id": intent.id,
            "description": intent.note,
            "purpose": intent.kind.value,
            "chain_id": intent.tx.chain_id,
            "created_s": intent.created_s,
            "expires_s": intent.deadline_s,
            **self.external_signer.signing_json(intent.tx),
            "plan": plan_json,
        }

    def _drop(self, intent: Intent, why: str) -> None:
        self._submitter.move(intent, IntentState.CANCELLED, why, event=IntentEvent.DROP)
        self.outbox.remove_proposal(intent.id)

    def _record_mined(self, intent: Intent, mined_tx: MinedTransaction) -> None:
        """Record the proposed transaction as SIGNED by its hash, also if it was dropped, and drop
        others that wait at its nonce.
        """
        for peer in self._open_intents_at(intent.tx.nonce):
            if peer.id != intent.id:
                self._drop(peer, f"{mined_tx.tx_hash} took the nonce")
        self._submitter.move(
            intent,
            IntentState.SIGNED,
            "signed elsewhere, found on the chain",
            tx_hash=mined_tx.tx_hash,
        )
        self.outbox.remove_proposal(intent.id)

    def _record_mined_peer(self, nonce: int, proposal_block_by_id: dict[str, int]) -> bool:
        """Return whether a transaction proposed at the nonce is mined, even if it was dropped, or a
        rejection made elsewhere, and record it.
        """
        peers = [
            intent
            for intent in self._journal.intents_at(nonce)
            if intent.id in proposal_block_by_id
            and (is_dropped(intent) or intent.state is IntentState.PLANNED)
        ]
        for peer in peers:
            mined_tx = self.external_signer.mined_at_nonce(peer.tx, proposal_block_by_id[peer.id])
            if mined_tx is not None and mined_tx.is_proposal:
                self._record_mined(peer, mined_tx)
                return True
        return bool(peers) and self._record_rejection(peers[0], proposal_block_by_id[peers[0].id])

    def _record_rejection(self, intent: Intent, since_block: int) -> bool:
        """Return whether a rejection of the proposal, made elsewhere, is mined, and record it."""
        rejection_tx = rejection_of(intent.tx, self.external_signer.address)
        mined_tx = self.external_signer.mined_at_nonce(rejection_tx, since_block)
        if mined_tx is None or not mined_tx.is_proposal:
            return False
        grant = self._journal.grant(intent.id)
        rejection_grant = Grant(IntentKind.CANCEL, grant.now_s, grant.deadline_s, grant.max_gas_wei)
        rejection = self._recorded_rejection(intent, rejection_grant, "made elsewhere")
        self._record_mined(rejection, mined_tx)
        return True

    def _record_sent_late(self, proposal_block_by_id: dict[str, int]) -> bool:
        """Record a dropped proposal that was sent after all, so that it is booked like others;
        return whether there was one.
        """
        expected_nonce = self._journal.expected_nonce()
        next_nonce, _ = self._sender.nonces(self.external_signer.address)
        if expected_nonce is None or next_nonce <= expected_nonce:
            return False
        has_hash = any(
            intent.tx_hash is not None for intent in self._journal.intents_at(expected_nonce)
        )  # reconciliation follows these transactions by hash
        return not has_hash and self._record_mined_peer(expected_nonce, proposal_block_by_id)


def require_no_open_proposals(journal: IntentStore, proposals: ProposalStore) -> None:
    """Raise OperatorNeeded while a proposal is unsigned: a local signer would drop it, and its
    external signer could still send it.
    """
    proposal_block_by_id = proposals.proposal_blocks()
    for intent in journal.open_intents() if proposal_block_by_id else ():
        if intent.state is IntentState.PLANNED and intent.id in proposal_block_by_id:
            raise OperatorNeeded(
                f'the proposal {intent.id} ("{intent.note}") awaits an external signature',
                'after it was sent or has expired, run once more with wallet.mode = "propose"',
                code=ErrorCode.PROPOSAL_OPEN,
            )
