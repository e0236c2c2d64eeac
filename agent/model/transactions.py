"""Transactions: intents with their states, receipts, owner requests and payouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from agent.model.futures import VenuePayment
from agent.model.market import Allowance, Holding
from agent.units import NATIVE


class IntentKind(Enum):
    """Purpose of a transaction."""

    APPROVE = "approve"
    SWAP = "swap"
    CANCEL = "cancel"
    """Replaces a pending transaction at its nonce and does nothing else."""
    LIQUIDITY = "liquidity"
    UNWRAP = "unwrap"
    ORACLE = "oracle"
    """Increases the number of observation slots of a V3 pool."""
    PAYOUT = "payout"
    FUTURES = "futures"
    DEPLOY = "deploy"
    """Deploys our Rebalancer."""


class IntentState(Enum):
    """State of an intent (docs/journal.md). PLANNED to MINED are open; all others are final unless
    a reorg removes their block.
    """

    PLANNED = "planned"
    SIGNED = "signed"
    """Its hash is stored; nothing was sent."""
    BROADCAST = "broadcast"
    """Sent, or about to be sent; not in a block."""
    MINED = "mined"
    """In a block, with success or a revert."""
    FINAL = "final"
    """Succeeded in a final block."""
    REVERTED = "reverted"
    """Reverted in a final block."""
    REPLACED = "replaced"
    """Another transaction took its nonce."""
    CANCELLED = "cancelled"
    """Never sent, or its cancel took its nonce."""


class IntentEvent(Enum):
    """Event that changes the state of a stored intent; agent/store/transitions.py lists the
    permitted ones.
    """

    SIGN = "sign"
    DROP = "drop"
    """Cancelled before it was ever sent."""
    SEND = "send"
    MINE = "mine"
    """Seen in a block, or after a reorg in a different block."""
    UNMINE = "unmine"
    """A reorg removed its block."""
    CONFIRM = "confirm"
    """Its block is final, and it succeeded."""
    FAIL = "fail"
    """Its block is final, and it reverted."""
    LOSE = "lose"
    """Another transaction with its nonce is final, or the operator adopted a later nonce."""
    YIELD = "yield"
    """A cancel with its nonce is final."""
    REOPEN = "reopen"
    """A reorg removed the transaction that had taken its nonce."""


FIRST_VENUE_NONCE = 10**12
"""Nonces from here on are timestamps (milliseconds) of a futures venue; no wallet sends that many
transactions.
"""

NOT_ACCEPTED_PREFIX = "not accepted: "
"""Start of the journal's note on a send that no node confirmed to have taken; the nodes' answers
follow.
"""


@dataclass(frozen=True, slots=True)
class UnsignedTx:
    """A transaction without signature: EIP-1559 if `max_fee_wei` is set, legacy if `gas_price_wei`
    is. `data` is 0x-hex. An order for an off-chain venue has no fee, the venue account as `to`, the
    signed action as `data`, and the venue's nonce.
    """

    chain_id: int
    nonce: int
    to: str
    value_wei: int
    data: str
    gas: int
    max_fee_wei: int | None
    max_priority_fee_wei: int | None
    gas_price_wei: int | None

    @property
    def is_venue_order(self) -> bool:
        """True for an order to an off-chain futures venue."""
        return self.nonce >= FIRST_VENUE_NONCE

    @property
    def max_gas_price_wei(self) -> int:
        """Highest price of a unit of gas that the transaction pays, wei; 0 without a fee."""
        return (self.gas_price_wei if self.max_fee_wei is None else self.max_fee_wei) or 0

    @property
    def tip_wei(self) -> int:
        """What a unit of gas pays to the block's producer at most, wei: the tip, or the gas price of
        a legacy transaction, of which nodes demand the same minimum.
        """
        return (
            self.max_priority_fee_wei if self.gas_price_wei is None else self.gas_price_wei
        ) or 0

    @property
    def max_gas_cost_wei(self) -> int:
        """Most that the transaction can pay for its gas, wei; without data and operator fee."""
        return self.gas * self.max_gas_price_wei


@dataclass(frozen=True, slots=True)
class ProposalExecution:
    """Transaction by which the account `executor` executes a Safe's signed call, its hash, and those
    of the transactions that it replaces at its nonce, of which one may be mined all the same.
    `beside` are the earlier ones of other accounts and nonces, of which one may execute it too.
    """

    executor: str
    tx: UnsignedTx
    tx_hash: str
    replaced_hashes: tuple[str, ...] = ()
    beside: tuple[ProposalExecution, ...] = ()

    @property
    def hashes(self) -> tuple[str, ...]:
        """Its hash and those that it replaces."""
        return (self.tx_hash, *self.replaced_hashes)

    @property
    def attempts(self) -> tuple[ProposalExecution, ...]:
        """It and those beside it."""
        return (self, *self.beside)


@dataclass(frozen=True, slots=True)
class SignedTx:
    """Signed transaction and its hash. `signed_bytes` stays in memory and is never shown (T8)."""

    signed_bytes: bytes = field(repr=False)
    hash: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """An ERC-20 Transfer event of a receipt."""

    token: str
    sender: str
    recipient: str
    raw: int


@dataclass(frozen=True, slots=True)
class LiquidityAdded:
    """An IncreaseLiquidity event of a position manager. `amounts_raw` are base units of (token0,
    token1); `minted_to` is the recipient of a newly minted token (None: the token existed before).
    """

    manager: str
    token_id: int
    liquidity: int
    amounts_raw: tuple[int, int]
    minted_to: str | None


@dataclass(frozen=True, slots=True)
class PerpFill:
    """A PositionChanged event of a clearing house. `size_raw` is negative for a sale; `quote_raw`
    is the change of the quote balance by the trade, without the fee: negative for a purchase.
    `realised_raw` is the profit that a reduction realised, net of its share of the fees. `fill_id`
    is the venue's number of one fill of a limit order (empty: all fills of an order).
    """

    clearing_house: str
    trader: str
    market: str
    size_raw: int
    quote_raw: int
    fee_raw: int
    realised_raw: int = 0
    fill_id: str = ""


@dataclass(frozen=True, slots=True)
class PerpFunding:
    """A FundingPaymentSettled event of a clearing house: `paid_raw` quote base units of funding
    that the account paid (negative: received).
    """

    clearing_house: str
    trader: str
    market: str
    paid_raw: int


@dataclass(frozen=True, slots=True)
class ManagedSwap:
    """A Swap event of Uniswap V4's PoolManager: PoolId, base units that the pool took and gave."""

    pool: str
    in_raw: int
    out_raw: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Receipt of a mined transaction. `status` is 1 for success, 0 for revert.

    For an order at an off-chain venue it is written once the order has ended, with that moment's
    head as block, and status 0 if nothing was filled. A limit order has one from the moment at
    which it rests (`is_open`), with its fills so far, and status 0 only if the venue rejected it.
    `wrap_transfers` are Deposit and Withdrawal events (as emitted by WETH9), recorded as transfers
    from and to the zero address. `fills` are changes of futures positions, `funding` their settled
    funding payments. `data_fee_wei` is what the transaction paid beyond its gas: data fee and
    operator fee of an OP Stack chain. `managed_swaps` are swaps of pools that share one contract,
    whose transfers are those of several swaps together. `failure_reason` is the venue's reason for
    an order without a fill, sanitised (empty: none, or not known). `block_time_s` is the time of
    the block, Unix seconds; 0 for an order, and in receipts of earlier versions.
    """

    tx_hash: str
    status: int
    block_number: int
    block_hash: str
    gas_used: int
    effective_gas_price_wei: int
    transfers: tuple[Transfer, ...]
    liquidity_added: tuple[LiquidityAdded, ...] = ()
    wrap_transfers: tuple[Transfer, ...] = ()
    fills: tuple[PerpFill, ...] = ()
    funding: tuple[PerpFunding, ...] = ()
    data_fee_wei: int = 0
    is_open: bool = False
    managed_swaps: tuple[ManagedSwap, ...] = ()
    failure_reason: str = ""
    block_time_s: int = 0

    @property
    def execution_gas_cost_wei(self) -> int:
        """Cost of the transaction's gas alone, wei."""
        return self.gas_used * self.effective_gas_price_wei

    @property
    def gas_cost_wei(self) -> int:
        """Cost of this transaction's inclusion, wei: gas, data fee and operator fee."""
        return self.execution_gas_cost_wei + self.data_fee_wei

    def net_transfers(self, wallet: str) -> dict[str, int]:
        """Return the net base units per token moved into (+) or out of (-) `wallet`, by Transfer
        events.

        Deposit and Withdrawal events count if the token emits no Transfer for them, as is the case
        for WETH9.
        """
        delta_raw_by_token: dict[str, int] = {}
        unmatched_wraps = (
            wrap_event for wrap_event in self.wrap_transfers if wrap_event not in self.transfers
        )
        for transfer in (*self.transfers, *unmatched_wraps):
            sign = (transfer.recipient == wallet) - (transfer.sender == wallet)
            if sign:
                delta_raw_by_token[transfer.token] = (
                    delta_raw_by_token.get(transfer.token, 0) + sign * transfer.raw
                )
        return delta_raw_by_token

    def unwrapped_raw(self, token: str, *holders: str) -> int:
        """Return the base units of `token` that `holders` unwrapped."""
        return sum(
            wrap_event.raw
            for wrap_event in self.wrap_transfers
            if (wrap_event.token, wrap_event.recipient) == (token, NATIVE)
            and wrap_event.sender in holders
        )


