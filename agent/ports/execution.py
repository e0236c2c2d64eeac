"""Ports for transactions: grants, composers, executors, signers, senders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol, runtime_checkable

from agent.model import (
    Head,
    Intent,
    IntentKind,
    LayerAction,
    LayerGrant,
    Payout,
    Plan,
    Receipt,
    SignedTx,
    StepInput,
    UnsignedTx,
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission to sign one intent: the judged plan, minimum amounts, and period of validity. The
    signer decodes the transaction and compares every field with the grant.

    `floors_raw` are minimum outputs by reference price, one per leg of `plan`, computed
    independently of the plan. `approval_terms` is (token, spender, raw) of an approval. `now_s` is
    chain time, `deadline_s` the chain time after which the transaction must not be sent, which is
    also in the calldata of a swap and of most actions on liquidity. `prices` are reference
    prices by token, numeraire base units per base unit. `min_value_change_raw` is the minimum
    change of the wallet's value in numeraire base units; the Rebalancer contract enforces it at
    these prices. For an intent of kind LIQUIDITY, `layer_action` is set and `floors_raw` are
    its minimum amounts of (token0, token1). `oracle_growth` is (pool, number of observations),
    `init_code_hash` that of the creation code that is deployed. `payout` belongs to an intent of
    kind PAYOUT, `layer_grant` to one in a layer, to the approval that it needs, and to the cancel
    of an emergency. `max_data_fee_wei` is the most that the transaction may pay beyond its gas on a
    rollup (None: not bounded).
    """

    kind: IntentKind
    now_s: int
    deadline_s: int
    max_gas_wei: int
    plan: Plan | None = None
    floors_raw: tuple[int, ...] = ()
    approval_terms: tuple[str, str, int] | None = None
    prices: tuple[tuple[str, Fraction], ...] = ()
    min_value_change_raw: int | None = None
    layer_action: LayerAction | None = None
    oracle_growth: tuple[str, int] | None = None
    payout: Payout | None = None
    layer_grant: LayerGrant | None = None
    max_data_fee_wei: int | None = None
    init_code_hash: str | None = None

    def as_cancel_of(self, cancelled_grant: Grant) -> Grant:
        """Return this grant of a cancel with what lets it outbid an emergency."""
        return (
            replace(self, layer_grant=cancelled_grant.layer_grant)
            if cancelled_grant.is_emergency
            else self
        )

    @property
    def is_emergency(self) -> bool:
        """True for a transaction that may pay the fees of an emergency, and for its cancel."""
        return self.layer_grant is not None and self.layer_grant.is_emergency


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """Transaction for the executor, with its grant and a description `note`. `companions` are
    further orders of the plan, which an executor of orders may send in the same action.
    """

    tx: UnsignedTx
    grant: Grant
    note: str
    companions: tuple[PreparedTransaction, ...] = ()


@dataclass(frozen=True, slots=True)
class Approval:
    """Approval of `raw` base units of `token` for `spender`.

    `layer_action` is the liquidity action that needs it, `layer_grant` the action in a layer
    (both None: a swap). `token_label` and `spender_role` are the display names of token and
    spender.
    """

    token: str
    spender: str
    raw: int
    token_label: str
    spender_role: str
    layer_action: LayerAction | None = None
    layer_grant: LayerGrant | None = None


class Composer(Protocol):
    """Builder of transactions at the chain's next nonce. Raises Refused if a simulation fails."""

    def missing_approvals(self, step: StepInput, plan: Plan) -> Sequence[Approval]:
        """Return the missing approvals of the plan or of its first action, in order; a reset to
        zero is a separate approval.
        """

    def approval_transaction(self, step: StepInput, approval: Approval) -> PreparedTransaction:
        """Return the approval as a transaction."""

    def layer_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """Return the plan's first action in a layer as a transaction."""

    def joins_approvals(self, plan: Plan, approvals: Sequence[Approval]) -> bool:
        """True if the transaction of the swaps makes these missing approvals itself."""

    def swap_transaction(self, step: StepInput, plan: Plan) -> PreparedTransaction:
        """Return the whole plan as one transaction, with the missing approvals that it joins."""

    def require_unexpired(self, step: StepInput, plan: Plan) -> None:
        """Raise Refused if the plan has expired."""

    def oracle_transaction(
        self, step: StepInput, pool: str, observation_count: int
    ) -> PreparedTransaction:
        """Return a transaction that increases the number of observation slots of a V3 pool."""

    def deployment_transaction(self, step: StepInput) -> PreparedTransaction:
        """Return the transaction that deploys our Rebalancer."""

    def payout_transaction(self, step: StepInput, payout: Payout) -> PreparedTransaction:
        """Return a payment to a confirmed payout address."""

    def allowance_resets(self, step: StepInput) -> Sequence[Approval]:
        """Return approvals that reset leftover allowances to zero, with or without a plan."""


class Executor(Protocol):
    """Sender of transactions through the journal."""

    def reconcile(self, *, may_send: bool = True) -> Sequence[Intent]:
        """Settle every open intent, and those reopened by a reorg. Send nothing without
        `may_send`.
        """

    def run(self, step_id: str, tx: UnsignedTx, grant: Grant, note: str) -> Intent:
        """Store, sign and send one transaction, and wait until it ends."""

    def cancel_pending(self, reason: str) -> Sequence[Intent]:
        """Cancel all pending transactions, after `trimtab pause --hard`."""

    def cancel_resting_orders(
        self, reasons: Mapping[str, str], step_id: str = ""
    ) -> Sequence[Intent]:
        """Cancel the limit orders that rest at an off-chain venue under these client order ids,
        each with its reason, also while paused; return them in their new state. One whose cancel
        fails still rests.
        """

    def resync_nonce(self) -> int:
        """Store the chain's next nonce as expected, on the operator's command; return it."""

    def mined_receipt(self, nonce: int, since_block: int) -> Receipt | None:
        """Return the receipt of whichever transaction of the wallet used `nonce`, searched after
        `since_block`; None if the endpoints show none. Raises Retryable if they give no answer.
        """

    def may_send(self, *, for_revoking: bool = False) -> bool:
        """True if a transaction may be sent now: the kill switch is readable and off, and no
        transaction is open. With `for_revoking` a hard pause does not prevent the reset of
        allowances.
        """


