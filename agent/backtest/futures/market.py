"""Prices, funding and pauses of perpetual markets over the bars of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from agent.backtest.data import PriceTable, forward_fill
from agent.backtest.funding import FundingRateSeries, rates_within
from agent.units import Price

DAY_S = 86_400


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

    `index` and `marks` are quote base units per base unit of size, `priced_s` is the time of each
    index, earlier than the bar if the bar has no price. `payments` are those since the previous
    bar. `daily` is the newest known rate, as a share of notional per day. At the bars in `paused`
    there are neither fills nor liquidations.
    """

    symbols: tuple[str, ...]
    times_s: tuple[int, ...]
    index: tuple[tuple[Price, ...], ...]
    marks: tuple[tuple[Price, ...], ...]
    priced_s: tuple[tuple[int, ...], ...]
    payments: tuple[tuple[FundingPayment, ...], ...]
    daily: tuple[tuple[Fraction, ...], ...]
    paused: frozenset[int] = frozenset()

    @property
    def bars(self) -> int:
        """Number of bars."""
        return len(self.times_s)


def futures_path(table: PriceTable, funding: Sequence[FundingRateSeries] = ()) -> FuturesPath:
    """Return the path of a table's symbols, with marks equal to the index, and funding for symbols
    with rates.
    """
    closes = forward_fill(table.closes)
    known = np.where(np.isnan(table.closes), -1, np.arange(table.bars)[:, None])
    newest = np.maximum.accumulate(known, axis=0)
    index = tuple(tuple(Fraction(str(price)) for price in row) for row in closes.tolist())
    payments, daily = _funding(table, funding)
    return FuturesPath(
        table.symbols,
        tuple(table.times_s.tolist()),
        index,
        index,
        tuple(tuple(row) for row in table.times_s[newest].tolist()),
        payments,
        daily,
    )


def _funding(
    table: PriceTable, funding: Sequence[FundingRateSeries]
) -> tuple[tuple[tuple[FundingPayment, ...], ...], tuple[tuple[Fraction, ...], ...]]:
    """Return payments and newest daily rates by bar. A rate takes effect at the first bar at or
    after its time; its notional uses the newest price until then, as in `funding_carry`.
    """
    payments: list[list[FundingPayment]] = [[] for _ in range(table.bars)]
    daily = [[Fraction(0)] * len(table.symbols) for _ in range(table.bars)]
    for series in funding:
        if series.symbol not in table.symbols:
            continue
        column, inside = table.symbols.index(series.symbol), rates_within(series, table.times_s)
        times_s, usual_s = series.times_s[inside], series.usual_s
        bars = np.searchsorted(table.times_s, times_s, side="left").tolist()
        priced = (np.searchsorted(table.times_s, times_s, side="right") - 1).tolist()
        for bar, price_bar, value in zip(bars, priced, series.rates[inside].tolist(), strict=True):
            rate = Fraction(str(value))
            payments[bar].append(FundingPayment(column, rate, price_bar))
            daily[bar][column] = rate * DAY_S / usual_s if usual_s else Fraction(0)
        for bar in range(1, table.bars):
            if not any(payment.column == column for payment in payments[bar]):
                daily[bar][column] = daily[bar - 1][column]
    return tuple(map(tuple, payments)), tuple(map(tuple, daily))
