"""Single acts of execution: durable writes, checks before sending, the send itself, and waiting for
blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.chain.quorum import NO_MAJORITY_REMEDY as REMEDY
from agent.chain.quorum import NoQuorum
from agent.errors import (
    ErrorCode,
    OperatorNeeded,
    Refused,
    Retryable,
    TrimtabError,
    UnsendableTransaction,
)
from agent.model import (
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    Receipt,
    SignedTx,
    UnsignedTx,
    Verdict,
)
from agent.ports import Approval, BudgetJournal, Clock, Grant, Journal, Sender, Signer, Simulation

# --- Settings of submission, and the events that the executor reports.


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """Settings of submission and waiting. `confirmations` counts the transaction's own block.

    `max_fee_wei` is limits.gas_price and `gas_per_day_wei` is limits.gas_per_day (None: off). A
    transaction pending longer than `bump_after_s` is replaced at a higher fee or cancelled (None:
    never). The chain is polled every `poll_s` seconds. After `mined_timeout_s` a transaction counts
    as late; after `final_timeout_s` a mined one is left to the next reconciliation.
    """

    confirmations: int
    poll_s: float
    mined_timeout_s: float
    final_timeout_s: float
    max_fee_wei: int | None
    bump_after_s: float | None = None
    gas_per_day_wei: int | None = None


@dataclass(frozen=True, slots=True)
class SubmissionEvent:
    """One moment of a transaction's life, for progress display and tests.

    Names: `before:<state>` and `after:<state>` around each durable write, `before:send`,
    `after:send`, `fate-unknown`, `not-taken`, `waiting`, `confirming`. `intent` is its state then,
    None before it was written.
    """

    name: str
    intent: Intent | None
    text: str = ""


OnEvent = Callable[[SubmissionEvent], None]


def ignore_event(_event: SubmissionEvent) -> None:
    """Discard the event."""


IN_FLIGHT_STATES = (IntentState.BROADCAST, IntentState.MINED)
"""States whose bytes may be anywhere."""
_SURE = 5
"""Consecutive polls that see the chain's next nonce below ours before it counts: a lagging endpoint
has caught up by then."""


def guard_refusal(
    guard: str,
    measured: str,
    limit: str,
    message: str,
    remedy: str = "",
    kind: type[Refused] = Refused,
) -> Refused:
    """Return a refusal with one verdict."""
    return kind(message, (Verdict(guard, measured, limit, False),), remedy)


@dataclass(slots=True, eq=False)
class Submitter:
    """Submits transactions through the ports. A method that moves an intent writes the move before
    it acts on it.
    """

    journal: Journal
    budgets: BudgetJournal
    signer: Signer
    sender: Sender
    clock: Clock
    settings: SubmissionSettings
    is_paused: Callable[[], bool | None]
    tell: OnEvent = ignore_event
    is_hard: Callable[[], bool] = lambda: False

    # checks
    def require_running(self, grant: Grant | None = None) -> None:
        """Raise Refused unless the kill switch was read and is off, or is at hard and `grant` only
        revokes or cancels (T14).
        """
        paused = self.is_paused()
        if paused is not False and not (
            grant is not None and only_undoes(grant) and self.is_hard()
        ):
            measured = "paused" if paused else "cannot be read"
            raise guard_refusal(
                "kill_switch",
                measured,
                "off",
                f"the kill switch is on ({measured}); nothing is sent",
                "trimtab resume",
            )

    def simulate(self, tx: UnsignedTx, deadline_s: int | None, grant: Grant) -> Simulation:
        """Simulate the exact transaction at the head.

        Raises Refused if it fails, lacks gas, or is past its deadline by chain time. Raises
        NoQuorum if that head may be old or forged (T19), unless `grant` only revokes or cancels.
        """
        simulation = self.sender.simulate(tx, self.signer.address)
        head = simulation.head
        if head.chain_id != tx.chain_id:
            raise OperatorNeeded(
                f"the endpoint is on chain {head.chain_id}, the transaction is for {tx.chain_id}",
                "check [chain] in the config",
                code=ErrorCode.CHAIN,
            )
        require_before_deadline(head.timestamp_s, deadline_s)
        if simulation.height_disagreement and not only_undoes(grant):
            raise NoQuorum(simulation.height_disagreement, REMEDY, code=ErrorCode.LAG)
        if not simulation.ok:
            kind, message = (
                (UnsendableTransaction if simulation.reverted else Refused),
                f"simulated at block {head.number}: {simulation.reason}",
            )
            raise guard_refusal(
                "simulation", simulation.reason, "succeeds at the head", message, kind=kind
            )
        if simulation.gas > tx.gas > 0:
            needs = "the transaction now needs more gas than it carries"
            raise guard_refusal(
                "gas",
                f"{simulation.gas} gas",
                f"{tx.gas} gas",
                needs,
                "plan again",
                UnsendableTransaction,
            )
        return simulation

    # durable writes
    def plan(
        self,
        step_id: str,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        deadline_s: int | None,
        replaces: str | None = None,
    ) -> Intent:
        """Record the intent; with `replaces` it takes that intent's place at its nonce."""
        self.tell(SubmissionEvent("before:planned", None, note))
        intent = self.journal.intend(
            step_id, kind, tx, grant, note, self.clock.now_s(), deadline_s, replaces
        )
        self.tell(SubmissionEvent("after:planned", intent))
        return intent

    def move(
        self,
        intent: Intent,
        to: IntentState,
        note: str = "",
        *,
        tx_hash: str | None = None,
        receipt: Receipt | None = None,
        event: IntentEvent | None = None,
    ) -> Intent:
        """Record a transition, by `event` if one is named."""
        self.tell(SubmissionEvent(f"before:{to.value}", intent, note))
        intent = self.journal.advance(
            intent.id, to, self.clock.now_s(), tx_hash, receipt, note, event
        )
        self.tell(SubmissionEvent(f"after:{to.value}", intent, note))
        return intent

    def drop(self, intent: Intent, why: str) -> Intent:
        """End an intent whose bytes never left this process."""
        return self.move(
            intent, IntentState.CANCELLED, f"never sent: {why}", event=IntentEvent.DROP
        )

    # acts
    def launch(self, intent: Intent, grant: Grant, deadline_s: int | None) -> Intent:
        """Take an intent PLANNED → SIGNED → BROADCAST → sent. Drops it if signing or the last check
        is refused.
        """
        try:
            signed = self.signer.sign(intent.tx, grant)
        except TrimtabError as error:
            self.drop(intent, error.message)
            raise
        intent = self.move(intent, IntentState.SIGNED, tx_hash=signed.hash)
        try:
            self.require_running(grant)
            require_before_deadline(self.sender.head().timestamp_s, deadline_s)
        except TrimtabError as error:
            self.drop(intent, error.message)
            raise
        return self.send(intent, signed)

    def send(self, intent: Intent, signed: SignedTx) -> Intent:
        """Send the bytes after BROADCAST is on disk. A send with unknown result is left for `look`
        to resolve.
        """
        intent = self.move(intent, IntentState.BROADCAST, "sent", event=IntentEvent.SEND)
        self.tell(SubmissionEvent("before:send", intent))
        try:
            self.sender.send(signed)
        except Retryable as error:
            self.tell(SubmissionEvent("fate-unknown", intent, error.message))
        self.tell(SubmissionEvent("after:send", intent))
        return intent

    def sign_again(self, intent: Intent, now_s: int) -> SignedTx:
        """Return the same bytes as before. Raises Refused if the rules forbid it by now, or the
        signer returns other bytes.
        """
        signed = self.signer.sign(intent.tx, replace(self.journal.grant(intent.id), now_s=now_s))
        if signed.hash != intent.tx_hash:
            raise guard_refusal(
                "hash",
                signed.hash,
                str(intent.tx_hash),
                "the signer does not repeat its signature; the old bytes are lost",
            )
        return signed

    # waiting
    def await_mined(
        self, nonce: int, meanwhile: Callable[[float], None] = lambda _waited_s: None
    ) -> Intent | None:
        """Wait for the first transaction of the agent at `nonce` in a block, move it to MINED and
        return it; None after the timeout. Retries network errors until the timeout. `meanwhile` is
        called after each poll without a result, with the seconds waited so far. Raises Retryable at
        once if an earlier transaction lost its block: it must be resolved first.
        """
        waited, trouble, behind = 0.0, None, 0
        while True:
            try:
                found = self.find_mined(nonce)
                behind = (
                    behind + 1
                    if found is None and self.sender.nonces(self.signer.address)[0] < nonce
                    else 0
                )
                trouble = None
            except Retryable as error:
                found, trouble = None, error
            if found is not None:
                return found
            if behind >= _SURE:
                raise Retryable(
                    f"nonce {nonce} needs an earlier one that a reorg removed from its block",
                    "run the command again: it sends the earlier one first",
                    code=ErrorCode.REORG,
                )
            if waited >= self.settings.mined_timeout_s:
                if trouble is not None:
                    raise trouble
                return None
            meanwhile(waited)
            self.tell(
                SubmissionEvent(
                    "waiting", None, f"nonce {nonce}: waiting {waited:.0f} s to be mined"
                )
            )
            self.clock.sleep(self.settings.poll_s)
            waited += self.settings.poll_s

    def find_mined(self, nonce: int) -> Intent | None:
        """Check once whether a block holds one of the agent's transactions at `nonce`, and move the
        others at it out of MINED.
        """
        flying = self.in_flight(nonce)
        mined = [intent for intent in flying if intent.state is IntentState.MINED]
        for intent in flying:
            if intent.state is IntentState.MINED:
                continue
            seen = self.sender.status_of(str(intent.tx_hash))
            if seen.receipt is not None:
                self._unmine(mined, intent)
                return self.move(intent, IntentState.MINED, receipt=seen.receipt)
        return mined[0] if mined else None

    def _unmine(self, others: Sequence[Intent], by: Intent) -> None:
        for other in others:
            self.move(
                other,
                IntentState.BROADCAST,
                f"{by.tx_hash} is in a block in its place",
                event=IntentEvent.UNMINE,
            )

    def unfinished(self) -> list[Intent]:
        """Return open transactions whose nonce is in no block; those that share a nonce with a
        mined one do not count.
        """
        intents = self.journal.open_intents()
        mined = {intent.tx.nonce for intent in intents if intent.state is IntentState.MINED}
        return [intent for intent in intents if intent.tx.nonce not in mined]

    def in_flight(self, nonce: int) -> list[Intent]:
        """Our transactions at `nonce` whose bytes may have been sent, newest first."""
        return [
            intent
            for intent in reversed(self.journal.intents_at(nonce))
            if intent.state in IN_FLIGHT_STATES
        ]

    def await_final(self, intent: Intent) -> Intent:
        """Wait until the block is deep enough and canonical: FINAL or REVERTED; MINED after the
        timeout; BROADCAST after a reorg removed it.
        """
        waited = 0.0
        while True:
            intent, deep = self._depth(intent)
            if intent.state is not IntentState.MINED:
                return intent
            if deep:
                return self.close(intent)
            if waited >= self.settings.final_timeout_s:
                return intent
            self.tell(
                SubmissionEvent(
                    "confirming",
                    intent,
                    f"waiting {waited:.0f} s for {self.settings.confirmations} confirmations",
                )
            )
            self.clock.sleep(self.settings.poll_s)
            waited += self.settings.poll_s

    def _depth(self, intent: Intent) -> tuple[Intent, bool]:
        """The intent as the canonical chain has it now, and True if it is deep enough."""
        receipt = intent.receipt
        if receipt is None:
            raise OperatorNeeded(
                f"store: transaction {intent.tx_hash} is mined but has no receipt",
                "restore a backup of the store",
                code=ErrorCode.RECEIPT,
            )
        try:
            height = self.sender.head().number
            if self.sender.block_hash(receipt.block_number) == receipt.block_hash:
                return intent, height - receipt.block_number + 1 >= self.settings.confirmations
            seen = self.sender.status_of(receipt.tx_hash)
        except Retryable as error:
            self.tell(SubmissionEvent("confirming", intent, error.message))
            return intent, False
        if seen.receipt == receipt:  # an endpoint that lags does not know the block yet
            return intent, False
        if seen.receipt is not None:
            return (
                self.move(
                    intent, IntentState.MINED, "moved to another block", receipt=seen.receipt
                ),
                False,
            )
        return (
            self.move(
                intent,
                IntentState.BROADCAST,
                "its block is not in the chain any more",
                event=IntentEvent.UNMINE,
            ),
            False,
        )

    def close(self, winner: Intent) -> Intent:
        """End `winner`, then everything else at its nonce."""
        if winner.state is IntentState.MINED:
            succeeded = winner.receipt is not None and winner.receipt.status == 1
            winner = self.move(winner, IntentState.FINAL if succeeded else IntentState.REVERTED)
        self._unmine(
            [
                one
                for one in self.journal.intents_at(winner.tx.nonce)
                if one.state is IntentState.MINED
            ],
            winner,
        )
        for other in self.journal.intents_at(winner.tx.nonce):
            if other.id == winner.id:
                continue
            if other.state in (IntentState.PLANNED, IntentState.SIGNED):
                self.drop(other, f"{winner.tx_hash} took the nonce")
            elif other.state is IntentState.BROADCAST:
                cancelled = winner.kind is IntentKind.CANCEL
                self.move(
                    other,
                    IntentState.CANCELLED if cancelled else IntentState.REPLACED,
                    f"{winner.tx_hash} took the nonce",
                )
        return winner


