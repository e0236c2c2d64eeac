"""Run the live futures plan over every bar of a path, with and without the agent.

At each bar, in this order: prices, funding, liquidation by the venue, fills of the orders that were
planned at earlier bars, plan. A plan sees prices up to its bar; its orders are filled at a later
one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from agent import codec
from agent.backtest.futures.book import (
    BookProfit,
    FuturesBook,
    FuturesFill,
    Liquidation,
    PerpVenueSettings,
)
from agent.backtest.futures.market import FuturesPath
from agent.margin import account as margin
from agent.model.futures import FuturesPlan, FuturesPolicy, MarginAccount, PerpMarket
from agent.planning.futures import plan_futures
from agent.units import BPS, Token

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
DECIMALS = 18
QUOTE = Token("", "USD", DECIMALS)


@dataclass(frozen=True, slots=True)
class FuturesSettings:
    """Settings of a simulated book. `collateral_raw` is deposited at the start, `reserve_raw` stays
    in the wallet. Orders are filled at the bar after their plan, plus `latency_bars`.
    """

    policy: FuturesPolicy
    venue: PerpVenueSettings
    collateral_raw: int
    reserve_raw: int
    latency_bars: int
    seed: int


@dataclass(frozen=True, slots=True)
class BookResult:
    """One book over the bars. `equity` is its value, reserve included, in whole coins, `leverage`
    its gross notional divided by account value, `utilisation` the share of the account value that
    is not free (both infinite for positions in an account without value), `funding` the funding
    paid so far, in whole coins; all after the fills of each bar.
    """

    final_raw: int
    profit: BookProfit
    equity: Floats
    leverage: Floats
    utilisation: Floats
    funding: Floats
    deposited_raw: int
    sizes: tuple[tuple[str, int], ...]
    fills: tuple[FuturesFill, ...]
    liquidations: tuple[Liquidation, ...]
    unfilled: tuple[tuple[str, int], ...]
    refused: tuple[tuple[str, int], ...]

    def bars_above(self, limit_bps: int) -> int:
        """Number of bars that end above a leverage."""
        return int((self.leverage > limit_bps / BPS).sum())

    def longest_above(self, limit_bps: int) -> int:
        """Largest number of consecutive bars that end above a leverage."""
        longest = run = 0
        for is_above in (self.leverage > limit_bps / BPS).tolist():
            run = run + 1 if is_above else 0
            longest = max(longest, run)
        return longest


@dataclass(frozen=True, slots=True)
class FuturesResult:
    """The book with the agent, and a book that holds the same first positions."""

    symbols: tuple[str, ...]
    times_s: tuple[int, ...]
    start_raw: int
    agent: BookResult
    held: BookResult
    settings: FuturesSettings
    config_hash: str
    data_hash: str


class _Trader:
    """A book and its pending orders. Without `is_agent` it stops trading once its first positions
    are open.
    """

    def __init__(self, book: FuturesBook, settings: FuturesSettings, *, is_agent: bool) -> None:
        self.book, self._settings, self._is_agent = book, settings, is_agent
        self._policy = settings.policy
        self._plan: FuturesPlan | None = None
        self._due_bar = 0
        self.refused: Counter[str] = Counter()

    def fill_due(self, bar: int, time_s: int, spot_value: Fraction) -> None:
        """Fill the orders of the plan that is due. In an emergency half is closed and the account
        is judged again, as the live step does after each order.
        """
        if self._plan is None or bar < self._due_bar:
            return
        plan, self._plan = self._plan, None
        while plan.orders or plan.top_up_raw:
            done = len(self.book.fills)
            if plan.top_up_raw:
                self.book.deposit(plan.top_up_raw)
            for order in plan.orders:
                self.book.fill(order, bar, time_s, plan.trigger)
            if not plan.is_emergency or self._settings.latency_bars:
                return
            if len(self.book.fills) == done:
                return
            plan = self._planned(time_s, spot_value)
            if not plan.is_reducing:
                return

    def plan(self, bar: int, time_s: int, spot_value: Fraction, policy: FuturesPolicy) -> None:
        """Plan towards the targets of `policy` like the live step, unless orders are pending."""
        self._policy = policy
        if self._plan is not None or not (self._is_agent or not self.book.fills):
            return
        plan = self._planned(time_s, spot_value)
        self.refused.update(plan.refused)
        if plan.orders or plan.top_up_raw:
            self._plan, self._due_bar = plan, bar + 1 + self._settings.latency_bars

    def _planned(self, time_s: int, spot_value: Fraction) -> FuturesPlan:
        account = self.book.account
        available = self.book.reserve_raw // account.settlement_raw if self._is_agent else 0
        return plan_futures(account, self._policy, spot_value, time_s, available)


def simulate_futures(
    path: FuturesPath,
    settings: FuturesSettings,
    spot_values: Sequence[Fraction] = (),
    progress: Progress | None = None,
    policies: Sequence[FuturesPolicy] = (),
) -> FuturesResult:
    """Simulate both books. `spot_values` are the spot portfolio's values by bar, in quote base
    units (default: zero). `policies` are the targets in effect by bar (default: those of the
    settings).
    """
    traders = [
        _Trader(_opened(path, settings), settings, is_agent=is_agent) for is_agent in (True, False)
    ]
    paths = [np.empty((4, path.bars)) for _ in traders]
    for bar, time_s in enumerate(path.times_s):
        markets = markets_at(path, settings, bar)
        spot_value = spot_values[bar] if spot_values else Fraction(0)
        for trader, figures in zip(traders, paths, strict=True):
            book = trader.book
            book.mark(markets)
            for payment in path.payments[bar]:
                price = path.index[payment.price_bar][payment.column]
                book.pay_funding(path.symbols[payment.column], payment.rate, price)
            if bar not in path.paused:
                book.liquidate(bar, time_s)
            trader.fill_due(bar, time_s, spot_value)
            figures[:, bar] = _figures(book)
            trader.plan(bar, time_s, spot_value, policies[bar] if policies else settings.policy)
        if progress is not None:
            progress(bar + 1, path.bars)
    agent, held = (_result(trader, figures) for trader, figures in zip(traders, paths, strict=True))
    return FuturesResult(
        path.symbols,
        path.times_s,
        settings.collateral_raw + settings.reserve_raw,
        agent,
        held,
        settings,
        settings_digest(settings, policies),
        path_digest(path),
    )


def markets_at(path: FuturesPath, settings: FuturesSettings, bar: int) -> tuple[PerpMarket, ...]:
    """Return the markets at a bar."""
    venue, lots = settings.venue, dict(settings.venue.lots)
    return tuple(
        PerpMarket(
            market=symbol,
            symbol=symbol,
            asset=symbol,
            size_decimals=DECIMALS,
            lot_raw=lots[symbol],
            tick=Fraction(1, QUOTE.unit),
            tiers=venue.tiers,
            fee_ppm=venue.fee_ppm,
            mark=path.marks[bar][column],
            index=path.index[bar][column],
            index_s=path.priced_s[bar][column],
            funding_daily=path.daily[bar][column],
            is_paused=bar in path.paused,
        )
        for column, symbol in enumerate(path.symbols)
    )


def settings_digest(settings: FuturesSettings, policies: Sequence[FuturesPolicy] = ()) -> str:
    """SHA-256 of the settings and of the targets by bar, without the seed."""
    parts = (
        codec.dumps(settings.policy),
        codec.dumps(settings.venue),
        f"{settings.collateral_raw} {settings.reserve_raw} {settings.latency_bars}",
        *map(codec.dumps, policies),
    )
    return sha256("\n".join(parts).encode()).hexdigest()


def path_digest(path: FuturesPath) -> str:
    """SHA-256 of prices, funding and pauses."""
    rows = (path.symbols, path.times_s, path.priced_s, sorted(path.paused))
    prices = [[str(price) for price in row] for row in (*path.index, *path.marks)]
    paid = [
        (bar, one.column, str(one.rate), one.price_bar)
        for bar, payments in enumerate(path.payments)
        for one in payments
    ]
    return sha256(repr((rows, prices, paid)).encode()).hexdigest()


def _opened(path: FuturesPath, settings: FuturesSettings) -> FuturesBook:
    account = MarginAccount(QUOTE, 1, settings.collateral_raw, 0, (), markets_at(path, settings, 0))
    return FuturesBook(account, settings.reserve_raw, settings.venue)


def _figures(book: FuturesBook) -> tuple[float, float, float, float]:
    """Return equity, leverage, utilisation and funding paid, as in BookResult."""
    ratios = [margin.leverage(book.account), margin.utilisation(book.account)]
    leverage, used = (float("inf") if one is None else float(one) for one in ratios)
    return (
        book.value_raw / QUOTE.unit,
        leverage,
        used,
        book.profit.funding_raw / QUOTE.unit,
    )


def _result(trader: _Trader, figures: Floats) -> BookResult:
    book = trader.book
    equity, leverage, utilisation, funding = figures
    return BookResult(
        book.value_raw,
        book.profit,
        equity,
        leverage,
        utilisation,
        funding,
        book.deposited_raw,
        tuple((held.market, held.size_raw) for held in book.account.positions),
        tuple(book.fills),
        tuple(book.liquidations),
        tuple(sorted(book.unfilled.items())),
        tuple(sorted(trader.refused.items())),
    )
