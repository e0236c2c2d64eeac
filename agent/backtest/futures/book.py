"""A simulated futures book: account, profit, fills and liquidations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.margin import account as margin
from agent.model.futures import MarginAccount, MarginTier, PerpMarket, PerpOrder
from agent.units import BPS, ceil_int, floor_int, mul_div_up

MOST_LIQUIDATIONS = 100
"""Maximum number of liquidations in one bar; never reached, since each halves the notional or
closes a position.
"""


@dataclass(frozen=True, slots=True)
class PerpVenueSettings:
    """The simulated venue. `fee_ppm` and `penalty_ppm` are shares of the notional that is traded or
    liquidated; a fill is `slippage_bps` worse than the mark. `lots` are the smallest size steps by
    symbol, in base units.
    """

    tiers: tuple[MarginTier, ...]
    fee_ppm: int
    slippage_bps: int
    penalty_ppm: int
    lots: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class BookProfit:
    """Components of a book's profit, in quote base units: value after = value before + `price_raw`
    - `slippage_raw` - `funding_raw` - `fees_raw` - `penalties_raw` + `insured_raw`.

    `price_raw` is the effect of mark price changes on the sizes held. `insured_raw` is a loss
    beyond the collateral, which the venue's insurance fund bears.
    """

    price_raw: int = 0
    slippage_raw: int = 0
    funding_raw: int = 0
    fees_raw: int = 0
    penalties_raw: int = 0
    insured_raw: int = 0

    @property
    def total_raw(self) -> int:
        """Change of the book's value."""
        costs = self.slippage_raw + self.funding_raw + self.fees_raw + self.penalties_raw
        return self.price_raw - costs + self.insured_raw


