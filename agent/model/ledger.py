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
    EXTERNAL = "outside"
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    GIFT = "gift"
    LOSS = "loss"
    REBASE = "rebase"
    GAS_MONEY = "gas money"
    UNEXPLAINED = "unexplained"
    UNDONE = "undone"
    FUTURES = "futures"
    MARGIN = "margin"


@dataclass(frozen=True, slots=True)
class Posting:
    """Change of one account in one token, in signed base units; a positive number increases an
    asset account.

    `value` is in numeraire base units with the sign of `raw`, at the reference price of the entry's
    step (None: no price).
    """

    account: str
    token: str
    raw: int
    value: Value | None


@dataclass(frozen=True, slots=True)
class FuturesFill:
    """A trade in one futures market. `size_raw` is negative for a sale. `notional_raw` is the
    exchanged quote without the fee, and `realised_raw` the profit that a reduction realised, net of
    its share of the fees. `size_decimals` are those of `size_raw`, None of a market that is not the
    account's.
    """

    market: str
    symbol: str
    size_raw: int
    notional_raw: int
    fee_raw: int
    realised_raw: int
    size_decimals: int | None = 18


@dataclass(frozen=True, slots=True)
class SettledFunding:
    """Funding of one market, settled by a transaction or by the venue itself; `paid_raw` is
    negative if received.
    """

    market: str
    symbol: str
    paid_raw: int


@dataclass(frozen=True, slots=True)
class FuturesEntry:
    """Effect of one transaction on the margin account, in quote base units. `collateral_unit_raw`
    is the value of one base unit of the token `collateral`, in quote base units, and `price` is the
    collateral's price in the entry's step.
    """

    collateral: str
    collateral_unit_raw: int
    price: Price | None
    fills: tuple[FuturesFill, ...]
    funding: tuple[SettledFunding, ...]

    @property
    def quote_price(self) -> Price | None:
        """Price of a base unit of the quote; None without a price of the collateral."""
        return None if self.price is None else self.price / self.collateral_unit_raw

    def quote_decimals(self, collateral_decimals: int) -> int:
        """Return the quote's decimals: `collateral_unit_raw` is a power of ten."""
        return collateral_decimals + len(str(self.collateral_unit_raw)) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """Ledger entry of a final transaction, flow or opening. The postings of each token sum to zero.

    `id` is the id of its intent, flow or opening. `by_hand` marks a manual trade, which is reported
    separately from the strategy. `futures` is the effect on the margin account (None: no effect).
    """

    id: str
    kind: EntryKind
    block: int
    chain_s: int
    tx_hash: str
    note: str
    postings: tuple[Posting, ...]
    by_hand: bool = False
    futures: FuturesEntry | None = None


@dataclass(frozen=True, slots=True)
class MarketReading:
    """A futures market and the position in it in one cycle. `notional_raw` is signed and at the
    mark, `pending_funding_raw` is unsettled funding (negative: to be received), and `funding_daily`
    is the share of notional that longs pay a day.
    """

    market: str
    symbol: str
    size_raw: int
    notional_raw: int
    pending_funding_raw: int
    funding_daily: Value