@runtime_checkable
class OrderExecutor(Protocol):
    """Executor that sends several orders of a venue in one action."""

    def run_together(
        self, step_id: str, prepared_orders: Sequence[PreparedTransaction]
    ) -> Sequence[Intent]:
        """Store each order, then sign and post all in one action, and wait until each has ended.
        An order that the signer refuses is left out, unless it is the first.
        """


class SigningKey(Protocol):
    """A private key, local or in a remote service. It checks no rules: only a Signer may call it.

    Signatures need not be deterministic. A transaction is identified by its hash, which is stored
    before it is sent. If the signed bytes are lost, a transaction never sent is dropped, and one
    that may have been sent is cancelled at its nonce.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    def sign_transaction(self, tx: UnsignedTx) -> SignedTx:
        """Return the signed transaction and its hash.

        Raises Retryable if the key is unreachable, and OperatorNeeded if it cannot sign the
        transaction or the signature is not by `address`.
        """


class Signer(Protocol):
    """Signer with a local or remote key. It signs only transactions that its rules allow."""

    @property
    def address(self) -> str:
        """Checksummed address of the key."""

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Return the signed transaction; a local key signs deterministically (RFC 6979). Raises
        Refused with the failed rule.
        """


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """Mined transaction at the nonce of a proposal; `is_proposal` is true if it is the
    proposal's.
    """

    tx_hash: str
    block: int
    is_proposal: bool


@dataclass(frozen=True, slots=True)
class NextAct:
    """What a proposal awaits, and what somebody has to do, as an imperative clause."""

    awaited: str
    instruction: str


class ExternalSigner(Protocol):
    """External signers, such as the owners of a Safe, who sign a proposed transaction.

    The agent holds no key.
    """

    @property
    def address(self) -> str:
        """Checksummed address of the wallet or Safe."""

    def require_signable(self, tx: UnsignedTx, grant: Grant) -> None:
        """Raise Refused if the rules of a Signer do not allow the transaction."""

    def signing_json(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """Return the JSON to sign; the same transaction gives the same JSON."""

    def next_act(self, signed_by: Collection[str], proposal_id: str) -> NextAct:
        """Return what a proposal that these addresses have signed waits for; its commands name
        `proposal_id`. Raises Retryable if the chain gives no answer.
        """

    def sufficient_signatures(self, signers: Collection[str]) -> str:
        """Return "2 of 2 signatures" if those of `signers` let anybody execute a proposal; "" if not.
        Raises Retryable if the chain gives no answer.
        """

    def mined_at_nonce(self, tx: UnsignedTx, since_block: int) -> MinedTransaction | None:
        """Return the transaction mined at the nonce of `tx` since `since_block`; None if the
        endpoints show none.

        Raises Retryable if the chain gives no answer.
        """


@dataclass(frozen=True, slots=True)
class Simulation:
    """Result of `eth_call` and `eth_estimateGas` of the exact transaction at the head.

    `reverted` is true if a contract reverted, confirmed by enough operators; errors of fee, funds
    or endpoint do not count. `height_disagreement` is the reason why the head may be old or false;
    it is empty if endpoints agree, otherwise no trade is signed. `data_fee_wei` is the most that
    the exact transaction pays beyond its gas, at the head; `data_fee_unknown_reason` is why that is
    unknown, empty if it is known.
    """

    ok: bool
    reason: str
    gas: int
    head: Head
    reverted: bool = False
    height_disagreement: str = ""
    data_fee_wei: int = 0
    data_fee_unknown_reason: str = ""


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """Status of a transaction hash: "unknown", "pending", or "mined" with its receipt."""

    state: str
    receipt: Receipt | None


@runtime_checkable
class ConflictingTransactionFinder(Protocol):
    """A Sender that also finds the transaction at a nonce of the wallet."""

    def mined_tx_hash(self, owner: str, nonce: int) -> str | None:
        """Return the hash of the mined transaction of `owner` with `nonce`, agreed by enough
        operators; None if they do not show it.
        """

    def conflicting_tx_hash(self, owner: str, nonce: int) -> str | None:
        """Return the hash of the mined or pending transaction of `owner` with `nonce`, for messages
        to the operator; None if unknown.
        """


class Sender(Protocol):
    """Access to the chain for transactions. Sending is never retried."""

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """Simulate the transaction at the head."""

    def send(self, signed: SignedTx) -> None:
        """Send the signed transaction to the node.

        The answer "already known" is success. Raises Retryable if the outcome is unknown.
        """

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """Return the current status of a transaction hash."""

    def nonces(self, owner: str) -> tuple[int, int]:
        """Return the next nonce after mined and after pending transactions: (latest, pending)."""

    def head(self) -> Head:
        """Return the head of the newest block."""

    def block_hash(self, number: int) -> str | None:
        """Return the hash of the canonical block `number`; None if there is none."""

    def tagged_height(self, tag: str) -> int:
        """Return the number of the newest block that is "safe" or "finalized"."""