@dataclass(frozen=True, slots=True)
class Intent:
    """One transaction in the journal, from planned to final. Signed bytes are never stored.

    `tx_hash` is set from SIGNED on. `deadline_s` is the chain time after which the transaction must
    not be sent again. `replaced_intent_id` is the id of the intent at the same nonce that this one
    replaces, with a higher fee or as a CANCEL.
    """

    id: str
    step_id: str
    kind: IntentKind
    state: IntentState
    tx: UnsignedTx
    note: str
    created_s: int
    deadline_s: int | None
    tx_hash: str | None
    receipt: Receipt | None
    replaced_intent_id: str | None = None

    @property
    def succeeded(self) -> bool:
        """True if the transaction is in a block and did not revert. A reverted transaction is also
        MINED until its block is final.
        """
        is_in_block = self.state in (IntentState.MINED, IntentState.FINAL)
        return is_in_block and self.receipt is not None and self.receipt.status == 1

    @property
    def failure_reason(self) -> str:
        """The venue's reason for an order without a fill; empty without one."""
        return "" if self.receipt is None else self.receipt.failure_reason

    @property
    def note_with_reason(self) -> str:
        """The note, with the venue's reason if it filled nothing."""
        return (
            f"{self.note}; the venue: {self.failure_reason}" if self.failure_reason else self.note
        )

    @property
    def is_resting(self) -> bool:
        """True for a limit order that rests at an off-chain venue, by its newest receipt."""
        is_open = self.receipt is not None and self.receipt.is_open
        return is_open and self.state is IntentState.MINED

    def balance_changes(self, wallet: str, wrapped_native: str) -> dict[str, int]:
        """Return the balance changes of `wallet` in base units by token; units.NATIVE is the native
        coin.

        Tokens change by their events, native coin by gas, value sent, and the wrapped native coin
        `wrapped_native` that the wallet or the called contract unwrapped. Withdrawal events of
        other tokens are ignored, because they prove no receipt of native coin.
        """
        receipt = self.receipt
        if receipt is None:
            return {}
        delta_raw_by_token = {
            token: raw for token, raw in receipt.net_transfers(wallet).items() if raw
        }
        if (
            native_delta_wei := self.native_change_wei(wallet, wrapped_native)
            - receipt.gas_cost_wei
        ):
            delta_raw_by_token[NATIVE] = native_delta_wei
        return delta_raw_by_token

    def traded_raw_by_token(self, wallet: str, wrapped_native: str) -> dict[str, int]:
        """Return the balance changes of `wallet` without gas, in base units by token; native coin
        counts as its wrapped token.
        """
        if self.receipt is None:
            return {}
        delta_raw_by_token = self.receipt.net_transfers(wallet)
        if native_change_wei := self.native_change_wei(wallet, wrapped_native):
            delta_raw_by_token[wrapped_native] = (
                delta_raw_by_token.get(wrapped_native, 0) + native_change_wei
            )
        return delta_raw_by_token

    def native_change_wei(self, wallet: str, wrapped_native: str) -> int:
        """Return the change of the wallet's native coin without gas, wei."""
        if self.receipt is None or self.receipt.status != 1:
            return 0
        sent_wei = self.tx.value_wei
        if self.kind is IntentKind.PAYOUT:  # the recipient may unwrap its own tokens
            return -sent_wei
        unwrapped_wei = self.receipt.unwrapped_raw(wrapped_native, wallet, self.tx.to)
        if self.tx.to == wallet:
            return unwrapped_wei
        return unwrapped_wei - sent_wei


