"""The double-entry ledger: entries with balanced postings, what the wallet held when books were opened, values and tax lots."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.units import NATIVE, Price, Token, Value


class EntryKind(Enum):
    """What moved a balance."""

    OPENING = "opening"
    TRADE = "trade"
    GAS = "gas"
    WRAP = "wrap"
    PROVIDE = "provide"
    WITHDRAW = "withdraw liquidity"
    COLLECT = "collect"
    PAYOUT = "payout"
    OUTSIDE = "outside"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    GIFT = "gift"
    LOSS = "loss"
    REBASE = "rebase"
    GAS_MONEY = "gas money"
    UNEXPLAINED = "unexplained"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Posting:
    """What one entry adds to one account of one token, base units with sign; assets grow by what is above zero.

    `value` is in numeraire base units with the sign of `raw`, at the reference price of the entry's step (None: no price then).
    """

    account: str
    token: str
    raw: int
    value: Value | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement, final. The postings of each token sum to zero. `id` is that of its intent, flow or opening.

    `by_hand` says that no trigger asked for it: it is accounted apart from the strategy (R8.8).
    """

    id: str
    kind: EntryKind
    block: int
    chain_s: int
    tx_hash: str
    note: str
    postings: tuple[Posting, ...]
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class LedgerOpening:
    """What one place ("" for the wallet, else the name of a liquidity position) held of a token when it came into the books."""

    place: str
    token: str
    raw: int
    value: Value | None
    block: int
    chain_s: int


@dataclass(frozen=True, slots=True)
class ValuedHolding:
    """What was held of one token at a look, base units: in the wallet, and in liquidity positions; units.NATIVE is the native coin.

    `reserved_raw` of the wallet's is no part of the managed portfolio: gas money, and what reserves and limits.native_floor keep.
    """

    token: str
    wallet_raw: int
    lp_raw: int
    price: Price
    target_bps: int
    reserved_raw: int = 0

    @property
    def managed_raw(self) -> int:
        """What weights, returns and drawdowns count, base units."""
        return self.wallet_raw + self.lp_raw - self.reserved_raw

    @property
    def is_gas_money(self) -> bool:
        """Whether this is native coin of which nothing is managed."""
        return self.token == NATIVE and self.lp_raw == 0 and self.reserved_raw == self.wallet_raw


@dataclass(frozen=True, slots=True)
class Valuation:
    """Value at one look of all that the books hold, at its reference prices, in numeraire base units."""

    block: int
    chain_s: int
    value: Value
    held: tuple[ValuedHolding, ...]

    @property
    def gas_money(self) -> Value:
        """Value of the native coin that only pays for gas."""
        return sum((one.reserved_raw * one.price for one in self.held if one.is_gas_money), Fraction(0))

    @property
    def reserved(self) -> Value:
        """Value of gas money and of all reserves."""
        return sum((one.reserved_raw * one.price for one in self.held), Fraction(0))

    @property
    def managed(self) -> Value:
        """Value of the managed portfolio: the total that `trimtab status` shows."""
        return self.value - self.reserved


@dataclass(frozen=True, slots=True)
class LedgerBalance:
    """What the ledger says that the wallet holds of a token, with what is mined and not final yet; base units."""

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class LedgerTokens:
    """What the tokens of the books are called, those that left the portfolio too; the numeraire; the wrapped native coin."""

    tokens: tuple[Token, ...]
    numeraire: Token
    coin: str


class LotMethod(Enum):
    """Which lots a disposal takes first."""

    FIFO = "fifo"
    LIFO = "lifo"
    HIFO = "hifo"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class OpenLot:
    """What is left of one acquisition, base units, and its cost in reporting units (numeraire base units times the rate)."""

    token: str
    raw: int
    cost: Value
    acquired_s: int


@dataclass(frozen=True, slots=True)
class TaxState:
    """What a plan's taxable gain is told by: lots, what this year realised, and the most that it may (None: no limit).

    `rate` is reporting units per numeraire base unit now; `currency` is its name, empty for the numeraire itself.
    """

    method: LotMethod
    currency: str
    rate: Value
    lots: tuple[OpenLot, ...]
    realised: Value
    year_limit: Value | None


# --- Changes of the wallet's balances that the books do not explain, and what the books say of each balance.


class ExternalTransferKind(Enum):
    """What an unexplained change was. REBASE, GAS_MONEY, UNDONE and ACCEPTED are told by themselves, the others by the owner.

    UNDONE is a fall that came back to the last base unit, and the rise that brought it back. ACCEPTED is a rise that nobody
    explained within limits.balance_jump_wait: it counts as a deposit, and its owner may still call it something else.
    """

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    GIFT = "gift"
    LOSS = "loss"
    REBASE = "rebase"
    GAS_MONEY = "gas money"
    UNDONE = "undone"
    ACCEPTED = "accepted"


NON_LOSS_KINDS = (ExternalTransferKind.WITHDRAWAL, ExternalTransferKind.UNDONE)
"""Kinds of a fall that is nobody's loss. Every other fall counts as one, also while nobody has said what it was."""


@dataclass(frozen=True, slots=True)
class ExternalTransfer:
    """A change of one balance between two blocks that no transaction of the agent made, base units with sign.

    `value` is in numeraire base units with sign at the reference price when it was found, or once there was one (None: no price
    yet). `chain_s` is chain time when it was found. `halts` says that it went beyond limits.balance_jump: nothing is bought or
    rebalanced until its `kind` is known. Exits, withdrawals and the end of a bot go on.
    `id` is 0 while it is not written down. `undoes` are ids of open falls that this rise brings back: they end with it.
    """

    id: int
    token: str
    delta_raw: int
    value: Value | None
    since_block: int
    block: int
    chain_s: int
    halts: bool
    kind: ExternalTransferKind | None
    undoes: tuple[int, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether nobody has said what it was."""
        return self.kind is None

    @property
    def holds(self) -> bool:
        """Whether it holds purchases and rebalances back now."""
        return self.halts and self.is_open

    @property
    def is_loss(self) -> bool:
        """Whether it counts against limits.daily_loss: every fall that the owner has not called a withdrawal."""
        return self.delta_raw < 0 and self.kind not in NON_LOSS_KINDS


@dataclass(frozen=True, slots=True)
class OpeningBalance:
    """What a balance was at `block` with every transaction in Books.own taken off; units.NATIVE is the native coin."""

    token: str
    raw: int
    block: int


@dataclass(frozen=True, slots=True)
class OwnBalanceChange:
    """What one mined transaction of the agent did to one balance, its gas included."""

    token: str
    delta_raw: int
    block: int


@dataclass(frozen=True, slots=True)
class ExpectedBalances:
    """What balances should be: openings, own transactions since, and the newest flows.

    `unsettled_nonce` is the lowest nonce of ours whose end the journal does not know yet; `turn` counts how often the openings
    were written, so that two processes do not write one flow twice.
    """

    openings: tuple[OpeningBalance, ...]
    own: tuple[OwnBalanceChange, ...]
    flows: tuple[ExternalTransfer, ...]
    unsettled_nonce: int | None
    turn: int


@dataclass(frozen=True, slots=True)
class ExternalTransaction:
    """A transaction of the wallet that the store did not send: what it used up of the limits of a day, and did to balances.

    Values in numeraire base units, `changes` as (token, base units with sign), gas included. `outflow` is what it gave away for
    nothing in return.
    """

    tx_hash: str
    block: int
    chain_s: int
    turnover: Value
    loss: Value
    gas_wei: int
    changes: tuple[tuple[str, int], ...]
    outflow: Value = Fraction(0)
