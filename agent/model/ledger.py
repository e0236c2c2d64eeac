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
class BookOpening:
    """What one place ("" for the wallet, else the name of a liquidity position) held of a token when it came into the books."""

    place: str
    token: str
    raw: int
    value: Value | None
    block: int
    chain_s: int


@dataclass(frozen=True, slots=True)
class Held:
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
    held: tuple[Held, ...]

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
class Stand:
    """What the ledger says that the wallet holds of a token, with what is mined and not final yet; base units."""

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class BookTokens:
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
class TaxStanding:
    """What a plan's taxable gain is told by: lots, what this year realised, and the most that it may (None: no limit).

    `rate` is reporting units per numeraire base unit now; `currency` is its name, empty for the numeraire itself.
    """

    method: LotMethod
    currency: str
    rate: Value
    lots: tuple[OpenLot, ...]
    realised: Value
    year_limit: Value | None
