"""Ports to act through: grants, composers, executors, signers, senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from agent.model import Head, Intent, IntentKind, LpAction, Payout, Plan, Receipt, SignedTx, StepInput, UnsignedTx


@dataclass(frozen=True, slots=True)
class Grant:
    """The signer's permission for one intent: the judged plan, the floor of each leg, and its validity.

    The signer decodes the transaction by itself and compares it with the grant; it trusts no field of the transaction. `floors_raw`
    are the least outputs by reference price, one per leg of `plan` (design section 6), computed apart from the plan. `approve` is
    (token, spender, raw) for an approval. `now_s` is chain time, and `deadline_s` the chain time until which a swap may stay valid.
    `prices` are reference prices by token, numeraire base units per base unit, and `value_floor_raw` the least change of the
    wallet's value in numeraire base units: conditions of a Rebalancer. `action` belongs to an intent of kind LIQUIDITY,
    `floors_raw` then its least amounts of (token0, token1). `oracle` is (pool, number of observations). `payout` belongs to an
    intent of kind PAYOUT.
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
    oracle: tuple[str, int] | None = None
    payout: Payout | None = None


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A transaction ready for the executor, with its grant; `note` describes it."""

    tx: UnsignedTx
    grant: Grant
    note: str


@dataclass(frozen=True, slots=True)
class Approval:
    """Allowance of `spender` over `token`, base units; `action` is its purpose if that is not a swap.

    `label` and `holder` name the token and the spender.
    """

    token: str
    spender: str
    raw: int
    label: str
    holder: str
    action: LpAction | None = None


class Composer(Protocol):
    """Builder of transactions for plans, at the chain's next nonce. Raises Refused if a simulation fails."""

    def approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        """Return the approvals that the plan, or its first action, lacks, in order; a reset to zero is an approval of its own."""

    def approve(self, step: StepInput, approval: Approval) -> PreparedTransaction:
        """One approval."""

    def liquidity(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """The plan's first action with liquidity as a transaction of its own."""

    def swap(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """The whole plan as one transaction."""

    def require_fresh(self, step: StepInput, plan: Plan) -> None:
        """Raise Refused once the plan has expired: a late answer confirms nothing."""

    def oracle(self, step: StepInput, pool: str, slots: int) -> PreparedTransaction:
        """Return a transaction that raises a V3 pool's number of price observations."""

    def payout(self, step: StepInput, payout: Payout) -> PreparedTransaction:
        """A payment to a confirmed payout address."""

    def open_approvals(self, step: StepInput) -> Sequence[Approval]:
        """Approvals to zero of what may still be taken, though nothing is planned."""


class Executor(Protocol):
    """Sender of transactions through the journal."""

    def reconcile(self, *, may_send: bool = True) -> Sequence[Intent]:
        """Resolve every open intent, and those that a reorg reopened; without `may_send` nothing is sent."""

    def run(self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Carries one transaction from PLANNED to its end."""

    def cancel_pending(self, why: str) -> Sequence[Intent]:
        """Cancel all pending transactions; for a kill switch at hard."""

    def resync_nonce(self) -> int:
        """Adopt the chain's present nonce, on the operator's command; return it."""

    def ready(self, *, for_revoking: bool = False) -> bool:
        """True if a transaction may be sent now: the kill switch was read and is off, and no transaction is unfinished.

        With `for_revoking` it is also true while the switch is at hard, to set allowances to zero.
        """


class SigningKey(Protocol):
    """A private key, here or in a remote service. It judges nothing: its owner must put a Signer before it.

    It may give different bytes for the same transaction. A signed transaction is identified by its hash, which is on disk before
    the bytes leave; lost bytes are given up if they never left, and cancelled at their nonce if they did. An adapter needs no more
    than `address` and `sign_transaction`.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Return signed bytes of exactly these fields, and their hash.

        Raises Retryable if the key cannot be reached now (nothing was sent then), OperatorNeeded if it cannot sign this, or the
        signature is not by `address`.
        """


class Signer(Protocol):
    """Signer with a local or remote key. It signs only what its table of rules allows."""

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Return signed bytes: the same for the same transaction (RFC 6979) with a key in this process, for others see SigningKey.

        Raises Refused naming the rule that failed.
        """


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A mined transaction at a proposal's nonce; `same` is true if it matches the proposal."""

    tx_hash: str
    block: int
    same: bool


class ExternalSigner(Protocol):
    """An external signer who is shown a transaction: the owner of a wallet, or the owners of a Safe. Holds no key."""

    @property
    def address(self) -> str:
        """Checksummed address of the wallet or Safe."""

    def require(self, tx: UnsignedTx, grant: Grant) -> None:
        """Raise Refused, by the rules of a Signer, if this must not even be shown."""

    def shown(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """Return what the signer signs, as JSON; the same for the same transaction."""

    def carried(self, tx: UnsignedTx, since_block: int) -> MinedTransaction | None:
        """Return the transaction mined at the nonce of `tx` since that block; None if there is none. Raises Retryable if it is unknown."""


class Outbox(Protocol):
    """Storage of proposals for external signers."""

    def put(self, name: str, text: str) -> str:
        """Write a proposal unless it exists; return its location. Raises OperatorNeeded if it cannot be written."""

    def remove_proposal(self, name: str) -> None:
        """Remove a proposal; do nothing if there is none."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of `eth_call` and `eth_estimateGas` of the exact transaction at the head.

    `reverted` is true if contracts refused it, agreed by enough operators; not for its fee, the wallet's funds, or the endpoints.
    `height_disagreement` is why that head may be old or made up: then no trade is signed. It is "" if endpoints are level.
    """

    ok: bool
    reason: str
    gas: int
    head: Head
    reverted: bool = False
    height_disagreement: str = ""


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """State of a transaction hash: "unknown", "pending" or "mined" (with its receipt)."""

    state: str
    receipt: Receipt | None


@runtime_checkable
class ConflictingTransactionFinder(Protocol):
    """A Sender that can also find the transaction at a nonce of the wallet: for messages to the operator, never for decisions."""

    def conflicting_tx(self, owner: str, nonce: int) -> str | None:
        """Return the hash of the transaction of `owner` with `nonce`, in a block or pending; None if it is unknown."""


class Sender(Protocol):
    """Access to the chain for transactions. Sending is never retried here."""

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """Simulate the transaction at the head without sending it."""

    def send(self, signed: SignedTx) -> None:
        """Send the signed bytes to the node. "already known" is success. Raises Retryable if the fate is unknown."""

    def look(self, tx_hash: str) -> TransactionStatus:
        """Return the present status of the hash."""

    def nonces(self, owner: str) -> tuple[int, int]:
        """Next nonce by (latest, pending)."""

    def head(self) -> Head:
        """The newest block's header."""

    def block_hash(self, number: int) -> str | None:
        """Hash of the canonical block at that height; None if there is none."""
