"""Sends one transaction at a time: checked, simulated, written down, signed, sent, mined, final."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from agent.errors import Refused, Retryable
from agent.execution.carrier import IN_FLIGHT_STATES, OnEvent, SubmissionSettings, Submitter, guard_refusal, ignore_event
from agent.execution.reconcile import Reconciler, TxReplacer
from agent.model import Intent, IntentKind, Provide, UnsignedTx
from agent.ports import Clock, Grant, Journal, Sender, Signer


class JournaledExecutor:
    """Implements the engine's executor over the ports; one per process, wallet and chain (see store.lock)."""

    def __init__(  # noqa: PLR0913
        self,
        journal: Journal,
        signer: Signer,
        sender: Sender,
        clock: Clock,
        settings: SubmissionSettings,
        is_paused: Callable[[], bool | None],
        on_event: OnEvent = ignore_event,
        is_hard: Callable[[], bool] = lambda: False,
    ) -> None:
        self._carrier = Submitter(journal, signer, sender, clock, settings, is_paused, on_event, is_hard)
        self._replacer = TxReplacer(self._carrier)
        self._reconciler = Reconciler(self._carrier, self._replacer)

    def reconcile(self, *, may_send: bool = True) -> list[Intent]:
        """Resolves every open intent against the chain and returns them as they stand then.

        While the kill switch is on, or with `may_send` False, it only looks. Raises OperatorNeeded for a nonce that
        something else has used or is about to use, Retryable when the endpoint cannot tell.
        """
        return self._reconciler.run(may_send=may_send)

    def cancel_pending(self, why: str) -> list[Intent]:
        """Cancels every transaction that waits for a block and drops what never left; returns them as they stand then.

        Sends only while the kill switch stands at hard or is off. Raises Refused otherwise, OperatorNeeded for a cancel that
        cannot be sent, Retryable when the endpoint cannot tell.
        """
        return self._reconciler.cancel_pending(why)

    def resync_nonce(self) -> int:
        """Takes the chain's present nonce for ours, because the operator says so; returns it.

        For a wallet that was used by hand, or a store restored from a backup. Raises Retryable while anything of ours
        is open.
        """
        return self._reconciler.resync_nonce()

    def ready(self, *, for_revoking: bool = False) -> bool:
        """Whether anything may be sent now: the kill switch was read and is off, and no transaction of ours is unfinished.

        `taking_back`: the same where the switch stands at hard, for what sets allowances to zero.
        """
        unfinished = self._carrier.unfinished()
        allowed = self._carrier.is_paused() is False or (for_revoking and self._carrier.is_hard())
        return allowed and not unfinished

    def run(self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Carries one transaction from PLANNED to its end, and returns it: FINAL, REVERTED, or MINED while blocks are slow.

        Where it waits too long it is sent again for more, and what is returned is the one that a block has; or it is cancelled,
        and comes back as it stands then: CANCELLED once that is final.

        `grant.deadline_s` is the chain time after which it must not be sent. Raises Refused before anything is sent
        (kill switch, simulation, deadline, nonce, signer's rules); Retryable when it was sent and is not mined in
        time, or its fate is unknown: then the next `reconcile` follows it, and nothing is planned anew meanwhile.
        """
        carrier = self._carrier
        carrier.require_running(grant)
        self._require_final_mint(grant)
        self._require_turn(tx)
        carrier.simulate(tx, grant.deadline_s, grant)
        intent = carrier.plan(step_id, kind, tx, grant, note, grant.deadline_s)
        intent = carrier.launch(intent, grant, grant.deadline_s)
        mined = carrier.await_mined(tx.nonce, self._replacer.while_waiting(tx.nonce))
        if mined is None:
            raise Retryable(
                f"{note}: transaction {intent.tx_hash} was sent and is not mined after {carrier.settings.mined_timeout_s:.0f} s",
                "run the command again: it follows this transaction before it does anything else",
            )
        ended = carrier.await_final(mined)
        if ended.kind is IntentKind.CANCEL and kind is not IntentKind.CANCEL:
            return next(one for one in carrier.journal.intents_at(tx.nonce) if one.id == intent.id)
        return ended

    def _require_final_mint(self, grant: Grant) -> None:
        """Nothing is added to a position that may still be given another number: anybody may add to any, also to a stranger's."""
        action, journal = grant.action, self._carrier.journal
        if not isinstance(action, Provide) or action.token_id is None:
            return
        for intent in journal.open_intents():
            done = journal.grant(intent.id).action
            if isinstance(done, Provide) and done.token_id is None and done.contract == action.contract:
                raise Retryable(
                    f"the mint of {intent.tx_hash} is not final: a reorganisation may still give its position another number",
                    "run the command again once it has its confirmations",
                )

    def _require_turn(self, tx: UnsignedTx) -> None:
        """The nonce is the chain's next one, ours, and free."""
        if unfinished := self._carrier.unfinished():
            first = unfinished[0]
            what = f"{first.note}, {first.tx_hash}" if first.state in IN_FLIGHT_STATES else first.note
            raise Retryable(f"an earlier transaction is not finished: {what}", "reconcile first")
        expected = self._reconciler.require_known_nonce()
        if tx.nonce != expected:
            raise guard_refusal(
                "nonce", str(tx.nonce), str(expected), "the wallet's nonce moved since the transaction was made", "plan again"
            )


# --- A signer without a key, for looks that send nothing.


class ReadOnlySigner:
    """ports.Signer of a wallet that is only watched."""

    def __init__(self, address: str) -> None:
        self.address = address

    def sign(self, tx: UnsignedTx, grant: Grant) -> NoReturn:
        """Always raises."""
        raise Refused(f"nothing is signed for {self.address} while only looking", remedy="add --send")