# --- Requests of the owner: withdrawals, reservations, and shutdown.


class RequestKind(Enum):
    """Kind of a request: a withdrawal, or the shutdown."""

    WITHDRAW = "withdraw"
    STOP = "stop"


class RequestState(Enum):
    """State of a request: OPEN until completed, RELEASED if the owner cancelled it."""

    OPEN = "open"
    DONE = "done"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment or reservation of `raw` base units of `token`; with `native` the wrapped native
    coin `token` is paid as native coin.
    """

    token: str
    raw: int
    native: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawalProgress:
    """Progress of a withdrawal that is raised in parts: `parts_done` of about `part_count` parts.

    The next part starts at chain time `next_s`; the withdrawal continues until `until_s`.
    `shortfall_raw` is the shortfall in base units at the start of the current part; 0 between
    parts.
    """

    part_count: int
    parts_done: int
    next_s: int
    until_s: int
    shortfall_raw: int = 0


@dataclass(frozen=True, slots=True)
class OwnerRequest:
    """A request of the owner: a withdrawal, or the shutdown.

    `to` is the confirmed payout address (None: no payment). `sells_everything` sells everything for
    the numeraire. `payments` of a withdrawal are fixed at the request; a shutdown pays the final
    balance. `asked_s` is the chain time of the request. `progress` is the progress of a withdrawal
    in parts (None: raised in one plan). `control_id` is the control that requested it, or the sweep
    that is one (empty: none). `ended_s` is when it ended, by the clock of this machine (None: it is
    open). `pro_rata_raw` is the total that a withdrawal of the same share of every asset was
    requested for, base units of the numeraire (0: any other request).
    """

    id: int
    kind: RequestKind
    payments: tuple[Payment, ...]
    to: str | None
    sells_everything: bool
    state: RequestState
    asked_s: int
    progress: WithdrawalProgress | None = None
    control_id: str = ""
    ended_s: int | None = None
    pro_rata_raw: int = 0


@dataclass(frozen=True, slots=True)
class PendingPayment:
    """An unpaid payment of an open withdrawal. Its amount is no longer part of the portfolio.

    `progress` is the progress of its withdrawal. `open_nonce` is the nonce of its transaction, whose
    outcome is not recorded (None: without a transaction).
    """

    request_id: int
    payment: Payment
    progress: WithdrawalProgress | None = None
    open_nonce: int | None = None


@dataclass(frozen=True, slots=True)
class Payout:
    """Terms of one payout transaction: exactly `raw` base units of `token` (units.NATIVE: native
    coin) to `to`, for a request.

    `limit_left_raw` is the remainder of limits.payout_per_day, calculated independently of the
    amount.
    """

    token: str
    to: str
    raw: int
    limit_left_raw: int
    request_id: int


# --- The paper trading wallet and its pending transactions.


@dataclass(frozen=True, slots=True)
class PaperTx:
    """A pending transaction, executed in a block after `sent_block`; `hash` is computed from its
    fields.
    """

    hash: str
    tx: UnsignedTx
    sent_block: int


@dataclass(frozen=True, slots=True)
class PaperPosition:
    """A futures position on paper. `growth_x96` is the funding growth of the market at the last
    settlement; at a venue that pays funding by the hour it is zero, and `settled_s` the time of the
    newest payment.
    """

    market: str
    size_raw: int
    open_notional_raw: int
    growth_x96: int
    settled_s: int = 0


@dataclass(frozen=True, slots=True)
class PaperMargin:
    """The margin account on paper: collateral and realised profit in quote base units. `payments`
    are hourly funding payments that the ledger lacks.
    """

    collateral_raw: int
    realised_raw: int
    positions: tuple[PaperPosition, ...]
    payments: tuple[VenuePayment, ...] = ()


@dataclass(frozen=True, slots=True)
class PaperWallet:
    """Balances, allowances and transactions of the paper wallet at `block`, in base units and wei.

    `pending_txs` are pending transactions, `receipts` the newest receipts, `hash_by_block` (number,
    hash) of the newest blocks with a transaction of this wallet. `margin` is its margin account
    (None: no futures), `start` what was entered to begin it.
    """

    balances: tuple[Holding, ...]
    allowances: tuple[Allowance, ...]
    native_wei: int
    nonce: int
    block: int
    pending_txs: tuple[PaperTx, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    hash_by_block: tuple[tuple[int, str], ...] = ()
    margin: PaperMargin | None = None
    start: tuple[str, ...] = ()
