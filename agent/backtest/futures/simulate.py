"""Settings and results of simulated futures books, and the book that only holds its first
positions. At each bar, in this order: prices, funding, liquidation by the venue, fills of the
orders due, plan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256

import numpy as np

from agent import codec
from agent.backtest.futures.book import (
    BookFill,
    BookProfit,
    FuturesBook,
    FuturesPath,
    HedgeRecord,
    Liquidation,
    PerpVenueSettings,
)
from agent.floats import FloatArray
from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.policy.chosen_weights import policy_with_shares
from agent.margin import account as margin
from agent.model import FuturesPlan, FuturesPolicy, MarginAccount, PerpMarket
from agent.units import BPS, Token

DECIMALS = 18
QUOTE = Token("", "USD", DECIMALS)
FIGURE_COUNT = 5
"""Number of the figures of a book at each bar."""


@dataclass(frozen=True, slots=True)
class FuturesSettings:
    """Settings of a simulated book. `collateral_raw` is deposited at the start, `reserve_raw` stays
    in the wallet. The agent's orders are filled `latency_bars` after their plan, those of the held
    book one bar later.
    """

    policy: FuturesPolicy
    venue: PerpVenueSettings
    collateral_raw: int
    reserve_raw: int
    latency_bars: int
    seed: int

    @property
    def start_value_raw(self) -> int:
        """Value of the book before its first bar."""
        return self.collateral_raw + self.reserve_raw

    def digest(self, policies: Sequence[FuturesPolicy] = ()) -> str:
        """Return the SHA-256 of the settings and of the targets by bar, without the seed."""
        hashed_texts = (
            codec.dumps(self.policy),
            codec.dumps(self.venue),
            f"{self.collateral_raw} {self.reserve_raw} {self.latency_bars}",
            *map(codec.dumps, policies),
        )
        return sha256("\n".join(hashed_texts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class BookResult:
    """One book over the bars. `equity` is its value, reserve included, in whole coins, `leverage`
    its gross notional divided by account value, `utilisation` its initial margin divided by account
    value (both infinite for positions in an account without value), `funding_paid` the funding paid
    and `profits` the profit so far, in whole coins; all after the fills of each bar. `max_leverage` is the limit. `sizes` are
    by symbol; `unfilled_counts` counts the orders that were not filled, and `refusal_counts`
    those that were cut or left out before, by reason.
    """

    final_value_raw: int
    profit: BookProfit
    equity: FloatArray
    leverage: FloatArray
    utilisation: FloatArray
    funding_paid: FloatArray
    profits: FloatArray
    max_leverage: float
    deposited_raw: int
    sizes: tuple[tuple[str, int], ...]
    fills: tuple[BookFill, ...]
    liquidations: tuple[Liquidation, ...]
    unfilled_counts: tuple[tuple[str, int], ...]
    refusal_counts: tuple[tuple[str, int], ...]

    @property
    def growth(self) -> FloatArray:
        """Growth of a unit from the first bar on; collateral from the wallet is none. For
        a book that always has a value.
        """
        returns = np.diff(self.profits) / self.equity[:-1]
        growth: FloatArray = np.cumprod(np.concatenate([[1.0], 1 + returns]))
        return growth

    @property
    def highest_leverage(self) -> float | None:
        """Highest leverage; None if the account value reached zero with open positions."""
        highest_leverage = float(self.leverage.max())
        return None if math.isinf(highest_leverage) else highest_leverage

    @property
    def bars_above_limit(self) -> int:
        """Number of bars that end above the limit."""
        return int((self.leverage > self.max_leverage).sum())

    @property
    def longest_above_limit(self) -> int:
        """Largest number of consecutive bars that end above the limit."""
        longest_streak = streak = 0
        for is_above in (self.leverage > self.max_leverage).tolist():
            streak = streak + 1 if is_above else 0
            longest_streak = max(longest_streak, streak)
        return longest_streak


@dataclass(frozen=True, slots=True)
class FuturesResult:
    """The agent's book with its hedges, and a book that holds the same first positions (`held_book`).
    `notes` are on the data.
    """

    path: FuturesPath
    settings: FuturesSettings
    config_hash: str
    agent_book: BookResult
    held_book: BookResult
    hedges: tuple[HedgeRecord, ...]
    notes: tuple[str, ...]


def held_book(
    path: FuturesPath,
    settings: FuturesSettings,
    spot_values: Sequence[Fraction] = (),
    policies: Sequence[FuturesPolicy] = (),
) -> BookResult:
    """Return the book that opens the first targets and holds them: it plans until its first orders
    are filled. `spot_values` are the spot portfolio's values by bar, in quote base units (default:
    zero), `policies` the targets in effect by bar (default: those of the settings).
    """
    book = initial_book(path, settings)
    figures = np.empty((FIGURE_COUNT, path.bar_count))
    refusal_counts: Counter[str] = Counter()
    pending_plan: FuturesPlan | None = None
    due_bar = 0
    for bar, time_s in enumerate(path.times_s):
        settle_bar(book, path, bar, markets_at(path, settings, bar))
        if pending_plan is not None and bar >= due_bar:
            for order in pending_plan.orders:
                book.fill_order(order, bar, time_s, pending_plan.trigger)
            pending_plan = None
        figures[:, bar] = book_figures(book)
        if pending_plan is None and not book.fills:
            policy = policies[bar] if policies else settings.policy
            policy = replace(policy, is_review_due=policy.schedule is not None)
            spot_value = spot_values[bar] if spot_values else Fraction(0)
            plan = plan_futures(book.account, policy, spot_value, time_s)
            refusal_counts.update(plan.refusal_texts)
            if plan.orders:
                pending_plan = plan
                due_bar = bar + 1 + settings.latency_bars
    return book_result(book, settings, figures, sorted(refusal_counts.items()))


def policies_by_bar(
    policy: FuturesPolicy,
    weights_by_bar: Sequence[tuple[int, Mapping[str, Fraction]]],
    bars: Iterable[int],
) -> tuple[FuturesPolicy, ...]:
    """Return the policy in effect at each of `bars`, following the requested weights; empty without
    any. Nothing is held before the first weights.
    """
    if not weights_by_bar:
        return ()
    current_policy = policy_with_shares(
        policy, {target.market: Fraction(0) for target in policy.targets}
    )
    policies = []
    pending_weights = [*weights_by_bar]
    for bar in bars:
        while pending_weights and pending_weights[0][0] <= bar:
            current_policy = policy_with_shares(policy, pending_weights.pop(0)[1])
        policies.append(current_policy)
    return tuple(policies)


def settle_bar(
    book: FuturesBook, path: FuturesPath, bar: int, markets: tuple[PerpMarket, ...]
) -> None:
    """Move a book's prices to a bar, pay the funding since the previous bar, and liquidate."""
    book.mark_to_market(markets)
    for payment in path.payments[bar]:
        price = path.index_prices[payment.price_bar][payment.column]
        book.pay_funding(markets[payment.column].market, payment.rate, price)
    if bar not in path.paused_bars:
        book.liquidate(bar, path.times_s[bar])