@dataclass(frozen=True, slots=True)
class BookFill:
    """A filled order in the market of a symbol: signed size, and quote exchanged without the fee
    (positive: received).
    """

    bar: int
    time_s: int
    symbol: str
    size_raw: int
    quote_raw: int
    fee_raw: int
    trigger: str


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A liquidation by the venue: signed size that was closed, and the penalty."""

    bar: int
    time_s: int
    symbol: str
    size_raw: int
    penalty_raw: int


class FuturesBook:
    """A margin account that is marked to market, pays funding, fills orders and can be liquidated.
    `reserve_raw` is collateral in the wallet, which the agent may deposit.
    """

    def __init__(self, account: MarginAccount, reserve_raw: int, venue: PerpVenueSettings) -> None:
        self.account, self.reserve_raw, self._venue = account, reserve_raw, venue
        self.profit = BookProfit()
        self.deposited_raw = 0
        self.fills: list[BookFill] = []
        self.liquidations: list[Liquidation] = []
        self.unfilled: Counter[str] = Counter()

    def copy(self) -> FuturesBook:
        """Return an independent copy of the book."""
        found = FuturesBook(self.account, self.reserve_raw, self._venue)
        found.profit, found.deposited_raw = self.profit, self.deposited_raw
        found.fills, found.liquidations = [*self.fills], [*self.liquidations]
        found.unfilled = self.unfilled.copy()
        return found

    @property
    def value_raw(self) -> int:
        """Account value and reserve."""
        return margin.account_value_raw(self.account) + self.reserve_raw

    def mark(self, markets: tuple[PerpMarket, ...]) -> None:
        """Move all prices."""
        before = margin.unrealised_raw(self.account)
        self.account = replace(self.account, markets=markets)
        self._add(price_raw=margin.unrealised_raw(self.account) - before)

    def pay_funding(self, market: str, rate: Fraction, price: Fraction) -> None:
        """Settle a payment on the size held, rounded against the holder."""
        paid_raw = ceil_int(self.account.size_raw(market) * price * rate)
        self._realise(-paid_raw)
        self._add(funding_raw=paid_raw)

    def deposit(self, raw: int, *, from_wallet: bool = False) -> None:
        """Move collateral into the account, from the reserve or from a wallet outside the book."""
        quote_raw = raw * self.account.settlement_raw
        self.reserve_raw -= 0 if from_wallet else quote_raw
        self.deposited_raw += quote_raw
        self.account = replace(self.account, collateral_raw=self.account.collateral_raw + quote_raw)

    def liquidate(self, bar: int, time_s: int) -> None:
        """Close positions as liquidators may, the largest first, until the account value covers the
        maintenance margin.
        """
        for _ in range(MOST_LIQUIDATIONS):
            if not self.account.positions or not margin.is_liquidatable(self.account):
                break
            largest = max(
                self.account.positions,
                key=lambda held: abs(margin.value_at_mark_raw(self.account, held)),
            )
            size_raw = margin.liquidatable_size_raw(self.account, largest.market)
            value_raw = margin.position_value_raw(self.account.market(largest.market), size_raw)
            penalty_raw = mul_div_up(abs(value_raw), self._venue.penalty_ppm, margin.PPM)
            self._trade(largest.market, -size_raw, value_raw, penalty_raw)
            self._add(penalties_raw=penalty_raw)
            symbol = self.account.market(largest.market).symbol
            self.liquidations.append(Liquidation(bar, time_s, symbol, -size_raw, penalty_raw))
        lost_raw = -margin.account_value_raw(self.account)
        if lost_raw > 0 and not self.account.positions:
            self._realise(lost_raw)
            self._add(insured_raw=lost_raw)

    def fill(self, order: PerpOrder, bar: int, time_s: int, trigger: str) -> None:
        """Fill an order at the mark less slippage and fee, or count it as unfilled if the venue
        would revert it.
        """
        if why := self.revert_reason(order, time_s):
            self.unfilled[why] += 1
            return
        size_raw = self._fillable_raw(order)
        held = self.account.market(order.market)
        quote_raw, fee_raw = self.exchanged(held, size_raw)
        self._trade(order.market, size_raw, quote_raw, fee_raw)
        self._add(fees_raw=fee_raw)
        self.fills.append(BookFill(bar, time_s, held.symbol, size_raw, quote_raw, fee_raw, trigger))

    def revert_reason(self, order: PerpOrder, time_s: int) -> str:
        """Return the reason why the venue would revert an order; empty if it fills."""
        size_raw, held = self._fillable_raw(order), self.account.market(order.market)
        exchanged_raw, fee_raw = self.exchanged(held, size_raw)
        quote_raw = exchanged_raw - fee_raw
        if not size_raw:
            return "the position is closed"
        if held.is_paused:
            return "the market is paused"
        if held.index_s != time_s:
            return "the market has no price"
        if quote_raw < _bound(order, size_raw):
            return "the price is beyond the order's bound"
        after = margin.with_trade(self.account, order.market, size_raw, quote_raw)
        if not order.is_reduce_only and margin.free_raw(after) < 0:
            return "not enough free margin"
        return ""

    def _fillable_raw(self, order: PerpOrder) -> int:
        """Size of an order, limited for reductions to the position's size."""
        if not order.is_reduce_only:
            return order.size_raw
        held = self.account.size_raw(order.market)
        if held * order.size_raw >= 0:
            return 0
        least = min(abs(held), abs(order.size_raw))
        return least if order.size_raw > 0 else -least

    def exchanged(self, held: PerpMarket, size_raw: int) -> tuple[int, int]:
        """Return the signed quote and the fee of a fill, both rounded against the book."""
        toward = BPS + (self._venue.slippage_bps if size_raw > 0 else -self._venue.slippage_bps)
        quote_raw = floor_int(-size_raw * held.mark * Fraction(toward, BPS))
        return quote_raw, mul_div_up(abs(quote_raw), held.fee_ppm, margin.PPM)

    def _trade(self, market: str, size_raw: int, quote_raw: int, cost_raw: int) -> None:
        held, before = self.account.market(market), self.account.size_raw(market)
        change = margin.position_value_raw(held, before + size_raw)
        change -= margin.position_value_raw(held, before)
        self.account = margin.with_trade(self.account, market, size_raw, quote_raw - cost_raw)
        self._add(slippage_raw=-change - quote_raw)

    def _realise(self, raw: int) -> None:
        self.account = replace(self.account, realised_raw=self.account.realised_raw + raw)

    def _add(self, **changes: int) -> None:
        self.profit = replace(
            self.profit,
            **{name: getattr(self.profit, name) + raw for name, raw in changes.items()},
        )


def _bound(order: PerpOrder, size_raw: int) -> int:
    """Return the bound of a part of an order: its least signed quote, fee included."""
    part = Fraction(order.bound_raw * abs(size_raw), abs(order.size_raw))
    return -floor_int(part) if order.size_raw > 0 else ceil_int(part)
