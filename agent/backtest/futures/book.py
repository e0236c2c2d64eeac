"""A simulated futures book: prices, funding and pauses of its markets over the bars, account,
profit, fills and liquidations, and its hedges with their times and reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256

import numpy as np

from agent.backtest.data import PriceTable, forward_fill, newest_close_bars
from agent.backtest.funding import FundingRateSeries, within_bars_mask
from agent.margin import account as margin
from agent.margin.account import position_value_raw
from agent.model import Hedge, MarginAccount, MarginTier, PerpMarket, PerpOrder
from agent.units import BPS, DAY_S, Price, ceil_int, floor_int, mul_div_up


@dataclass(frozen=True, slots=True)
class FundingPayment:
    """A funding payment of one market (column `column` of the path) within a bar: longs pay `rate`
    of the notional at the index of `price_bar` (negative: shorts pay).
    """

    column: int
    rate: Fraction
    price_bar: int


@dataclass(frozen=True, slots=True)
class FuturesPath:
    """Perpetual markets over the bars of a simulation; a row for each bar, a column for each
    symbol.

    `index_prices` and `mark_prices` are quote base units per base unit of size, `index_times_s` is
    the time of each index, earlier than the bar if the bar has no price. `payments` are those since
    the previous bar. `daily_rates` is the newest known rate, as a share of notional per day. At the
    bars in `paused_bars` there are neither fills nor liquidations.
    """

    symbols: tuple[str, ...]
    times_s: tuple[int, ...]
    index_prices: tuple[tuple[Price, ...], ...]
    mark_prices: tuple[tuple[Price, ...], ...]
    index_times_s: tuple[tuple[int, ...], ...]
    payments: tuple[tuple[FundingPayment, ...], ...]
    daily_rates: tuple[tuple[Fraction, ...], ...]
    paused_bars: frozenset[int] = frozenset()

    @property
    def bar_count(self) -> int:
        """Number of bars."""
        return len(self.times_s)

    @property
    def digest(self) -> str:
        """SHA-256 of prices, funding and pauses."""
        header = (self.symbols, self.times_s, self.index_times_s, sorted(self.paused_bars))
        prices = [[str(price) for price in row] for row in (*self.index_prices, *self.mark_prices)]
        payment_rows = [
            (bar, payment.column, str(payment.rate), payment.price_bar)
            for bar, payments in enumerate(self.payments)
            for payment in payments
        ]
        return sha256(repr((header, prices, payment_rows)).encode()).hexdigest()


def futures_path(table: PriceTable, funding: Sequence[FundingRateSeries] = ()) -> FuturesPath:
    """Return the path of a table's symbols, with marks equal to the index, and funding for symbols
    with rates.
    """
    closes = forward_fill(table.closes)
    close_times_s = table.close_times_s(newest_close_bars(table.closes))
    index_prices = tuple(tuple(Fraction(str(price)) for price in row) for row in closes.tolist())
    payments, daily_rates = _funding_by_bar(table, funding)
    return FuturesPath(
        table.symbols,
        tuple(table.times_s.tolist()),
        index_prices,
        index_prices,
        tuple(tuple(row) for row in close_times_s.tolist()),
        payments,
        daily_rates,
    )


def _funding_by_bar(
    table: PriceTable, funding: Sequence[FundingRateSeries]
) -> tuple[tuple[tuple[FundingPayment, ...], ...], tuple[tuple[Fraction, ...], ...]]:
    """Return payments and newest daily rates by bar. A rate takes effect at the first bar at or
    after its time; its notional uses the newest price at that time, as in `funding_carry`.
    """
    payments: list[list[FundingPayment]] = [[] for _ in range(table.bar_count)]
    daily_rates = [[Fraction(0)] * len(table.symbols) for _ in range(table.bar_count)]
    for series in funding:
        if series.symbol not in table.symbols:
            continue
        column = table.symbols.index(series.symbol)
        is_within = within_bars_mask(series, table.times_s)
        times_s = series.times_s[is_within]
        usual_interval_s = series.usual_interval_s
        payment_bars = np.searchsorted(table.times_s, times_s, side="left").tolist()
        price_bars = (np.searchsorted(table.times_s, times_s, side="right") - 1).tolist()
        for bar, price_bar, rate_float in zip(
            payment_bars, price_bars, series.rates[is_within].tolist(), strict=True
        ):
            rate = Fraction(str(rate_float))
            payments[bar].append(FundingPayment(column, rate, price_bar))
            daily_rates[bar][column] = (
                rate * DAY_S / usual_interval_s if usual_interval_s else Fraction(0)
            )
        for bar in range(1, table.bar_count):
            if not any(payment.column == column for payment in payments[bar]):
                daily_rates[bar][column] = daily_rates[bar - 1][column]
    return tuple(map(tuple, payments)), tuple(map(tuple, daily_rates))


MAX_LIQUIDATIONS = 100
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
    """Components of a book's profit, in quote base units: value after = value before +
    `price_gain_raw`
    - `slippage_raw` - `funding_raw` - `fees_raw` - `penalties_raw` + `insured_raw`.

    `price_gain_raw` is the effect of mark price changes on the sizes held. `insured_raw` is a loss
    beyond the collateral, which the venue's insurance fund bears.
    """

    price_gain_raw: int = 0
    slippage_raw: int = 0
    funding_raw: int = 0
    fees_raw: int = 0
    penalties_raw: int = 0
    insured_raw: int = 0

    @property
    def total_raw(self) -> int:
        """Change of the book's value."""
        costs_raw = self.slippage_raw + self.funding_raw + self.fees_raw + self.penalties_raw
        return self.price_gain_raw - costs_raw + self.insured_raw


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

    @property
    def notional_raw(self) -> int:
        """Quote exchanged, without its sign."""
        return abs(self.quote_raw)


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
        self.account = account
        self.reserve_raw = reserve_raw
        self._venue = venue
        self.profit = BookProfit()
        self.deposited_raw = 0
        self.fills: list[BookFill] = []
        self.liquidations: list[Liquidation] = []
        self.unfilled_counts: Counter[str] = Counter()

    def copy(self) -> FuturesBook:
        """Return an independent copy of the book."""
        book_copy = copy(self)
        book_copy.fills = [*self.fills]
        book_copy.liquidations = [*self.liquidations]
        book_copy.unfilled_counts = self.unfilled_counts.copy()
        return book_copy

    @property
    def value_raw(self) -> int:
        """Account value and reserve."""
        return margin.account_value_raw(self.account) + self.reserve_raw

    def mark_to_market(self, markets: tuple[PerpMarket, ...]) -> None:
        """Move all prices."""
        unrealised_before_raw = margin.unrealised_profit_raw(self.account)
        self.account = replace(self.account, markets=markets)
        self._add_profit(
            price_gain_raw=margin.unrealised_profit_raw(self.account) - unrealised_before_raw
        )

    def pay_funding(self, market: str, rate: Fraction, price: Fraction) -> None:
        """Settle a payment on the size held, rounded against the holder."""
        paid_raw = ceil_int(self.account.size_raw(market) * price * rate)
        self._realise(-paid_raw)
        self._add_profit(funding_raw=paid_raw)

    def deposit(self, raw: int, *, from_wallet: bool = False) -> None:
        """Move collateral into the account, from the reserve, or from a wallet of which the reserve
        is a part.
        """
        quote_raw = raw * self.account.collateral_unit_raw
        self.reserve_raw -= min(self.reserve_raw, quote_raw) if from_wallet else quote_raw
        self.deposited_raw += quote_raw
        self.account = replace(self.account, collateral_raw=self.account.collateral_raw + quote_raw)

    def liquidate(self, bar: int, time_s: int) -> None:
        """Close positions as liquidators may, the largest first, until the account value covers the
        maintenance margin.
        """
        for _ in range(MAX_LIQUIDATIONS):
            if not self.account.positions or not margin.is_liquidatable(self.account):
                break
            largest_position = max(
                self.account.positions,
                key=lambda position: abs(margin.value_at_mark_raw(self.account, position)),
            )
            size_raw = margin.liquidatable_size_raw(self.account, largest_position.market)
            value_raw = margin.position_value_raw(
                self.account.market(largest_position.market), size_raw
            )
            penalty_raw = mul_div_up(abs(value_raw), self._venue.penalty_ppm, margin.PPM)
            self._trade(largest_position.market, -size_raw, value_raw, penalty_raw)
            self._add_profit(penalties_raw=penalty_raw)
            symbol = self.account.market(largest_position.market).symbol
            self.liquidations.append(Liquidation(bar, time_s, symbol, -size_raw, penalty_raw))
        shortfall_raw = -margin.account_value_raw(self.account)
        if shortfall_raw > 0 and not self.account.positions:
            self._realise(shortfall_raw)
            self._add_profit(insured_raw=shortfall_raw)

    def fill_order(self, order: PerpOrder, bar: int, time_s: int, trigger: str) -> None:
        """Fill an order at the mark less slippage and fee, or count it as unfilled if the venue
        would revert it.
        """
        if reason := self.revert_reason(order, time_s):
            self.unfilled_counts[reason] += 1
            return
        size_raw = self._fillable_raw(order)
        perp_market = self.account.market(order.market)
        quote_raw, fee_raw = self.quote_and_fee_raw(perp_market, size_raw)
        self._trade(order.market, size_raw, quote_raw, fee_raw)
        self._add_profit(fees_raw=fee_raw)
        self.fills.append(
            BookFill(bar, time_s, perp_market.symbol, size_raw, quote_raw, fee_raw, trigger)
        )

    def revert_reason(self, order: PerpOrder, time_s: int) -> str:
        """Return the reason why the venue would revert an order; empty if it fills."""
        size_raw = self._fillable_raw(order)
        perp_market = self.account.market(order.market)
        exchanged_raw, fee_raw = self.quote_and_fee_raw(perp_market, size_raw)
        net_quote_raw = exchanged_raw - fee_raw
        if not size_raw:
            return "the position is closed"
        if perp_market.is_paused:
            return "the market is paused"
        if perp_market.index_s != time_s:
            return "the market has no price"
        if net_quote_raw < _bound_for_size(order, size_raw):
            return "the price is beyond the order's bound"
        account_after = margin.with_trade(self.account, order.market, size_raw, net_quote_raw)
        if order.is_reduce_only and not margin.is_reduction_accepted(account_after):
            return "not enough margin for a reduction"
        if not order.is_reduce_only and not margin.is_opening_accepted(account_after):
            return "not enough free margin"
        return ""

    def _fillable_raw(self, order: PerpOrder) -> int:
        """Return the size of an order, limited for reductions to the position's size."""
        if not order.is_reduce_only:
            return order.size_raw
        position_raw = self.account.size_raw(order.market)
        if position_raw * order.size_raw >= 0:
            return 0
        reducible_raw = min(abs(position_raw), abs(order.size_raw))
        return reducible_raw if order.size_raw > 0 else -reducible_raw

    def quote_and_fee_raw(self, perp_market: PerpMarket, size_raw: int) -> tuple[int, int]:
        """Return the signed quote and the fee of a fill, both rounded against the book."""
        price_bps = BPS + (self._venue.slippage_bps if size_raw > 0 else -self._venue.slippage_bps)
        quote_raw = floor_int(-size_raw * perp_market.mark * Fraction(price_bps, BPS))
        return quote_raw, mul_div_up(abs(quote_raw), perp_market.fee_ppm, margin.PPM)

    def _trade(self, market: str, size_raw: int, quote_raw: int, charge_raw: int) -> None:
        perp_market = self.account.market(market)
        size_before_raw = self.account.size_raw(market)
        value_change_raw = margin.position_value_raw(perp_market, size_before_raw + size_raw)
        value_change_raw -= margin.position_value_raw(perp_market, size_before_raw)
        self.account = margin.with_trade(self.account, market, size_raw, quote_raw - charge_raw)
        self._add_profit(slippage_raw=-value_change_raw - quote_raw)

    def _realise(self, raw: int) -> None:
        self.account = replace(self.account, realised_raw=self.account.realised_raw + raw)

    def _add_profit(self, **raw_by_part: int) -> None:
        self.profit = replace(
            self.profit,
            **{part: getattr(self.profit, part) + raw for part, raw in raw_by_part.items()},
        )