def markets_at(
    path: FuturesPath,
    settings: FuturesSettings,
    bar: int,
    market_and_asset_by_symbol: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[PerpMarket, ...]:
    """Return the markets at a bar. `market_and_asset_by_symbol` maps each symbol to its (market,
    asset); by default both names are the symbol itself.
    """
    venue = settings.venue
    lots = dict(settings.venue.lots)
    markets_and_assets = [
        (market_and_asset_by_symbol or {}).get(symbol, (symbol, symbol)) for symbol in path.symbols
    ]
    return tuple(
        PerpMarket(
            market=market,
            symbol=symbol,
            asset=asset,
            size_decimals=DECIMALS,
            lot_raw=lots[symbol],
            tiers=venue.tiers,
            fee_ppm=venue.fee_ppm,
            mark=path.mark_prices[bar][column],
            index=path.index_prices[bar][column],
            index_s=path.index_times_s[bar][column],
            funding_daily=path.daily_rates[bar][column],
            is_paused=bar in path.paused_bars,
        )
        for column, (symbol, (market, asset)) in enumerate(
            zip(path.symbols, markets_and_assets, strict=True)
        )
    )


def initial_book(
    path: FuturesPath,
    settings: FuturesSettings,
    collateral_unit_raw: int = 1,
    market_and_asset_by_symbol: Mapping[str, tuple[str, str]] | None = None,
) -> FuturesBook:
    """Return a book without positions at the first bar. `collateral_unit_raw` is one base unit of
    the collateral in quote base units; `market_and_asset_by_symbol` as in `markets_at`.
    """
    markets = markets_at(path, settings, 0, market_and_asset_by_symbol)
    account = MarginAccount(QUOTE, collateral_unit_raw, settings.collateral_raw, 0, (), markets)
    return FuturesBook(account, settings.reserve_raw, settings.venue)


def book_figures(book: FuturesBook) -> tuple[float, float, float, float, float]:
    """Return equity, leverage, utilisation, funding paid and profit, as in BookResult."""
    leverage_and_utilisation = [margin.leverage(book.account), margin.utilisation(book.account)]
    leverage, utilisation = (
        float("inf") if ratio is None else float(ratio) for ratio in leverage_and_utilisation
    )
    return (
        book.value_raw / QUOTE.unit,
        leverage,
        utilisation,
        book.profit.funding_raw / QUOTE.unit,
        book.profit.total_raw / QUOTE.unit,
    )


def book_result(
    book: FuturesBook,
    settings: FuturesSettings,
    figures: FloatArray,
    refusal_counts: Sequence[tuple[str, int]],
) -> BookResult:
    """Return a book's result: its figures over the bars, and the orders cut or left out by reason."""
    equity, leverage, utilisation, funding, profits = figures
    return BookResult(
        book.value_raw,
        book.profit,
        equity,
        leverage,
        utilisation,
        funding,
        profits,
        settings.policy.limits.max_leverage_bps / BPS,
        book.deposited_raw,
        tuple(
            (book.account.market(position.market).symbol, position.size_raw)
            for position in book.account.positions
        ),
        tuple(book.fills),
        tuple(book.liquidations),
        tuple(sorted(book.unfilled_counts.items())),
        tuple(refusal_counts),
    )
