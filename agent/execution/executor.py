"""Executor of one transaction at a time: check, simulate, record, sign, send, wait until final."""

from __future__ import annotations

from typing import NoReturn

from agent.errors import ErrorCode, Refused, Retryable
from agent.execution.reconcile import Reconciler, TxReplacer
from agent.execution.submitter import IN_FLIGHT_STATES, Submitter, guard_refusal
from agent.model import Intent, IntentKind, Provide, UnsignedTx
from agent.ports import Grant


class JournaledExecutor:
    """Implements ports.Executor; one per process, wallet and chain (agent/store/files/locks.py)."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._replacer = TxReplacer(self._submitter)
        self._reconciler = Reconciler(self._submitter, self._replacer)

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Resolve every open intent against the chain and return them in their new state.

        Sends nothing while the kill switch is on or with `may_send` False. Raises OperatorNeeded if
        another sender has used a nonce or has a transaction pending, Retryable if the endpoint
        cannot answer.
        """
        return self._reconciler.run(may_send=may_send)

    def cancel_pending(self, why: str) -> list[Intent]:
        """Cancel every pending transaction, drop unsent ones, and return them in their new state.

        Sends only while the kill switch is at hard or off, else raises Refused. Raises
        OperatorNeeded if a cancel cannot be sent, Retryable if the endpoint cannot answer.
        """
        return self._reconciler.cancel_pending(why)

    def resync_nonce(self) -> int:
        """Adopt the chain's current nonce on the operator's command, and return it; for a wallet
        that was used manually, or a store restored from a backup. Raises Retryable while a
        transaction of the agent is open.
        """
        return self._reconciler.resync_nonce()

    def ready(self, *, for_revoking: bool = False) -> bool:
        """True if a transaction may be sent now: the kill switch was read and is off, and no
        transaction of ours is unfinished. For revocations (`for_revoking`) the switch may be at
        hard.
        """
        unfinished = self._submitter.unfinished()
        allowed = self._submitter.is_paused() is False or (
            for_revoking and self._submitter.is_hard()
        )
        return allowed and not unfinished

    def run(
        self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str
    ) -> Intent:
        """Run one transaction from PLANNED to its end and return it: FINAL, REVERTED, or MINED
        while blocks are slow.

        A transaction pending too long is either replaced at a higher fee, and the mined intent
        returned, or cancelled, and returned as CANCELLED once the cancel is final.
        `grant.deadline_s` is the chain time after which it must not be sent. Raises Refused before
        anything is sent (kill switch, simulation, deadline, nonce, signing rules). Raises Retryable
        if it was sent and is not mined in time, or if the outcome of sending is unknown: the next
        `reconcile` resolves it, and nothing new is planned until then.
        """
        submitter = self._submitter
        submitter.require_running(grant)
        self._require_final_mint(grant)
        self._require_turn(tx)
        submitter.simulate(tx, grant.deadline_s, grant)
        intent = submitter.plan(step_id, kind, tx, grant, note, grant.deadline_s)
        intent = submitter.launch(intent, grant, grant.deadline_s)
        mined = submitter.await_mined(tx.nonce, self._replacer.while_waiting(tx.nonce))
        if mined is None:
            raise Retryable(
                f"{note}: transaction {intent.tx_hash} was sent and is not mined after"
                f" {submitter.settings.mined_timeout_s:.0f} s",
                "run the command again: it first waits for this transaction",
                code=ErrorCode.NOT_MINED,
            )
        ended = submitter.await_final(mined)
        if ended.kind is IntentKind.CANCEL and kind is not IntentKind.CANCEL:
            at_nonce = submitter.journal.intents_at(tx.nonce)
            return next(original for original in at_nonce if original.id == intent.id)
        return ended

    def _require_final_mint(self, grant: Grant) -> None:
        """Raise if a reorg can still change the position's id: added liquidity could then go to
        someone else's position.
        """
        action, journal = grant.action, self._submitter.journal
        if not isinstance(action, Provide) or action.token_id is None:
            return
        for intent in journal.open_intents():
            done = journal.grant(intent.id).action
            if (
                isinstance(done, Provide)
                and done.token_id is None
                and done.contract == action.contract
            ):
                raise Retryable(
                    f"the mint of {intent.tx_hash} is not final: a reorg "
                    "may still change its position's id",
                    "run the command again once it is confirmed",
                    code=ErrorCode.MINT_NOT_FINAL,
                )

    def _require_turn(self, tx: UnsignedTx) -> None:
        """Raise unless the nonce is free and the next one of both chain and journal."""
        if unfinished := self._submitter.unfinished():
            first, what = unfinished[0], unfinished[0].note
            if first.state in IN_FLIGHT_STATES:
                what = f"{what}, {first.tx_hash}"
            raise Retryable(
                f"an earlier transaction is not finished: {what}",
                "reconcile first",
                code=ErrorCode.OPEN_TRANSACTION,
            )
        expected = self._reconciler.require_known_nonce()
        if tx.nonce != expected:
            raise guard_refusal(
                "nonce",
                str(tx.nonce),
                str(expected),
                "the wallet's nonce changed since the transaction was composed",
                "plan again",
            )


# --- A signer without a key, for cycles that send nothing.


class ReadOnlySigner:
    """ports.Signer of a read-only wallet: refuses to sign."""

    def __init__(self, address: str) -> None:
        self.address = address

    def sign(self, tx: UnsignedTx, grant: Grant) -> NoReturn:
        """Always raises."""
        raise Refused(
            f"nothing is signed for {self.address} in a read-only run", remedy="add --send"
        )
