"""Execution with an external signer: propose each transaction, and settle it from the chain."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from agent import codec
from agent.errors import ErrorCode, OperatorNeeded, Retryable
from agent.execution.executor import JournaledExecutor
from agent.execution.submitter import Submitter
from agent.model import Intent, IntentKind, IntentState, SignedTx, UnsignedTx
from agent.ports import ExternalSigner, Grant, Journal, Outbox, ProposalJournal

FORMAT = 1
"""Version of the file's layout."""


class AwaitingExternalSignature(Retryable):
    """A transaction was proposed and awaits its signer; `document` is in the file `place`."""

    def __init__(self, message: str, remedy: str, document: dict[str, Any], place: str) -> None:
        super().__init__(message, remedy)
        self.document = document
        self.place = place


class RefusingSigner:
    """ports.Signer of a wallet with an external signer: refuses every transaction."""

    def __init__(self, owner: ExternalSigner) -> None:
        self.address = owner.address

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
        proposals: ProposalJournal,
        owner: ExternalSigner,
        outbox: Outbox,
    ) -> None:
        super().__init__(replace(submitter, signer=RefusingSigner(owner)))
        self._journal, self._sender = submitter.journal, submitter.sender
        self._proposals, self._owner, self._outbox = proposals, owner, outbox

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Settle proposals that are mined or expired.

        Raises AwaitingExternalSignature while one is unsigned, OperatorNeeded if another
        transaction took its nonce or an expired one was sent.
        """
        proposed, open_before = self._proposals.proposed(), self._journal.open_intents()
        for intent in open_before:
            if intent.state is IntentState.PLANNED and intent.id in proposed:
                self._settle(intent, proposed[intent.id])
        self._require_none_sent_late(proposed)
        self._reconciler.run(may_send=False)
        return [self._now(intent) for intent in open_before]

    def run(
        self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str
    ) -> Intent:
        """Record the transaction and propose it.

        Always raises: AwaitingExternalSignature once it is proposed. Before that, Refused by the
        kill switch, the simulation, the nonce or the signing rules, Retryable if endpoints fail or
        disagree, and OperatorNeeded as simulation and external signer do.
        """
        submitter = self._submitter
        submitter.require_running(grant)
        self._require_final_mint(grant)
        self._require_turn(tx)
        head = submitter.simulate(tx, grant.deadline_s, grant).head
        self._owner.require(tx, grant)
        intent = submitter.plan(step_id, kind, tx, grant, note, grant.deadline_s)
        self._proposals.mark_proposed(intent.id, head.number)
        raise self._awaiting(intent)

    def cancel_pending(self, why: str) -> list[Intent]:
        """Withdraw every proposal. A signer who has seen a proposal can still send it: a swap until
        its deadline, an approval or payment at any time.

        A proposal that the chain already has is settled. Raises OperatorNeeded if another
        transaction took its nonce.
        """
        proposed = self._proposals.proposed()
        unsigned = [
            intent
            for intent in self._journal.open_intents()
            if intent.state is IntentState.PLANNED and intent.id in proposed
        ]
        for intent in unsigned:
            self._outbox.remove_proposal(intent.id)
        for intent in unsigned:
            if not self._is_mined(intent, proposed[intent.id]):
                self._drop(intent, why)
        cancelled = super().cancel_pending(why)
        ids = {intent.id for intent in cancelled}
        return [*(self._now(intent) for intent in unsigned if intent.id not in ids), *cancelled]

    def _settle(self, intent: Intent, since_block: int) -> None:
        """Settle one proposal that is mined or expired; raise AwaitingExternalSignature
        otherwise.
        """
        # Read the head before the nonce: if the nonce is then still free and the deadline has
        # passed, the proposal was not sent in time.
        head = self._sender.head()
        if self._is_mined(intent, since_block):
            return
        if intent.deadline_s is not None and head.timestamp_s >= intent.deadline_s:
            why = f"the proposal {intent.id} expired at {_time(intent.deadline_s)} unsent"
            self._drop(intent, why)
            return
        raise self._awaiting(intent)

    def _is_mined(self, intent: Intent, since_block: int) -> bool:
        """Return whether the proposed transaction is mined, and record it as SIGNED if so. Raises
        OperatorNeeded if another transaction took its nonce.
        """
        latest, _ = self._sender.nonces(self._owner.address)
        if latest <= intent.tx.nonce:
            return False
        mined = self._owner.carried(intent.tx, since_block)
        if mined is not None and mined.same:
            self._submitter.move(
                intent,
                IntentState.SIGNED,
                "signed elsewhere, found on the chain",
                tx_hash=mined.tx_hash,
            )
            self._outbox.remove_proposal(intent.id)
            return True
        by = "a transaction that was not proposed"
        if mined is not None:
            by = f"{mined.tx_hash}, a different transaction"
        raise OperatorNeeded(
            f"nonce {intent.tx.nonce} of {self._owner.address} was used by {by}, in place of"
            f' {intent.id} ("{intent.note}")',
            "find out who signed it and check the balances, then run trimtab adopt",
            code=ErrorCode.NONCE_USED,
        )

    def _awaiting(self, intent: Intent) -> AwaitingExternalSignature:
        document = self._document(intent)
        place = self._outbox.put(intent.id, json.dumps(document, indent=2) + "\n")
        until = "" if intent.deadline_s is None else f" until {_time(intent.deadline_s)}"
        return AwaitingExternalSignature(
            f'"{intent.note}" is proposed and awaits its signature{until}: {place}',
            "have it signed and sent, then run the command again: it settles the proposal from the"
            " chain and continues",
            document,
            place,
        )

    def _document(self, intent: Intent) -> dict[str, Any]:
        grant = self._journal.grant(intent.id)
        plan = None if grant.plan is None else json.loads(codec.dumps(grant.plan))
        return {
            "proposal": FORMAT,
            "id": intent.id,
            "what": intent.note,
            "purpose": intent.kind.value,
            "chain_id": intent.tx.chain_id,
            "created_s": intent.created_s,
            "expires_s": intent.deadline_s,
            **self._owner.shown(intent.tx),
            "plan": plan,
        }

    def _drop(self, intent: Intent, why: str) -> None:
        self._submitter.drop(intent, why)
        self._outbox.remove_proposal(intent.id)

    def _require_none_sent_late(self, proposed: dict[str, int]) -> None:
        """Raise OperatorNeeded if a dropped proposal was sent after all. Approvals have no deadline
        on chain; a late swap would revert.
        """
        expected = self._journal.expected_nonce()
        latest, _ = self._sender.nonces(self._owner.address)
        if expected is None or latest <= expected:
            return
        at_nonce = self._journal.intents_at(expected)
        if any(intent.tx_hash is not None for intent in at_nonce):
            return  # reconciliation follows these transactions by hash
        for intent in at_nonce:
            if intent.state is not IntentState.CANCELLED or intent.id not in proposed:
                continue
            mined = self._owner.carried(intent.tx, proposed[intent.id])
            if mined is not None and mined.same:
                raise OperatorNeeded(
                    f'the dropped proposal {intent.id} ("{intent.note}") was sent after all, by'
                    f" {mined.tx_hash}",
                    "check the balances, then run trimtab adopt",
                    code=ErrorCode.PROPOSAL_SENT,
                )

    def _now(self, intent: Intent) -> Intent:
        return next(
            other for other in self._journal.intents_at(intent.tx.nonce) if other.id == intent.id
        )


def require_no_open_proposals(journal: Journal, proposals: ProposalJournal) -> None:
    """Raise OperatorNeeded while a proposal is unsigned: a local signer would drop it, and its
    external signer could still send it.
    """
    proposed = proposals.proposed()
    for intent in journal.open_intents():
        if intent.state is IntentState.PLANNED and intent.id in proposed:
            raise OperatorNeeded(
                f'the proposal {intent.id} ("{intent.note}") awaits an external signature',
                'after it was sent or has expired, run once more with wallet.mode = "propose"',
                code=ErrorCode.PROPOSAL_OPEN,
            )


def _time(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
