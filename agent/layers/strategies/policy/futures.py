"""Futures of the strategies: their targets together, and the growth that their health counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.layers.strategies.policy.capital import target_capital_shares
from agent.layers.strategies.policy.health import DAY_S
from agent.layers.strategies.state import (
    CapitalSplit,
    StrategiesState,
    Strategy,
    StrategyBooks,
    StrategyHealth,
    StrategyState,
)
from agent.model import MarketGrowth
from agent.units import BPS, Price, floor_int


def chosen_shares(split: CapitalSplit, state: StrategiesState) -> dict[str, Fraction] | None:
    """Return the signed shares of the target notional, by market, of the strategies together; None
    if none has futures weights.
    """
    if not any(strategy.market_bps for strategy in split.strategies):
        return None
    return strategy_futures(split, state.books)


def strategy_futures(split: CapitalSplit, books: StrategyBooks | None) -> dict[str, Fraction]:
    """Return the signed shares of the target notional by market: each strategy's weights times its
    share of the capital. A paused strategy has none; opposite weights offset each other.
    """
    shares = {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    paused: set[str] = set()
    if books is not None and not books.fault:
        shares = target_capital_shares(split, books.named)
        paused = {
            book.name for book in books.strategies if book.state.health is StrategyHealth.PAUSED
        }
    combined: dict[str, Fraction] = {}
    for strategy in split.strategies:
        share = Fraction(0) if strategy.name in paused else shares[strategy.name]
        for market, bps in strategy.market_bps:
            combined[market] = combined.get(market, Fraction(0)) + share * bps / BPS
    return combined


def with_market_growth(
    noted: StrategyState,
    before: StrategyState,
    strategy: Strategy,
    futures: MarketGrowth | None,
) -> StrategyState:
    """Return the updated state of a strategy, with its futures weights in its index. They count
    whether it is active or paused, with the margin account's part of the capital, at index prices
    less funding, without costs.
    """
    if futures is None or not strategy.market_bps:
        return noted
    grown = _futures_growth(dict(before.marks), before.noted_s, strategy, futures, noted.noted_s)
    spot = Fraction(noted.index, before.index) if before.index else Fraction(1)
    index = floor_int(before.index * ((1 - futures.part) * spot + futures.part * grown))
    marks = tuple(
        (market, futures.prices[market])
        for market, _ in strategy.market_bps
        if market in futures.prices
    )
    return replace(noted, index=max(0, index), marks=(*noted.marks, *marks))


def _futures_growth(
    before: Mapping[str, Price],
    noted_s: int | None,
    strategy: Strategy,
    futures: MarketGrowth,
    now_s: int | None,
) -> Fraction:
    """Return the growth factor of capital at the target notional since the last prices; 1 without
    futures weights.
    """
    days = Fraction(0 if now_s is None or noted_s is None else now_s - noted_s, DAY_S)
    growth = Fraction(1)
    for market, bps in strategy.market_bps:
        if before.get(market, 0) > 0 and market in futures.prices:
            moved = futures.prices[market] / before[market] - 1
            paid = futures.funding_daily.get(market, Fraction(0)) * days
            growth += futures.leverage * Fraction(bps, BPS) * (moved - paid)
    return growth
