"""Ports to act through: grants, composers, executors, signers, senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from agent.model import (
    Head,
    Intent,
    IntentKind,
    LpAction,
    Payout,
    Plan,
    Receipt,
    SignedTx,
    StepInput,
    UnsignedTx,
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission of the signer for one intent: the judged plan, the floor of each leg, and its
    validity. The signer decodes the transaction itself and compares it with the grant; it trusts no
    field of the transaction.

    `floors_raw` are the least outputs by reference price, one per leg of `plan`, computed apart
    from the plan. `approve` is (token, spender, raw) of an approval. `now_s` is chain time,
    `deadline_s` the chain time until which a swap is valid. `prices` are reference prices by token,
    numeraire base units per base unit. `value_floor_raw` is the least change of the wallet's value
    in numeraire base units; both are conditions of a Rebalancer. For an intent of kind LIQUIDITY,
    `action` is set and `floors_raw` are its least amounts of (token0, token1). `oracle` is (pool,
    number of observations). `payout` belongs to an intent of kind PAYOUT.
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
    """Transaction ready for the executor, with its grant; `note` describes it."""

    tx: UnsignedTx
    grant: Grant
    note: str


@dataclass(frozen=True, slots=True)
class Approval:
    """Allowance of `spender` over `token`, base units.

    `action` is its purpose if not a swap. `label` and `holder` name token and spender.
    """

    token: str
    spender: str
    raw: int
    label: str
    holder: str
    action: LpAction | None = None


class Composer(Protocol):
    """Builder of transactions for plans, at the chain's next nonce. Raises Refused if a simulation
    fails.
    """

    def approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        """Return the approvals that the plan or its first action lacks, in order; a reset to zero
        is a separate approval.
        """

    def approve(self, step: StepInput, approval: Approval) -> PreparedTransaction:
        """Return the transaction of one approval."""

    def liquidity(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """Return the plan's first liquidity action as a transaction."""

    def swap(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """Return the whole plan as one transaction."""

    def require_fresh(self, step: StepInput, plan: Plan) -> None:
        """Raise Refused if the plan has expired; late answers confirm nothing."""

    def oracle(self, step: StepInput, pool: str, slots: int) -> PreparedTransaction:
        """Return a transaction that raises a V3 pool's number of price observations."""

    def payout(self, step: StepInput, payout: Payout) -> PreparedTransaction:
        """Return a payment to a confirmed payout address."""

    def open_approvals(self, step: StepInput) -> Sequence[Approval]:
        """Return approvals that reset leftover allowances to zero, with or without a plan."""


class Executor(Protocol):
    """Sender of transactions through the journal."""

    def reconcile(self, *, may_send: bool = True) -> Sequence[Intent]:
        """Resolve every open intent, and those reopened by a reorg; sends nothing without
        `may_send`.
        """

    def run(
        self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str
    ) -> Intent:
        """Carry one transaction from PLANNED to its end."""

    def cancel_pending(self, why: str) -> Sequence[Intent]:
        """Cancel all pending transactions, for a kill switch at hard."""

    def resync_nonce(self) -> int:
        """Adopt the chain's present nonce on the operator's command; return it."""

    def ready(self, *, for_revoking: bool = False) -> bool:
        """True if a transaction may be sent now: the kill switch is read and off, and no
        transaction is open. With `for_revoking` also true while the switch is at hard, to reset
        allowances.
        """


class SigningKey(Protocol):
    """A private key, local or in a remote service. It checks nothing: callers must put a Signer
    before it.

    Signatures need not be deterministic. A transaction is identified by its hash, which is stored
    before the bytes leave. Lost bytes are abandoned if never sent, and else cancelled at their
    nonce. An adapter implements only `address` and `sign_transaction`.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Return signed bytes of exactly these fields, and their hash.

        Raises Retryable if the key is unreachable (nothing was sent); OperatorNeeded if it cannot
        sign this or the signature is not by `address`.
        """


class Signer(Protocol):
    """Signer with a local or remote key; signs only what its rules allow."""

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Return signed bytes, deterministic with a local key (RFC 6979); for remote keys see
        SigningKey. Raises Refused naming the failed rule.
        """


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """Mined transaction at a proposal's nonce; `same` is true if it matches the proposal."""

    tx_hash: str
    block: int
    same: bool


class ExternalSigner(Protocol):
    """External signer that is shown a transaction: the owner of a wallet, or owners of a Safe.

    Holds no key.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the wallet or Safe."""

    def require(self, tx: UnsignedTx, grant: Grant) -> None:
        """Raise Refused, by the rules of a Signer, if the transaction must not be shown."""

    def shown(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """Return the JSON to sign; deterministic."""

    def carried(self, tx: UnsignedTx, since_block: int) -> MinedTransaction | None:
        """Return the transaction mined at the nonce of `tx` since a block; None if there is none.

        Raises Retryable if unknown.
        """


class Outbox(Protocol):
    """Storage of proposals for external signers."""

    def put(self, name: str, text: str) -> str:
        """Write a proposal unless it exists; return its location. Raises OperatorNeeded if it
        cannot be written.
        """

    def remove_proposal(self, name: str) -> None:
        """Remove a proposal; do nothing if there is none."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of `eth_call` and `eth_estimateGas` of the exact transaction at the head.

    `reverted` is true if contracts refused it, agreed by enough operators; fee, funds and endpoint
    errors do not count. `height_disagreement` is why that head may be old or false, "" if endpoints
    agree; otherwise no trade is signed.
    """

    ok: bool
    reason: str
    gas: int
    head: Head
    reverted: bool = False
    height_disagreement: str = ""


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """State of a transaction hash: "unknown", "pending", or "mined" with its receipt."""

    state: str
    receipt: Receipt | None


@runtime_checkable
class ConflictingTransactionFinder(Protocol):
    """A Sender that can also find the transaction at a nonce of the wallet; used in messages to the
    operator, never in decisions.
    """

    def conflicting_tx(self, owner: str, nonce: int) -> str | None:
        """Return the hash of `owner`'s transaction with `nonce`, mined or pending; None if
        unknown.
        """


class Sender(Protocol):
    """Access to the chain for transactions. Never retries sending."""

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """Simulate the transaction at the head."""

    def send(self, signed: SignedTx) -> None:
        """Send the signed bytes to the node.

        "already known" is success. Raises Retryable if the outcome is unknown.
        """

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """Return the present status of the hash."""

    def nonces(self, owner: str) -> tuple[int, int]:
        """Return the next nonce as (latest, pending)."""

    def head(self) -> Head:
        """Return the newest block's header."""

    def block_hash(self, number: int) -> str | None:
        """Return the canonical block's hash at a height; None if there is none."""
