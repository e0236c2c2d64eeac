"""What the engine acts with: grants, composers, executors, signers, senders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from agent.model import Head, Intent, IntentKind, LpAction, Payout, Plan, Receipt, SignedTx, StepInput, UnsignedTx


@dataclass(frozen=True, slots=True)
class Grant:
    """What the signer may sign for one intent: the plan that was judged, the floor of each leg, and how long.

    The signer decodes the transaction by itself and compares it with the grant; it trusts no field of the transaction.
    `floors_raw` are the least outputs by reference price, one per leg of `plan` (design section 6), computed apart from
    the plan. `approve` is (token, spender, raw) for an approval. `now_s` is chain time, and `deadline_s` the
    chain time until which a swap may stay valid. `prices` are reference prices by token, numeraire base units per base
    unit, and `value_floor_raw` the least change of the wallet's value in numeraire base units: conditions of a Rebalancer.
    `action` is what an intent of kind LIQUIDITY does, `floors_raw` then its least amounts of (token0, token1).
    `oracle` is (pool, observations) that a V3 pool is to keep. `payout` is what an intent of kind PAYOUT pays.
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

    def approve(self, step: StepInput, approval: Approval) -> PreparedTransaction:
        """One approval."""
        ...

    def liquidity(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """The plan's first action with liquidity as a transaction of its own."""
        ...

    def swap(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """The whole plan as one transaction."""
        ...

    def require_fresh(self, step: StepInput, plan: Plan) -> None:
        """Raises Refused once the plan has expired: an answer that came late confirms nothing."""
        ...

    def oracle(self, step: StepInput, pool: str, slots: int) -> PreparedTransaction:
        """Lets a V3 pool keep so many price observations."""
        ...

    def payout(self, step: StepInput, payout: Payout) -> PreparedTransaction:
        """A payment to a confirmed payout address."""
        ...

    def open_approvals(self, step: StepInput) -> Sequence[Approval]:
        """Approvals to zero of what may still be taken, though nothing is planned."""
        ...


class Executor(Protocol):
    """Sends transactions through the journal."""

    def reconcile(self, *, may_send: bool = True) -> Sequence[Intent]:
        """Resolves every open intent, and what a reorganisation opened again; without `may_send` it only looks."""
        ...

    def run(self, step_id: str, kind: IntentKind, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Carries one transaction from PLANNED to its end."""
        ...

    def cancel_pending(self, why: str) -> Sequence[Intent]:
        """Takes back everything that is in no block; for a kill switch at hard."""
        ...

    def resync_nonce(self) -> int:
        """Takes the chain's present nonce for ours, because the operator says so; returns it."""
        ...

    def ready(self, *, for_revoking: bool = False) -> bool:
        """Whether anything may be sent now: the kill switch was read and is off, and no transaction is unfinished.

        `taking_back`: the same where the switch stands at hard, for what sets allowances to zero.
        """
        ...


class SigningKey(Protocol):
    """A private key, here or in a service elsewhere. It judges nothing: whoever holds one puts a Signer before it.

    Asked for the same transaction it may give other bytes than before. What was signed is known by its hash, which is on disk
    before the bytes leave; bytes that are lost and do not come back are given up when they never left, and cancelled at their
    nonce when they did. Nothing has to be built for that: an adapter gives `address` and `sign_transaction`.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the key."""
        ...

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Signed bytes of exactly these fields, and their hash. Raises Retryable when the key cannot be reached now (nothing was
        sent then), OperatorNeeded when it cannot sign this, or what comes back is not a signature of `address`.
        """
        ...


class Signer(Protocol):
    """Holds a key, or reaches one. Signs only what its table of rules allows."""

    @property
    def address(self) -> str:
        """Checksummed address of the key."""
        ...

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Signed bytes: of a key in this process the same for the same transaction (RFC 6979), of others see SigningKey.

        Raises Refused naming the rule that says no.
        """
        ...


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A mined transaction at a proposal's nonce; `same` says whether it does what was proposed."""

    tx_hash: str
    block: int
    same: bool


class ExternalSigner(Protocol):
    """Somebody who signs elsewhere what is shown to him: the owner of a wallet, or the owners of a Safe. Holds no key."""

    @property
    def address(self) -> str:
        """Checksummed address of the wallet or Safe."""
        ...

    def require(self, tx: UnsignedTx, grant: Grant) -> None:
        """Raises Refused, by the rules of a Signer, when this may not even be shown."""
        ...

    def shown(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """What he signs, as JSON; the same for the same transaction."""
        ...

    def carried(self, tx: UnsignedTx, since_block: int) -> MinedTransaction | None:
        """What was mined at the nonce of `tx` since that block; None when nothing was. Raises Retryable when nobody can tell."""
        ...


class Outbox(Protocol):
    """Where proposals lie for those who sign."""

    def put(self, name: str, text: str) -> str:
        """Writes a proposal, or leaves it as it is when it is there; says where. Raises OperatorNeeded when it cannot."""
        ...

    def remove_proposal(self, name: str) -> None:
        """Removes a proposal; nothing happens when it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class Simulation:
    """What `eth_call` and `eth_estimateGas` of the exact transaction at the head say.

    `reverted` says that contracts refused it, by the word of enough operators; not its fee, the wallet's coins, or the endpoints.
    `uneven` says why that head may be old or made up: nothing that trades is signed then. "" where endpoints are level.
    """

    ok: bool
    reason: str
    gas: int
    head: Head
    reverted: bool = False
    height_disagreement: str = ""


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """Where a transaction hash stands: "unknown", "pending" or "mined" (then with its receipt)."""

    state: str
    receipt: Receipt | None


@runtime_checkable
class ConflictingTransactionFinder(Protocol):
    """A Sender that can also name what has a nonce of ours: for messages to a person, nothing is decided by it."""

    def conflicting_tx(self, owner: str, nonce: int) -> str | None:
        """Hash of the transaction of `owner` with `nonce`, in a block or pending; None where nobody can tell."""
        ...


class Sender(Protocol):
    """Talks to the chain about transactions. Sending is never retried here."""

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """Runs the transaction at the head without sending it."""
        ...

    def send(self, signed: SignedTx) -> None:
        """Hands the signed bytes to the node. "already known" is success. Raises Retryable when the fate is unknown."""
        ...

    def look(self, tx_hash: str) -> TransactionStatus:
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
