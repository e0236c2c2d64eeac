"""What the engine asks of the world: readers, signers, senders, clocks, journals. Adapters are named in `wiring` only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from agent.model import (
    Books,
    Evidence,
    Flow,
    Head,
    History,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    LpAction,
    Plan,
    Receipt,
    SignedTx,
    Snapshot,
    StepInput,
    UnsignedTx,
)


class Clock(Protocol):
    """Wall clock of the agent; a replay hands in its own."""

    def now_s(self) -> int:
        """Unix seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits, or moves a simulated clock."""
        ...


class Reader(Protocol):
    """Reads the chain at one block."""

    def snapshot(self) -> Snapshot:
        """Everything a step needs, agreed by the configured quorum. Raises Retryable, Refused, OperatorNeeded."""
        ...


@dataclass(frozen=True, slots=True)
class Grant:
    """What the signer may sign for one intent: the plan that was judged, the floor of each leg, and how long.

    The signer decodes the transaction by itself and compares it with the grant; it trusts no field of the transaction.
    `floors_raw` are the least outputs by reference price, one per leg of `plan` (design section 6), computed apart from
    the plan. `approve` is (token, spender, raw) for an approval. `now_s` is chain time, and `deadline_s` the
    chain time until which a swap may stay valid. `prices` are reference prices by token, numeraire base units per base
    unit, and `value_floor_raw` the least change of the wallet's value in numeraire base units: conditions of a Rebalancer.
    `action` is what an intent of kind LIQUIDITY does, `floors_raw` then its least amounts of (token0, token1).
    """

    kind: IntentKind
    now_s: int
    deadline_s: int
    max_gas_wei: int
    plan: Plan | None = None
    floors_raw: tuple[int, ...] = ()
    approve: tuple[str, str, int] | None = None
    prices: tuple[tuple[str, Fraction], ...] = ()
    value_floor_raw: int | None = None
    action: LpAction | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction ready for the executor, with what the signer may sign for it; `note` says in words what it does."""

    tx: UnsignedTx
    grant: Grant
    note: str


@dataclass(frozen=True, slots=True)
class Approval:
    """What `spender` may take of `token`, base units; `action` is what it is for where that is no swap.

    `label` and `holder` say in words which token and whose right.
    """

    token: str
    spender: str
    raw: int
    label: str
    holder: str
    action: LpAction | None = None


class Composer(Protocol):
    """Turns plans into transactions at the chain's next nonce. Raises Refused when the simulation of one fails."""

    def approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        """Approvals that the plan, of actions the first one, lacks, in order; a reset to zero is one of its own."""
        ...

    def approve(self, step: StepInput, approval: Approval) -> Prepared:
        """One approval."""
        ...

    def liquidity(self, step: StepInput, plan: Plan) -> Prepared:
        """The plan's first action with liquidity as a transaction of its own."""
        ...

    def swap(self, step: StepInput, plan: Plan) -> Prepared:
        """The whole plan as one transaction."""
        ...

    def require_fresh(self, step: StepInput, plan: Plan) -> None:
        """Raises Refused once the plan has expired: an answer that came late confirms nothing."""
        ...

    def left_over(self, step: StepInput) -> Sequence[Approval]:
        """Approvals to zero of what may still be taken, though nothing is planned."""
        ...