@dataclass(frozen=True, slots=True)
class MarginReading:
    """The margin account in one cycle, in quote base units; `collateral_unit_raw` is the value of
    one base unit of the collateral. `realised_raw` is profit that is not settled into the
    collateral yet. `counts_in_weights` says whether the account counted in the spot weights.
    """

    collateral_unit_raw: int
    collateral_raw: int
    realised_raw: int
    unrealised_raw: int
    markets: tuple[MarketReading, ...]
    counts_in_weights: bool = True

    @property
    def cash_raw(self) -> int:
        """Collateral and realised profit, which transfers, trades and settled funding change."""
        return self.collateral_raw + self.realised_raw

    @property
    def value_raw(self) -> int:
        """Account value."""
        pending_raw = sum(market.pending_funding_raw for market in self.markets)
        return self.cash_raw - pending_raw + self.unrealised_raw

    @property
    def value_in_collateral_raw(self) -> int:
        """Account value in base units of the collateral, rounded down; zero for an account
        in debt.
        """
        return max(0, self.value_raw // self.collateral_unit_raw)


@dataclass(frozen=True, slots=True)
class LedgerOpening:
    """Opening balance of a token in the wallet (`place` "") or in the liquidity position named
    `place`.
    """

    place: str
    token: str
    raw: int
    value: Value | None
    block: int
    chain_s: int


@dataclass(frozen=True, slots=True)
class ValuedHolding:
    """Holding of one token in one cycle, in base units: in the wallet, outside of it, and as the
    value of the margin account. units.NATIVE is the native coin.

    `reserved_raw` is the part of the wallet's balance outside the managed portfolio: gas money,
    reserves and limits.native_floor.
    """

    token: str
    wallet_raw: int
    outside_raw: int
    price: Price
    target_bps: int
    reserved_raw: int = 0
    margin: MarginReading | None = None

    @property
    def margin_raw(self) -> int:
        """Value of the margin account in base units of this token."""
        return 0 if self.margin is None else self.margin.value_in_collateral_raw

    @property
    def total_raw(self) -> int:
        """Base units in all places, reserves included."""
        return self.wallet_raw + self.outside_raw + self.margin_raw

    @property
    def managed_raw(self) -> int:
        """Base units of the managed portfolio, the basis of returns and drawdowns."""
        return self.total_raw - self.reserved_raw

    @property
    def raw_in_weights(self) -> int:
        """Base units that counted in the weights."""
        is_margin_separate = self.margin is not None and not self.margin.counts_in_weights
        return self.managed_raw - (self.margin_raw if is_margin_separate else 0)

    @property
    def is_gas_money(self) -> bool:
        """True for native coin without a managed part."""
        return (
            self.token == NATIVE and self.outside_raw == 0 and self.reserved_raw == self.wallet_raw
        )


@dataclass(frozen=True, slots=True)
class Valuation:
    """Value of all recorded holdings at the reference prices of one cycle, in numeraire
    base units.
    """

    block: int
    chain_s: int
    value: Value
    holdings: tuple[ValuedHolding, ...]

    @property
    def collateral(self) -> ValuedHolding | None:
        """The holding of the margin account's collateral, with the account's reading; None without
        an account.
        """
        return next((holding for holding in self.holdings if holding.margin is not None), None)

    @property
    def gas_money_value(self) -> Value:
        """Value of the native coin that only pays for gas."""
        return sum(
            (
                holding.reserved_raw * holding.price
                for holding in self.holdings
                if holding.is_gas_money
            ),
            Fraction(0),
        )

    @property
    def reserved_value(self) -> Value:
        """Value of gas money and of all reserves."""
        return sum((holding.reserved_raw * holding.price for holding in self.holdings), Fraction(0))

    @property
    def managed_value(self) -> Value:
        """Value of the managed portfolio: the total that `trimtab status` shows."""
        return self.value - self.reserved_value


@dataclass(frozen=True, slots=True)
class LedgerBalance:
    """Wallet balance of a token according to the ledger, in base units, including mined
    transactions that are not final.
    """

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class LedgerTokens:
    """Tokens of the ledger, including former assets; the numeraire; the wrapped native coin
    `wrapped_native`.
    """

    tokens: tuple[Token, ...]
    numeraire: Token
    wrapped_native: str


class LotMethod(Enum):
    """Order in which a disposal consumes lots."""

    FIFO = "fifo"
    LIFO = "lifo"
    HIFO = "hifo"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class OpenLot:
    """Unsold part of one acquisition, in base units, and its cost in reporting units (numeraire
    base units times the rate).
    """

    token: str
    raw: int
    cost: Value
    acquired_s: int


@dataclass(frozen=True, slots=True)
class TaxInputs:
    """Inputs for a plan's taxable gain: open lots, gains realised this year, and the year's limit
    (None: no limit).

    `rate` is reporting units per numeraire base unit at this block; `currency` is the name of the
    reporting currency, empty for the numeraire. `tax_rate_bps` is the tax on a gain (zero: tax is
    no cost of a trade). `pays_gas` is false for a Safe, whose executors dispose of the gas. `fault`
    says why gains are unknown, such as an unreadable exchange rate; there are no lots then.
    """

    method: LotMethod
    currency: str
    rate: Value
    lots: tuple[OpenLot, ...]
    realised_gain: Value
    year_limit: Value | None
    tax_rate_bps: int = 0
    pays_gas: bool = True
    fault: str = ""


# --- Unexplained balance changes, and the expected balance of each token.


class ExternalTransferKind(Enum):
    """Cause of an unexplained balance change. The agent sets REBASE, GAS_MONEY, UNDONE, ACCEPTED and
    AUTOMATIC, the owner the others.

    UNDONE marks a decrease that was restored to the last base unit, and the increase that restored
    it. ACCEPTED is an increase that no one explained within limits.balance_jump_wait: it counts as
    a deposit, and the owner may still reclassify it. AUTOMATIC is the same for an increase within
    limits.deposit_auto.
    """

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    GIFT = "gift"
    LOSS = "loss"
    REBASE = "rebase"
    GAS_MONEY = "gas money"
    UNDONE = "undone"
    ACCEPTED = "accepted"
    AUTOMATIC = "automatic deposit"


ACCEPTED_KINDS = (ExternalTransferKind.ACCEPTED, ExternalTransferKind.AUTOMATIC)
"""Kinds of an increase that the agent accepted as a deposit."""


NON_LOSS_KINDS = (ExternalTransferKind.WITHDRAWAL, ExternalTransferKind.UNDONE)
"""Kinds of a decrease that is not a loss. Every other decrease counts as a loss, including an
unexplained one.
"""


@dataclass(frozen=True, slots=True)
class ExternalTransfer:
    """A balance change between two blocks that no transaction of the agent explains, in signed base
    units.

    `value` is in signed numeraire base units, at the reference price when the change was found or
    at the first one afterwards (None: no price yet). `chain_s` is the chain time when the change
    was found. `exceeds_jump_limit` marks a change beyond limits.balance_jump: purchases and
    rebalances stop until its `kind` is known; exits, withdrawals and shutdown continue. `id` is 0
    until it is stored. `undone_ids` are ids of open decreases that this increase restores and
    closes.
    """

    id: int
    token: str
    delta_raw: int
    value: Value | None
    since_block: int
    block: int
    chain_s: int
    exceeds_jump_limit: bool
    kind: ExternalTransferKind | None
    undone_ids: tuple[int, ...] = ()

    @property
    def is_open(self) -> bool:
        """True while the change is not explained."""
        return self.kind is None

    @property
    def blocks_trading(self) -> bool:
        """True while the change blocks purchases and rebalances."""
        return self.exceeds_jump_limit and self.is_open

    @property
    def is_loss(self) -> bool:
        """True if the change counts against limits.daily_loss: a decrease of any kind except
        NON_LOSS_KINDS.
        """
        return self.delta_raw < 0 and self.kind not in NON_LOSS_KINDS

    @property
    def awaits_price(self) -> bool:
        """True while the first price of its token will value the change: it is open or a loss."""
        return self.value is None and (self.is_open or self.is_loss)


@dataclass(frozen=True, slots=True)
class OpeningBalance:
    """Balance at `block`, excluding the transactions in ExpectedBalances.own_changes; units.NATIVE
    is the native coin.
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
    """Expected balances: openings, later transactions of the agent, and the newest external
    transfers.

    `unsettled_nonce` is the lowest nonce of the agent without a recorded outcome, also of a proposal
    that was given up. `version` is the number of writes of the openings, so that two processes do
    not record one transfer twice.
    """

    openings: tuple[OpeningBalance, ...]
    own_changes: tuple[OwnBalanceChange, ...]
    transfers: tuple[ExternalTransfer, ...]
    unsettled_nonce: int | None
    version: int


@dataclass(frozen=True, slots=True)
class CashAccount:
    """Account of portfolio.use_cash: the numeraire `token` that the agent took from the wallet, at
    most `limit_raw`, and the part left alone, in base units.

    `newest_transfer_id` and `newest_intent_seq` are the newest external transfer and payout that it
    contains, `counted_tx_hashes` the transactions that are not in the journal (numbers of records,
    and hashes).
    """

    token: str
    limit_raw: int
    taken_raw: int
    unused_raw: int
    newest_transfer_id: int = 0
    newest_intent_seq: int = 0
    counted_tx_hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CashMemory:
    """The stored account of portfolio.use_cash (None: not opened, or that of another numeraire), and
    the numeraire's changes since it was stored: external transfers, and the amounts of final
    payouts. `newest_transfer_id`, `newest_intent_seq` and `counted_tx_hashes` are the newest items
    contained in `changes` and `payouts_raw`; they are stored with the account once it includes
    them. `version` is the number of the account's writes.
    """

    account: CashAccount | None
    changes: tuple[int, ...]
    payouts_raw: tuple[int, ...]
    newest_transfer_id: int
    newest_intent_seq: int
    counted_tx_hashes: tuple[str, ...]
    version: int


@dataclass(frozen=True, slots=True)
class CashState:
    """The account of portfolio.use_cash at a step's block, and the numeraire that the agent does
    not use then.

    `is_stored` is false if the account has to be recorded before anything is sent; `is_known` is
    false while it cannot be opened. `record_version` is the version of the stored account.
    `unused_raw` includes changes that are not recorded yet, unlike that of `account`.
    """

    account: CashAccount
    is_stored: bool
    is_known: bool
    record_version: int
    unused_raw: int = 0


@dataclass(frozen=True, slots=True)
class ExternalTransaction:
    """A wallet transaction that is not in the journal: its use of daily limits and its balance
    changes.

    Values are in numeraire base units, `changes` are (token, signed base units), gas included.
    `nonce` orders the transactions of one block. `outflow` is the value paid out without anything
    in return.
    """

    tx_hash: str
    block: int
    chain_s: int
    turnover: Value
    loss: Value
    gas_wei: int
    changes: tuple[tuple[str, int], ...]
    nonce: int
    outflow: Value = Fraction(0)