def only_undoes(grant: Grant) -> bool:
    """True if a transaction can only undo: a cancel, or an allowance set to zero."""
    return grant.kind is IntentKind.CANCEL or (
        grant.kind is IntentKind.APPROVE and grant.approve is not None and grant.approve[2] == 0
    )


def require_before_deadline(now_s: int, deadline_s: int | None) -> None:
    """Raise Refused once chain time has reached the deadline: the next block would be too late."""
    if deadline_s is not None and now_s >= deadline_s:
        raise guard_refusal(
            "deadline",
            f"chain time {now_s}",
            f"before {deadline_s}",
            "the transaction's deadline is over",
            "plan again",
        )


# --- Totals of a step so far: gas and open allowances.


def gas_spent_wei(sent: Sequence[Intent]) -> int:
    """Gas money of all mined transactions, wei."""
    return sum(intent.receipt.gas_cost_wei for intent in sent if intent.receipt is not None)


def format_open_allowances(allowed: Sequence[Approval]) -> str:
    """Describe the open allowances by spender."""
    labels: dict[str, list[str]] = {}
    for approval in allowed:
        labels.setdefault(approval.holder, []).append(approval.label)
    return " and ".join(
        f"the {holder} can still spend {', '.join(tokens)}" for holder, tokens in labels.items()
    )


# --- Nonces that the signer may use: from the journal, never from the transaction.


_OUT = (IntentState.SIGNED, IntentState.BROADCAST)


def signable_nonces(journal: Journal) -> dict[int, int | None]:
    """Return the next nonce and those of signed, unmined transactions, each with the highest tip
    signed there. A planned intent does not count: its nonce is unverified. Empty while the journal
    knows no nonce.
    """
    expected = journal.expected_nonce()
    found: dict[int, int | None] = {} if expected is None else {expected: None}
    for intent in journal.open_intents():
        if intent.state in _OUT:
            found[intent.tx.nonce] = max(
                found.get(intent.tx.nonce) or 0, intent.tx.max_priority_fee_wei or 0
            )
    return found