class Executor(Protocol):
    """Sends transactions through the journal."""

    def reconcile(self) -> Sequence[Intent]:
        """Resolves every open intent."""
        ...

    def run(self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Carries one transaction from PLANNED to its end."""
        ...

    def abandon(self, why: str) -> Sequence[Intent]:
        """Takes back everything that is in no block; for a kill switch at hard."""
        ...

    def adopt(self) -> int:
        """Takes the chain's present nonce for ours, because the operator says so; returns it."""
        ...

    def ready(self, *, taking_back: bool = False) -> bool:
        """Whether anything may be sent now: the kill switch was read and is off, and no transaction is unfinished.

        `taking_back`: the same where the switch stands at hard, for what sets allowances to zero.
        """
        ...


class Signer(Protocol):
    """Holds a key, or reaches one. Signs only what its table of rules allows."""

    @property
    def address(self) -> str:
        """Checksummed address of the key."""
        ...

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Signed bytes, the same for the same transaction (RFC 6979). Raises Refused naming the rule that says no."""
        ...


@dataclass(frozen=True, slots=True)
class Simulation:
    """What `eth_call` and `eth_estimateGas` of the exact transaction at the head say."""

    ok: bool
    reason: str
    gas: int
    head: Head


@dataclass(frozen=True, slots=True)
class TxSeen:
    """Where a transaction hash stands: "unknown", "pending" or "mined" (then with its receipt)."""

    state: str
    receipt: Receipt | None


class Sender(Protocol):
    """Talks to the chain about transactions. Sending is never retried here."""

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """Runs the transaction at the head without sending it."""
        ...

    def send(self, signed: SignedTx) -> None:
        """Hands the signed bytes to the node. "already known" is success. Raises Retryable when the fate is unknown."""
        ...

    def look(self, tx_hash: str) -> TxSeen:
        """Where the hash stands now."""
        ...

    def nonces(self, owner: str) -> tuple[int, int]:
        """Next nonce by (latest, pending)."""
        ...

    def head(self) -> Head:
        """The newest block's header."""
        ...

    def block_hash(self, number: int) -> str | None:
        """Hash of the canonical block at that height; None when there is none."""
        ...


class EvidenceSource(Protocol):
    """Gathers what guards need beyond the snapshot."""

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """Second quotes, kill switch, pins, quorum."""
        ...


class Journal(Protocol):
    """The write-ahead journal: every method that changes something has committed to disk before it returns."""

    def begin_step(self, step_id: str, now_s: int, input_json: str) -> None:
        """Records what a step decides from."""
        ...

    def end_step(self, step_id: str, decision: str, reason: str, plan_json: str | None, outcome: str) -> None:
        """Records what it decided and what came of it."""
        ...

    def step_input(self, step_id: str) -> str | None:
        """What a step decided from, as JSON; None for a step that was not begun."""
        ...

    def mark_review(self, chain_s: int) -> None:
        """Remembers when a schedule last reviewed the portfolio."""
        ...

    def intend(
        self,
        step_id: str,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        now_s: int,
        deadline_s: int | None,
        replaces: str | None = None,
    ) -> Intent:
        """New intent in state PLANNED, with the grant that a restart needs to sign the same bytes again.

        `deadline_s` is the chain time after which it must not be sent any more (None: it does not expire). `replaces` is the
        newest open intent at that nonce, whose bytes are out: this one pays more for the same, or cancels it.
        Raises OperatorNeeded when the nonce already carries an open intent that it may not replace.
        """
        ...

    def grant(self, intent_id: str) -> Grant:
        """The grant an intent was written down with."""
        ...

    def advance(
        self,
        intent_id: str,
        to: IntentState,
        now_s: int,
        tx_hash: str | None = None,
        receipt: Receipt | None = None,
        note: str = "",
        event: IntentEvent | None = None,
    ) -> Intent:
        """Moves an intent along the transition table, by `event` where it is named. Raises ValueError on what the table forbids."""
        ...

    def open_intents(self) -> Sequence[Intent]:
        """Intents that are not at an end, oldest first."""
        ...

    def intents_at(self, nonce: int) -> Sequence[Intent]:
        """Every intent of that nonce, ended ones too, oldest first."""
        ...

    def ended_in_block(self, limit: int) -> Sequence[Intent]:
        """The newest intents that ended final or reverted since the operator last adopted a nonce, newest first."""
        ...

    def unbooked(self) -> Sequence[Intent]:
        """Intents with a receipt that no budget knows yet, oldest first."""
        ...

    def expected_nonce(self) -> int | None:
        """The chain's next nonce as far as this journal knows; None before a nonce was adopted."""
        ...

    def adopt_nonce(self, nonce: int, now_s: int) -> None:
        """Takes `nonce` for the chain's next one: on first use, or because the operator says so."""
        ...

    def history(self, chain_now_s: int) -> History:
        """Sums over the last 24 h of chain time."""
        ...

    def book(self, intent: Intent, turnover: Fraction, loss: Fraction, gas_wei: int, chain_s: int) -> None:
        """Adds a finished intent to the loss, turnover and gas budgets; a second call for the same intent changes nothing."""
        ...

    def books(self) -> Books:
        """What balances should be, and flows of the last day or still open."""
        ...

    def note_balances(self, snapshot: Snapshot, found: Mapping[str, int], flows: Sequence[Flow], turn: int) -> bool:
        """Writes unexplained flows down, and the balances `found` as those to go on from; False when the books of `turn` have
        been turned since, and then nothing was written.
        """
        ...