def _bound_for_size(order: PerpOrder, size_raw: int) -> int:
    """Return the bound of a part of an order: its least signed quote, fee included."""
    part_bound_raw = Fraction(order.bound_raw * abs(size_raw), abs(order.size_raw))
    return -floor_int(part_bound_raw) if order.size_raw > 0 else ceil_int(part_bound_raw)


@dataclass(frozen=True, slots=True)
class SentPlan:
    """A futures plan whose first action was sent: reason, the hedges after it, and its fill (None
    for an action without one, such as a deposit).
    """

    trigger: str = ""
    reason: str = ""
    hedges: tuple[Hedge, ...] = ()
    fill: BookFill | None = None


@dataclass(frozen=True, slots=True)
class HedgeRecord:
    """One hedge: the market's symbol, its initial size, chain times, and the reasons for opening
    and closing. `closed_s` is None while it is open.

    `profit_raw` is the profit of its fills in quote base units: proceeds less the cost of buying
    back, less fees, with any open remainder valued at the mark price. It excludes funding. None if
    a part was liquidated.
    """

    symbol: str
    token: str
    initial_size_raw: int
    opened_s: int
    open_reason: str
    closed_s: int | None = None
    close_reason: str = ""
    profit_raw: int | None = 0


def hedge_records(
    sent_plans: Iterable[SentPlan], account: MarginAccount
) -> tuple[HedgeRecord, ...]:
    """Return the hedges of a simulation by opening time, from its plans and the account at the
    end.
    """
    records: list[HedgeRecord] = []
    open_hedge_by_token: dict[str, tuple[int, HedgeRecord]] = {}
    for sent_plan in sent_plans:
        for hedge in sent_plan.hedges:
            size_raw, record = open_hedge_by_token.get(hedge.token, (0, None))
            if hedge.size_raw == size_raw:
                continue
            fill = sent_plan.fill
            change_raw = hedge.size_raw - size_raw
            if record is None:
                symbol = account.market(hedge.market).symbol
                record = HedgeRecord(
                    symbol, hedge.token, hedge.size_raw, hedge.at_s, sent_plan.reason
                )
            fill_share = Fraction(0) if fill is None else Fraction(change_raw, fill.size_raw)
            if fill is None or fill.symbol != record.symbol or not 0 < fill_share <= 1:
                record = replace(record, profit_raw=None)  # liquidated since the previous plan
            elif record.profit_raw is not None:
                proceeds_raw = (fill.quote_raw - fill.fee_raw) * fill_share
                record = replace(record, profit_raw=record.profit_raw + round(proceeds_raw))
            open_hedge_by_token[hedge.token] = hedge.size_raw, record
            if not hedge.size_raw:
                closed_s = hedge.at_s if fill is None else fill.time_s
                records.append(replace(record, closed_s=closed_s, close_reason=sent_plan.reason))
                del open_hedge_by_token[hedge.token]
    for size_raw, record in open_hedge_by_token.values():
        hedge_market = next(
            perp_market for perp_market in account.markets if perp_market.symbol == record.symbol
        )
        profit_raw = record.profit_raw
        if profit_raw is not None and abs(account.size_raw(hedge_market.market)) >= abs(size_raw):
            profit_raw += position_value_raw(hedge_market, size_raw)
        records.append(replace(record, profit_raw=profit_raw))
    return tuple(sorted(records, key=lambda record: (record.opened_s, record.symbol)))
