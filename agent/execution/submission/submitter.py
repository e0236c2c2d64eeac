"""Single operations on a transaction: durable writes, checks, sending, waiting for blocks."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from agent.chain.endpoints import EndpointResting
from agent.chain.quorum import NO_MAJORITY_REMEDY, NoQuorum
from agent.chain.sender import NonceUsed, OutcomeUnknown, SendRefused, TipRefused
from agent.errors import (
    ErrorCode,
    OperatorNeeded,
    PassingFault,
    Refused,
    Retryable,
    TrimtabError,
    UnsendableTransaction,
)
from agent.execution.submission.checks import (
    guard_refusal,
    only_undoes,
    pause_refusal,
    require_before_deadline,
    require_granted_data_fee,
    stored_pause_check,
)
from agent.execution.submission.events import OnEvent, SubmissionEvent, ignore_event
from agent.execution.submission.settings import SubmissionSettings
from agent.execution.submission.signable_nonces import open_transactions
from agent.model import (
    NOT_ACCEPTED_PREFIX,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    Receipt,
    SignedTx,
    UnsignedTx,
)
from agent.ports import Clock, ConflictingTransactionFinder, Grant, Sender, Signer, Simulation
from agent.signing.terms import gas_keys, tip_range_wei
from agent.store.accounts.budgets import BudgetStore
from agent.store.journal.intents import IntentStore
from agent.venues.gas_fees import MAX_GAS_MULTIPLE

IN_FLIGHT_STATES = (IntentState.BROADCAST, IntentState.MINED)
"""States in which the bytes may have reached any node."""
_LOW_NONCE_POLLS = 5
"""Consecutive polls with the chain's next nonce below ours before a reorg is assumed; a lagging
endpoint catches up within them.
"""


@dataclass(slots=True, eq=False)
class Submitter:
    """Submits transactions through the ports. Each state change is stored before it is acted on.
    `is_paused` reads the kill switch (None: it cannot be read), `is_hard_pause` whether it is at
    hard. `proposed_ids` returns those of intents that an external signer may have sent with other
    fees.
    """

    journal: IntentStore
    budgets: BudgetStore
    signer: Signer
    sender: Sender
    clock: Clock
    settings: SubmissionSettings
    is_paused: Callable[[], bool | None]
    on_event: OnEvent = ignore_event
    is_hard_pause: Callable[[], bool] = lambda: False
    pause_reason: Callable[[], str] = str
    proposed_ids: Callable[[], Container[str]] = tuple

    # checks
    def require_running(self, grant: Grant) -> None:
        """Raise Refused unless the kill switch was read and is off, or is at hard and `grant` is
        for a revocation or a cancel (T14).
        """
        is_paused = self.is_paused()
        if is_paused is False:
            return
        if only_undoes(grant) and self.is_hard_pause():
            return
        switch_state = "paused" if is_paused else "cannot be read"
        raise pause_refusal(switch_state, grant, self.pause_reason())

    def is_running(self, grant: Grant) -> bool:
        """Return whether the kill switch allows what `grant` is for (see `require_running`)."""
        try:
            self.require_running(grant)
        except Refused:
            return False
        return True

    def simulate(self, tx: UnsignedTx, deadline_s: int | None, grant: Grant) -> Simulation:
        """Simulate the exact transaction at the head.

        Raises Refused if it fails, lacks gas, or is past its deadline by chain time. Raises
        NoQuorum if that head may be old or forged (T19), unless `grant` is for a revocation or a
        cancel.
        """
        simulation = self.sender.simulate(tx, self.signer.address)
        head = simulation.head
        if head.chain_id != tx.chain_id:
            raise PassingFault(
                f"the endpoint is on chain {head.chain_id}, the transaction is for {tx.chain_id}",
                "check [chain] in the config",
                code=ErrorCode.CHAIN,
            )
        require_before_deadline(head.timestamp_s, deadline_s)
        if simulation.height_disagreement and not only_undoes(grant):
            raise NoQuorum(simulation.height_disagreement, NO_MAJORITY_REMEDY, code=ErrorCode.LAG)
        if not simulation.ok:
            raise guard_refusal(
                "simulation",
                simulation.reason,
                "succeeds at the head",
                f"simulated at block {head.number}: {simulation.reason}",
                error_type=UnsendableTransaction if simulation.reverted else Refused,
            )
        if simulation.gas > tx.gas > 0:
            raise guard_refusal(
                "gas",
                f"{simulation.gas} gas",
                f"{tx.gas} gas",
                "the transaction now needs more gas than its limit",
                "plan again",
                UnsendableTransaction,
            )
        require_granted_data_fee(simulation, grant)
        return simulation

    # durable writes
    def record_intent(
        self,
        step_id: str,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        deadline_s: int | None,
        replaces: str | None = None,
    ) -> Intent:
        """Record the intent; `replaces` names the intent that it replaces at its nonce."""
        self.on_event(SubmissionEvent("before:planned", None, note))
        intent = self.journal.add_intent(
            step_id, tx, grant, note, self.clock.now_s(), deadline_s, replaces
        )
        self.on_event(SubmissionEvent("after:planned", intent))
        return intent

    def move(
        self,
        intent: Intent,
        new_state: IntentState,
        note: str = "",
        *,
        tx_hash: str | None = None,
        receipt: Receipt | None = None,
        event: IntentEvent | None = None,
    ) -> Intent:
        """Record a transition, with its `event` if given."""
        self.on_event(SubmissionEvent(f"before:{new_state.value}", intent, note))
        now_s = self.clock.now_s()
        intent = self.journal.advance(intent.id, new_state, now_s, tx_hash, receipt, note, event)
        self.on_event(SubmissionEvent(f"after:{new_state.value}", intent, note))
        return intent

    def drop(self, intent: Intent, why: str) -> Intent:
        """End an intent that was never sent."""
        return self.move(
            intent, IntentState.CANCELLED, f"never sent: {why}", event=IntentEvent.DROP
        )

    # sending
    def record_sending(self, intents: Sequence[Intent], grant: Grant) -> list[Intent]:
        """Record intents that are sent as one, by the grant of the first, as BROADCAST, unless a
        pause that any machine has stored by then forbids it: what was never sent is dropped, and
        Refused raised.
        """
        for intent in intents:
            self.on_event(SubmissionEvent("before:broadcast", intent, "sent"))
        intent_ids = [intent.id for intent in intents]
        try:
            sent_intents = self.journal.record_sending(
                intent_ids, self.clock.now_s(), "sent", stored_pause_check(grant)
            )
        except Refused as error:
            for intent in intents:
                if intent.state is IntentState.SIGNED:
                    self.drop(intent, error.message)
            raise
        for intent in sent_intents:
            self.on_event(SubmissionEvent("after:broadcast", intent, "sent"))
        return sent_intents

    def launch(self, intent: Intent, grant: Grant, deadline_s: int | None) -> Intent:
        """Sign a PLANNED intent, record it as BROADCAST, and send it. Drops it if signing or the
        last check fails: the pause comes after all that asks the network.
        """
        try:
            signed_tx = self.signer.sign(intent.tx, grant)
        except TrimtabError as error:
            self.drop(intent, error.message)
            raise
        intent = self.move(intent, IntentState.SIGNED, tx_hash=signed_tx.hash)
        try:
            require_before_deadline(self.sender.head().timestamp_s, deadline_s)
            self.require_running(grant)
        except TrimtabError as error:
            self.drop(intent, error.message)
            raise
        return self.send(intent, signed_tx, grant)

    def send(self, intent: Intent, signed_tx: SignedTx, grant: Grant) -> Intent:
        """Send the bytes once BROADCAST is on disk. An unknown outcome is not raised: waiting or
        the next reconciliation resolves it. That includes a used nonce, unless a foreign
        transaction is shown at it: nodes may have ours, and hide it for a while. A tip that nodes
        demand is recorded before TipRefused is raised.
        """
        (intent,) = self.record_sending([intent], grant)
        self.on_event(SubmissionEvent("before:send", intent))
        try:
            self.sender.send(signed_tx)
        except TrimtabError as error:
            if _answers_send(error):
                answer_note = f"{NOT_ACCEPTED_PREFIX}{error.message}"
                self.move(intent, IntentState.BROADCAST, answer_note, event=IntentEvent.SEND)
            if isinstance(error, TipRefused):
                self._record_demanded_tip(intent.tx, grant, error)
                raise
            may_be_ours = isinstance(error, NonceUsed) and not self.is_taken_by_another(
                intent.tx.nonce
            )
            if not may_be_ours and not isinstance(error, Retryable):
                raise
            self.on_event(SubmissionEvent("fate-unknown", intent, error.message))
            if isinstance(error, OutcomeUnknown) and error.tip_refusal is not None:
                with suppress(Refused):  # what cannot be paid waits for the other nodes
                    self._record_demanded_tip(intent.tx, grant, error.tip_refusal)
        self.on_event(SubmissionEvent("after:send", intent))
        return intent

    # nonces
    def is_nonce_used(self, nonce: int) -> bool:
        """Return whether the chain has a transaction of the wallet at `nonce`."""
        return self.sender.nonces(self.signer.address)[0] > nonce

    def mined_hash(self, nonce: int) -> str | None:
        """Return the hash of the wallet's mined transaction at `nonce`; None if the endpoints do
        not show it.
        """
        if not isinstance(self.sender, ConflictingTransactionFinder):
            return None
        try:
            return self.sender.mined_tx_hash(self.signer.address, nonce)
        except TrimtabError:
            return None

    def own_hashes(self, nonce: int) -> list[str]:
        """Return the hashes of all our signed transactions at `nonce`, bumps and cancels included,
        oldest first.
        """
        hashes = [intent.tx_hash for intent in self.journal.intents_at(nonce)]
        return list(dict.fromkeys(tx_hash for tx_hash in hashes if tx_hash is not None))

    def is_taken_by_another(self, nonce: int) -> bool:
        """Return whether the endpoints show a mined transaction at `nonce` that is none of ours."""
        mined_hash = self.mined_hash(nonce)
        return mined_hash is not None and mined_hash not in self.own_hashes(nonce)

    def unaccepted_text(self, intent: Intent) -> str:
        """Return "; not accepted: " and the nodes' answers to the last send of our transaction; ""
        if one accepted it.
        """
        transitions = self.journal.transitions(intent.id)
        last_note = transitions[-1].note if transitions else ""
        return f"; {last_note}" if last_note.startswith(NOT_ACCEPTED_PREFIX) else ""

    # tips
    @property
    def demanded_tip_wei(self) -> int:
        """Tip per unit of gas that nodes demanded within a day, wei; 0 if none."""
        return self.budgets.demanded_tip_wei(self.clock.now_s())

    def _record_demanded_tip(self, tx: UnsignedTx, grant: Grant, refusal: TipRefused) -> None:
        """Record the tip that the refusal demands; if it names none, twice the refused one, and at
        least the usual one. Raises the refusal for a tip that is not higher, or above what is signed.
        """
        _, max_tip_wei = tip_range_wei(tx.chain_id)
        remedy = "use another node"
        if tx.gas_price_wei is not None:  # a gas price has no other bound than limits.gas_price
            max_tip_wei = max(refusal.min_tip_wei or 0, 2 * tx.tip_wei)
            ceiling_wei, _ = self.settings.gas_ceilings_of(grant)
            if ceiling_wei is None:
                max_tip_wei = MAX_GAS_MULTIPLE * tx.tip_wei
                remedy = f"use another node, or set {gas_keys(grant.is_emergency)[0]}"
        tip_wei = refusal.min_tip_wei
        if tip_wei is None:
            tip_wei = min(max(2 * tx.tip_wei, self.settings.usual_tip_wei, 1), max_tip_wei)
        if tip_wei <= tx.tip_wei:
            raise refusal
        if tip_wei > max_tip_wei:
            raise guard_refusal(
                "tip",
                f"{tip_wei} wei",
                f"{max_tip_wei} wei",
                f"the node demands a tip of {tip_wei} wei per gas, and at most {max_tip_wei} wei is"
                " signed",
                remedy,
            )
        self.budgets.mark_demanded_tip(tip_wei, self.clock.now_s())

    def sign_again(self, intent: Intent, now_s: int) -> SignedTx:
        """Sign again and return the same bytes as before. Raises Refused if the rules now forbid
        it, or the signer returns other bytes.
        """
        signed_tx = self.signer.sign(intent.tx, replace(self.journal.grant(intent.id), now_s=now_s))
        if signed_tx.hash != intent.tx_hash:
            raise guard_refusal(
                "hash",
                signed_tx.hash,
                str(intent.tx_hash),
                "the signer returned another signature; the old bytes are lost",
            )
        return signed_tx

    # waiting
    def await_mined(
        self, nonce: int, while_waiting: Callable[[float], None] = lambda _waited_s: None
    ) -> Intent | None:
        """Wait until a transaction of the agent at `nonce` is in a block, move it to MINED and
        return it; None after the timeout.

        Retries network errors until the timeout. `while_waiting` is called after each poll in which
        it was in no block, with the seconds waited so far. Raises Retryable at once if an earlier
        transaction lost its block: it must be resolved first.
        """
        waited_s = 0.0
        last_error = None
        low_nonce_polls = 0
        while True:
            try:
                mined_intent = self.record_mined(nonce)
                if mined_intent is not None:
                    return mined_intent
                if self.sender.nonces(self.signer.address)[0] < nonce:
                    low_nonce_polls += 1
                else:
                    low_nonce_polls = 0
                last_error = None
            except Retryable as error:
                last_error = error
            if low_nonce_polls >= _LOW_NONCE_POLLS:
                raise Retryable(
                    f"nonce {nonce} waits for an earlier transaction that a reorg removed",
                    "run the command again: it sends the earlier one first",
                    code=ErrorCode.REORG,
                )
            if waited_s >= self.settings.mined_timeout_s:
                if last_error is not None:
                    raise last_error
                return None
            if last_error is None:  # otherwise it may be mined
                while_waiting(waited_s)
            self.on_event(
                SubmissionEvent(
                    "waiting", None, f"nonce {nonce}: waiting {waited_s:.0f} s to be mined"
                )
            )
            self.clock.sleep(self.settings.poll_s)
            waited_s += self.settings.poll_s

    def record_mined(self, nonce: int) -> Intent | None:
        """Return the agent's mined transaction at `nonce`, checking once; None if there is none.
        Moves the others at that nonce out of MINED.
        """
        in_flight_intents = self.in_flight_intents(nonce)
        mined_intents = [
            intent for intent in in_flight_intents if intent.state is IntentState.MINED
        ]
        for intent in in_flight_intents:
            if intent.state is IntentState.MINED:
                continue
            receipt = self.receipt_of(intent)
            if receipt is not None:
                self._unmine(mined_intents, intent)
                return self.move(intent, IntentState.MINED, receipt=receipt)
        return next(iter(mined_intents), None)

    def receipt_of(self, intent: Intent) -> Receipt | None:
        """Return the receipt of our transaction; None if it is in no block. Raises Retryable for a
        receipt with a higher gas cost than the signed transaction can have (T2).
        """
        receipt = self.sender.status_of(str(intent.tx_hash)).receipt
        max_gas_cost_wei = intent.tx.max_gas_cost_wei
        if (
            receipt is None
            or receipt.execution_gas_cost_wei <= max_gas_cost_wei
            or intent.id in self.proposed_ids()
        ):
            return receipt
        raise Retryable(
            f"the endpoints' receipt of {intent.tx_hash} has a gas cost of {receipt.execution_gas_cost_wei}"
            f" wei, but the transaction was signed for at most {max_gas_cost_wei} wei",
            "check the endpoints of [[chain.rpc]]",
            code=ErrorCode.ANSWER,
        )

    def _unmine(self, losing_intents: Sequence[Intent], winning_intent: Intent) -> None:
        for losing_intent in losing_intents:
            self.move(
                losing_intent,
                IntentState.BROADCAST,
                f"{winning_intent.tx_hash} is in a block in its place",
                event=IntentEvent.UNMINE,
            )

    def unfinished_intents(self) -> list[Intent]:
        """Return open transactions at nonces where none of ours is mined."""
        open_intents = open_transactions(self.journal)
        mined_nonces = {
            intent.tx.nonce for intent in open_intents if intent.state is IntentState.MINED
        }
        return [intent for intent in open_intents if intent.tx.nonce not in mined_nonces]

    def in_flight_intents(self, nonce: int) -> list[Intent]:
        """Return our transactions at `nonce` whose bytes may have been sent, newest first."""
        return [
            intent
            for intent in reversed(self.journal.intents_at(nonce))
            if intent.state in IN_FLIGHT_STATES
        ]

    def await_final(self, intent: Intent) -> Intent:
        """Wait for the confirmations and return the intent: FINAL or REVERTED, MINED after the
        timeout or while its block lacks the finality tag, BROADCAST if a reorg removed its block.

        Finality of a base chain takes many minutes, so the next reconciliation looks again.
        """
        waited_s = 0.0
        while True:
            intent, is_confirmed = self._follow_chain(intent)
            if intent.state is not IntentState.MINED:
                return intent
            if is_confirmed:
                return self.settle_nonce(intent) if self._has_finality_tag(intent) else intent
            if waited_s >= self.settings.final_timeout_s:
                return intent
            self.on_event(
                SubmissionEvent(
                    "confirming",
                    intent,
                    f"waiting {waited_s:.0f} s for {self.settings.confirmations} confirmations",
                )
            )
            self.clock.sleep(self.settings.poll_s)
            waited_s += self.settings.poll_s

    def _has_finality_tag(self, intent: Intent) -> bool:
        """Return whether the intent's block has the finality tag; False if no answer says so. The
        height is read before the hash: what is canonical below a final block stays so.
        """
        finality_tag = self.settings.finality_tag
        block_number, block_hash = block_of(intent)
        if finality_tag is None:
            return True
        try:
            tagged_height = self.sender.tagged_height(finality_tag)
            if block_number <= tagged_height:
                return self.sender.block_hash(block_number) == block_hash
        except Retryable as error:
            self.on_event(SubmissionEvent("confirming", intent, error.message))
            return False
        wait_text = f"block {block_number} is not {finality_tag} yet; block {tagged_height} is"
        self.on_event(SubmissionEvent("confirming", intent, wait_text))
        return False

    def _follow_chain(self, intent: Intent) -> tuple[Intent, bool]:
        """Return the intent's current state on the canonical chain, and True if it is deep
        enough.
        """
        receipt = intent.receipt
        if receipt is None:
            raise OperatorNeeded(
                f"store: transaction {intent.tx_hash} is mined but has no receipt",
                "restore a backup of the store",
                code=ErrorCode.RECEIPT,
            )
        try:
            head_height = self.sender.head().number
            if self.sender.block_hash(receipt.block_number) == receipt.block_hash:
                return intent, head_height - receipt.block_number + 1 >= self.settings.confirmations
            new_receipt = self.receipt_of(intent)
        except Retryable as error:
            self.on_event(SubmissionEvent("confirming", intent, error.message))
            return intent, False
        if new_receipt == receipt:  # a lagging endpoint does not know the block yet
            return intent, False
        return self.follow_reorg(intent, new_receipt), False

    def follow_reorg(self, intent: Intent, receipt: Receipt | None) -> Intent:
        """Record that the transaction's block changed: MINED with its new receipt, or BROADCAST."""
        if receipt is None:
            return self.move(
                intent,
                IntentState.BROADCAST,
                "its block is no longer in the chain",
                event=IntentEvent.UNMINE,
            )
        return self.move(intent, IntentState.MINED, "moved to another block", receipt=receipt)

    def settle_nonce(self, winning_intent: Intent) -> Intent:
        """End `winning_intent`, then every other intent at its nonce."""
        if winning_intent.state is IntentState.MINED:
            has_succeeded = (
                winning_intent.receipt is not None and winning_intent.receipt.status == 1
            )
            winning_intent = self.move(
                winning_intent, IntentState.FINAL if has_succeeded else IntentState.REVERTED
            )
        loser_state = (
            IntentState.CANCELLED
            if winning_intent.kind is IntentKind.CANCEL
            else IntentState.REPLACED
        )
        for losing_intent in self.journal.intents_at(winning_intent.tx.nonce):
            if losing_intent.id == winning_intent.id:
                continue
            if losing_intent.state in (IntentState.PLANNED, IntentState.SIGNED):
                self.drop(losing_intent, f"{winning_intent.tx_hash} took the nonce")
            elif losing_intent.state in IN_FLIGHT_STATES:
                if losing_intent.state is IntentState.MINED:
                    self._unmine([losing_intent], winning_intent)
                self.move(losing_intent, loser_state, f"{winning_intent.tx_hash} took the nonce")
        return winning_intent


def _answers_send(error: TrimtabError) -> bool:
    """Return whether the error is what endpoints answered to a send, that they gave no valid
    answer, or that all were resting.
    """
    return (
        isinstance(error, NonceUsed | SendRefused | EndpointResting)
        or error.code == ErrorCode.UNKNOWN_IF_SENT
    )


def unseen_transaction_error(owner: str, nonce: int, own_text: str) -> Retryable:
    """Return the error for a used nonce at which the endpoints show neither ours nor another."""
    return Retryable(
        f"nonce {nonce} of {owner} was used, but the endpoints show neither {own_text} nor another"
        " transaction at it",
        "try again; if it lasts, look the nonce up in a block explorer, and after a transaction of"
        " another program run trimtab adopt",
        code=ErrorCode.LAG,
    )


def block_of(intent: Intent) -> tuple[int, str]:
    """Return number and hash of the block of a mined transaction. Raises OperatorNeeded without
    receipt.
    """
    if intent.receipt is None:
        raise OperatorNeeded(
            f"store: transaction {intent.tx_hash} ended in a block but has no receipt",
            "restore a backup of the store",
            code=ErrorCode.RECEIPT,
        )
    return intent.receipt.block_number, intent.receipt.block_hash
