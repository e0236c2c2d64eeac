"""Transactions: intents with their states, receipts, owner requests and payouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from agent.model.market import Allowance, Holding
from agent.units import NATIVE


class IntentKind(Enum):
    """Purpose of a transaction."""

    APPROVE = "approve"
    SWAP = "swap"
    CANCEL = "cancel"
    LIQUIDITY = "liquidity"
    UNWRAP = "unwrap"
    ORACLE = "oracle"
    PAYOUT = "payout"


class IntentState(Enum):
    """States of design section 9; PLANNED to MINED are open, the others are ends until a
    reorganisation takes their block.
    """

    PLANNED = "planned"
    SIGNED = "signed"
    BROADCAST = "broadcast"
    MINED = "mined"
    FINAL = "final"
    REVERTED = "reverted"
    REPLACED = "replaced"
    CANCELLED = "cancelled"


class IntentEvent(Enum):
    """Event that changes the state of a stored intent; `agent.store.transitions` lists those
    permitted in each state.
    """

    SIGN = "sign"
    DROP = "drop"
    SEND = "send"
    MINE = "mine"
    UNMINE = "unmine"
    CONFIRM = "confirm"
    FAIL = "fail"
    LOSE = "lose"
    YIELD = "yield"
    REOPEN = "reopen"


@dataclass(frozen=True, slots=True)
class UnsignedTx:
    """A transaction without signature. EIP-1559 when `max_fee_wei` is set, legacy when
    `gas_price_wei` is. `data` is 0x-hex.
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


@dataclass(frozen=True, slots=True)
class SignedTx:
    """Signed bytes, only ever in memory and never shown (T8), and their hash."""

    raw: bytes = field(repr=False)
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
    """An IncreaseLiquidity event of a position manager: base units taken of (token0, token1), and
    the recipient of the minted token, `minted_to`; None if the token existed before.
    """

    manager: str
    token_id: int
    liquidity: int
    amounts_raw: tuple[int, int]
    minted_to: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Receipt of a mined transaction. `status` is 1 for success, 0 for revert.

    `wrapped` are the Deposit and Withdrawal events of tokens such as WETH9, as transfers from and
    to the zero address.
    """

    tx_hash: str
    status: int
    block_number: int
    block_hash: str
    gas_used: int
    effective_gas_price_wei: int
    transfers: tuple[Transfer, ...]
    added: tuple[LiquidityAdded, ...] = ()
    wrapped: tuple[Transfer, ...] = ()

    @property
    def gas_cost_wei(self) -> int:
        """Gas cost of this transaction, wei."""
        return self.gas_used * self.effective_gas_price_wei

    def net(self, wallet: str) -> dict[str, int]:
        """Net base units per token that this transaction moved into (+) or out of (-) `wallet`, by
        its Transfer events.

        A token that wraps native coin without such an event, as WETH9, counts by its own.
        """
        deltas: dict[str, int] = {}
        for transfer in (
            *self.transfers,
            *(one for one in self.wrapped if one not in self.transfers),
        ):
            sign = (transfer.recipient == wallet) - (transfer.sender == wallet)
            if sign:
                deltas[transfer.token] = deltas.get(transfer.token, 0) + sign * transfer.raw
        return deltas

    def unwrapped(self, token: str, *holders: str) -> int:
        """Return base units of `token` that one of `holders` unwrapped."""
        return sum(
            one.raw
            for one in self.wrapped
            if (one.token, one.recipient) == (token, NATIVE) and one.sender in holders
        )


@dataclass(frozen=True, slots=True)
class Intent:
    """One transaction on its way. `tx` is stored, signed bytes never are; `tx_hash` is known from
    SIGNED on.

    `note` describes it; `deadline_s` is the chain time after which it must not be sent again;
    `replaces` is the id of the intent whose nonce it takes: the same with a higher fee, or a
    CANCEL.
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
    replaces: str | None = None

    @property
    def succeeded(self) -> bool:
        """True if it is in a block and did not revert. A reverted one may be MINED too, until its
        block is final.
        """
        mined = self.state in (IntentState.MINED, IntentState.FINAL)
        return mined and self.receipt is not None and self.receipt.status == 1

    def changes(self, wallet: str, coin: str) -> dict[str, int]:
        """Return the change of each balance of `wallet`, base units by token; units.NATIVE is the
        native coin.

        Tokens count by their events. Native coin counts gas, value sent, and the wrapped native
        coin `coin` that the wallet or the called contract unwrapped. A Withdrawal event of any
        other token is not proof of native coin and is ignored.
        """
        receipt = self.receipt
        if receipt is None:
            return {}
        found = {token: raw for token, raw in receipt.net(wallet).items() if raw}
        wei = self.coins(wallet, coin) - receipt.gas_cost_wei
        return {**found, NATIVE: wei} if wei else found

    def coins(self, wallet: str, coin: str) -> int:
        """Return the change of the wallet's native coin without gas, wei."""
        if self.receipt is None or self.receipt.status != 1:
            return 0
        if (
            self.kind is IntentKind.PAYOUT
        ):  # the recipient may unwrap its own coins in that transaction
            return -self.tx.value_wei
        return self.receipt.unwrapped(coin, wallet, self.tx.to) - (
            self.tx.value_wei if self.tx.to != wallet else 0
        )


