"""The double-entry ledger: entries with balanced postings, opening balances, valuations, tax lots
and external transfers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from agent.units import NATIVE, Price, Token, Value


class EntryKind(Enum):
    """Cause of a balance change."""

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
    """Change of one account of one token by one entry, in signed base units; a positive number
    increases an asset account.

    `value` is in numeraire base units with the sign of `raw`, at the reference price of the entry's
    step (None: no price then).
    """

    account: str
    token: str
    raw: int
    value: Value | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement, final. The postings of each token sum to zero. `id` is that of its intent, flow
    or opening.

    `by_hand` marks a manual trade, accounted apart from the strategy (R8.8).
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
    """Opening balance of a token in one place ("" for the wallet, else the name of a liquidity
    position).
    """

    place: str
    token: str
    raw: int
    value: Value | None
    block: int
    chain_s: int


@dataclass(frozen=True, slots=True)
class ValuedHolding:
    """Holding of one token in a cycle, base units: in the wallet and in liquidity positions;
    units.NATIVE is the native coin.

    `reserved_raw` is the part of the wallet's balance outside the managed portfolio: gas money,
    reserves and limits.native_floor.
    """

    token: str
    wallet_raw: int
    lp_raw: int
    price: Price
    target_bps: int
    reserved_raw: int = 0

    @property
    def managed_raw(self) -> int:
        """Base units that weights, returns and drawdowns count."""
        return self.wallet_raw + self.lp_raw - self.reserved_raw

    @property
    def is_gas_money(self) -> bool:
        """True for native coin without a managed part."""
        return self.token == NATIVE and self.lp_raw == 0 and self.reserved_raw == self.wallet_raw


@dataclass(frozen=True, slots=True)
class Valuation:
    """Value of all recorded holdings in one cycle, at its reference prices, in numeraire base
    units.
    """

    block: int
    chain_s: int
    value: Value
    held: tuple[ValuedHolding, ...]

    @property
    def gas_money(self) -> Value:
        """Value of the native coin that only pays for gas."""
        return sum(
            (one.reserved_raw * one.price for one in self.held if one.is_gas_money), Fraction(0)
        )

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
    """Wallet balance of a token by the ledger, transactions that are mined but not final included;
    base units.
    """

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class LedgerTokens:
    """Tokens of the ledger, including those that left the portfolio; the numeraire; the wrapped
    native coin.
    """

    tokens: tuple[Token, ...]
    numeraire: Token
    coin: str


class LotMethod(Enum):
    """Order in which a disposal consumes lots."""

    FIFO = "fifo"
    LIFO = "lifo"
    HIFO = "hifo"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class OpenLot:
    """Remainder of one acquisition, base units, and its cost in reporting units (numeraire base
    units times the rate).
    """

    token: str
    raw: int
    cost: Value
    acquired_s: int


@dataclass(frozen=True, slots=True)
class TaxState:
    """Inputs for a plan's taxable gain: open lots, gains realised this year, and the year's limit
    (None: no limit).

    `rate` is reporting units per numeraire base unit now; `currency` is its name, empty for the
    numeraire itself.
    """

    method: LotMethod
    currency: str
    rate: Value
    lots: tuple[OpenLot, ...]
    realised: Value
    year_limit: Value | None


# --- Balance changes that the ledger does not explain, and the expected balance of each token.


class ExternalTransferKind(Enum):
    """Cause of an unexplained balance change. The agent sets REBASE, GAS_MONEY, UNDONE and
    ACCEPTED, the owner the others.

    UNDONE is a decrease that was restored to the last base unit, and the increase that restored it.
    ACCEPTED is an increase not explained within limits.balance_jump_wait: it counts as a deposit,
    and the owner may still reclassify it.
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
"""Kinds of a decrease that are not a loss. Any other decrease is one, unexplained ones included."""


@dataclass(frozen=True, slots=True)
class ExternalTransfer:
    """A change of one balance between two blocks that no transaction of the agent made, base units
    with sign.

    `value` is in signed numeraire base units at the reference price when it was found, or once
    there was one (None: no price yet). `chain_s` is the chain time when it was found. `halts` marks
    a change beyond limits.balance_jump: purchases and rebalances stop until its `kind` is known;
    exits, withdrawals and shutdown continue. `id` is 0 until it is stored. `undoes` are ids of open
    decreases that this increase restores and closes.
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
        """True while the change is not explained."""
        return self.kind is None

    @property
    def holds(self) -> bool:
        """True while it blocks purchases and rebalances."""
        return self.halts and self.is_open

    @property
    def is_loss(self) -> bool:
        """True if it counts against limits.daily_loss: every decrease not confirmed as a
        withdrawal.
        """
        return self.delta_raw < 0 and self.kind not in NON_LOSS_KINDS


@dataclass(frozen=True, slots=True)
class OpeningBalance:
    """Balance at `block` without the transactions in ExpectedBalances.own; units.NATIVE is the
    native coin.
    """

    token: str
    raw: int
    block: int


@dataclass(frozen=True, slots=True)
class OwnBalanceChange:
    """Change of one balance by one mined transaction of the agent, gas included."""

    token: str
    delta_raw: int
    block: int


@dataclass(frozen=True, slots=True)
class ExpectedBalances:
    """Expected balances: openings, own transactions since, and the newest external transfers.

    `unsettled_nonce` is the lowest own nonce whose outcome the journal does not know yet. `turn`
    counts writes of the openings, so that two processes do not record one transfer twice.
    """

    openings: tuple[OpeningBalance, ...]
    own: tuple[OwnBalanceChange, ...]
    flows: tuple[ExternalTransfer, ...]
    unsettled_nonce: int | None
    turn: int


@dataclass(frozen=True, slots=True)
class ExternalTransaction:
    """A wallet transaction sent outside the store: its use of daily limits and its balance changes.

    Values in numeraire base units, `changes` as (token, signed base units), gas included. `outflow`
    is the value given away without return.
    """

    tx_hash: str
    block: int
    chain_s: int
    turnover: Value
    loss: Value
    gas_wei: int
    changes: tuple[tuple[str, int], ...]
    outflow: Value = Fraction(0)
