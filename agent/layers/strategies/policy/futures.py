"""Futures of the strategies: their targets together, and the growth that their health counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.layers.strategies.policy.capital import target_capital_shares
from agent.layers.strategies.state import (
    CapitalSplit,
    StrategiesState,
    Strategy,
    StrategyBooks,
    StrategyHealth,
    StrategyState,
)
from agent.model import MarketGrowthInputs
from agent.units import BPS, DAY_S, Price, floor_int


def target_market_shares(split: CapitalSplit, state: StrategiesState) -> dict[str, Fraction] | None:
    """Return the signed shares of the target notional, by market, of the strategies together; None
    if none has futures weights.
    """
    if not any(strategy.market_bps for strategy in split.strategies):
        return None
    return strategy_market_shares(split, state.books)


def strategy_market_shares(split: CapitalSplit, books: StrategyBooks | None) -> dict[str, Fraction]:
    """Return the signed shares of the target notional by market: each strategy's weights times its
    share of the capital. A paused strategy has none, also while its holdings are in doubt or
    unknown; the others have their share of the config while the books are unknown or differ from
    it, which halts spot trading. Opposite weights offset each other.
    """
    share_by_name = {
        strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies
    }
    paused_names: set[str] = set()
    if books is not None:
        if share_by_name.keys() == books.by_name.keys():
            share_by_name = target_capital_shares(split, books.by_name)
        states = [*books.unbooked_states, *(book.state for book in books.strategy_books)]
        paused_names = {state.name for state in states if state.health is StrategyHealth.PAUSED}
    share_by_market: dict[str, Fraction] = {}
    for strategy in split.strategies:
        share = Fraction(0) if strategy.name in paused_names else share_by_name[strategy.name]
        for market, weight_bps in strategy.market_bps:
            share_by_market[market] = (
                share_by_market.get(market, Fraction(0)) + share * weight_bps / BPS
            )
    return share_by_market


def with_market_growth(
    updated_state: StrategyState,
    previous_state: StrategyState,
    strategy: Strategy,
    growth_inputs: MarketGrowthInputs | None,
) -> StrategyState:
    """Return the updated state of a strategy, whose index includes the growth of its futures
    weights. They count while it is active and while it is paused, in proportion to the margin
    account's part of the capital, at index prices less funding, and without costs. While the
    account is unknown its last known part counts; what the markets do counts at the next reading.
    """
    if not strategy.market_bps:
        return updated_state
    price_by_market = dict(previous_state.last_prices)
    read_s = previous_state.markets_read_s or previous_state.recorded_s
    late_read_s = dict(previous_state.late_markets)
    margin_share = previous_state.margin_share
    futures_growth = Fraction(1)
    if growth_inputs is not None:
        read_s_by_market = {market: read_s for market, _ in strategy.market_bps} | late_read_s
        futures_growth = _futures_growth(
            price_by_market, read_s_by_market, strategy, growth_inputs, updated_state.recorded_s
        )
        late_read_s = {
            market: market_read_s
            for market, market_read_s in read_s_by_market.items()
            if market in price_by_market and market not in growth_inputs.prices
        }
        price_by_market |= growth_inputs.prices
        read_s = updated_state.recorded_s
        margin_share = growth_inputs.margin_share
    spot_growth = (
        Fraction(updated_state.index, previous_state.index) if previous_state.index else Fraction(1)
    )
    index = floor_int(
        previous_state.index * ((1 - margin_share) * spot_growth + margin_share * futures_growth)
    )
    market_prices = tuple(
        (market, price_by_market[market])
        for market, _ in strategy.market_bps
        if market in price_by_market
    )
    return replace(
        updated_state,
        index=max(0, index),
        last_prices=(*updated_state.last_prices, *market_prices),
        markets_read_s=read_s,
        late_markets=tuple(late_read_s.items()),
        margin_share=margin_share,
    )


def _futures_growth(
    last_prices: Mapping[str, Price],
    read_s_by_market: Mapping[str, int | None],
    strategy: Strategy,
    growth_inputs: MarketGrowthInputs,
    now_s: int | None,
) -> Fraction:
    """Return the growth factor of capital at the target notional since the last prices, zero at
    least; 1 without futures weights.
    """
    growth_factor = Fraction(1)
    for market, weight_bps in strategy.market_bps:
        if last_prices.get(market, 0) > 0 and market in growth_inputs.prices:
            price_change = growth_inputs.prices[market] / last_prices[market] - 1
            read_s = read_s_by_market[market]
            elapsed_s = 0 if now_s is None or read_s is None else now_s - read_s
            elapsed_days = Fraction(elapsed_s, DAY_S)
            funding = growth_inputs.funding_daily.get(market, Fraction(0)) * elapsed_days
            growth_factor += (
                growth_inputs.leverage * Fraction(weight_bps, BPS) * (price_change - funding)
            )
    return max(Fraction(0), growth_factor)