# --- Requests of the owner: withdrawals, reservations, and shutdown.


class RequestKind(Enum):
    """A withdrawal of some money, or the end of the bot."""

    WITHDRAW = "withdraw"
    STOP = "stop"


class RequestState(Enum):
    """OPEN until completed; RELEASED if the owner withdrew it."""

    OPEN = "open"
    DONE = "done"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment or reservation of base units of an asset; with `native` it is paid in native coin,
    `token` being the wrapped one.
    """

    token: str
    raw: int
    native: bool = False


@dataclass(frozen=True, slots=True)
class WithdrawalProgress:
    """Progress of a withdrawal that is raised in parts: `done` of about `count`.

    The next part starts at chain time `next_s`; a run continues it until `until_s`. `lacked_raw` is
    the shortfall in base units when the current part began; 0 between parts.
    """

    count: int
    done: int
    next_s: int
    until_s: int
    lacked_raw: int = 0


@dataclass(frozen=True, slots=True)
class OwnerRequest:
    """One request.

    `to` is the confirmed payout address (None: no payment). With `to_stable` everything is sold for
    the numeraire. `payments` of a withdrawal are fixed at the request; a stop pays the final
    balance. `asked_s` is chain time. `parts` is the progress of a withdrawal in parts (None: raised
    in one plan).
    """

    id: int
    kind: RequestKind
    payments: tuple[Payment, ...]
    to: str | None
    to_stable: bool
    state: RequestState
    asked_s: int
    parts: WithdrawalProgress | None = None


@dataclass(frozen=True, slots=True)
class PendingPayment:
    """An unpaid payment of an open withdrawal: its amount is no longer part of the portfolio.

    `parts` is the progress of its withdrawal.
    """

    request: int
    payment: Payment
    parts: WithdrawalProgress | None = None


@dataclass(frozen=True, slots=True)
class Payout:
    """One transaction that pays exactly `raw` base units of `token` (units.NATIVE for the native
    coin) to `to`, for a request.

    `most_raw` is the remainder of limits.payout_per_day, calculated apart from the amount.
    """

    token: str
    to: str
    raw: int
    most_raw: int
    request: int


# --- The paper trading wallet and its pending transactions.


@dataclass(frozen=True, slots=True)
class PaperTx:
    """A transaction that waits for a block above `sent_block`; `hash` is that of its fields, no
    chain's.
    """

    hash: str
    tx: UnsignedTx
    sent_block: int


@dataclass(frozen=True, slots=True)
class PaperWallet:
    """Balances, allowances and transactions of the paper wallet as of `block`, in base units and
    wei. `waiting` are not executed yet.

    `receipts` are the newest ones, `blocks` (number, hash) of the newest blocks with a transaction
    of this wallet.
    """

    balances: tuple[Holding, ...]
    allowances: tuple[Allowance, ...]
    native_wei: int
    nonce: int
    block: int
    waiting: tuple[PaperTx, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    blocks: tuple[tuple[int, str], ...] = ()
