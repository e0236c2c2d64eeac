"""Futures of the strategies: their targets together, and the growth that their health counts."""

from __future__ import annotations

from fractions import Fraction

from agent.layers.futures.policy.chosen_weights import with_futures_weights
from agent.layers.futures.policy.needs import quote_per_numeraire
from agent.layers.futures.state import futures_policy, margin_account
from agent.layers.strategies.policy.capital import FuturesGrowth, target_capital_shares
from agent.layers.strategies.state import (
    CapitalSplit,
    StrategiesState,
    StrategyBooks,
    StrategyHealth,
)
from agent.margin import account as margin
from agent.model import StepInput
from agent.units import BPS, Value


def apply_futures_shares(step: StepInput) -> StepInput:
    """Return the step with the futures targets of the strategies together; unchanged without
    any.
    """
    shares = chosen_shares(step)
    return step if shares is None else with_futures_weights(step, shares, "the strategies")


def chosen_shares(step: StepInput) -> dict[str, Fraction] | None:
    """Return the signed shares of the target notional, by market, of the strategies together; None
    if none has futures weights.
    """
    split = step.config(CapitalSplit)
    if not any(strategy.futures_bps for strategy in split.strategies):
        return None
    return strategy_futures(split, step.layer(StrategiesState).books)


def strategy_futures(split: CapitalSplit, books: StrategyBooks | None) -> dict[str, Fraction]:
    """Return the signed shares of the target notional by market: each strategy's weights times its
    share of the capital. A paused strategy has none; opposite weights offset each other.
    """
    shares = {strategy.name: Fraction(strategy.share_bps, BPS) for strategy in split.strategies}
    paused: set[str] = set()
    if books is not None and not books.fault:
        shares = target_capital_shares(split, books.named)
        paused = {book.name for book in books.sleeves if book.state.health is StrategyHealth.PAUSED}
    combined: dict[str, Fraction] = {}
    for strategy in split.strategies:
        share = Fraction(0) if strategy.name in paused else shares[strategy.name]
        for market, bps in strategy.futures_bps:
            combined[market] = combined.get(market, Fraction(0)) + share * bps / BPS
    return combined


def margin_growth(step: StepInput, spot_value: Value) -> FuturesGrowth | None:
    """Return the futures data that strategies' health needs at this block: prices and funding of
    the markets, and the margin account's part of the capital; None without a known account.
    """
    account, policy = margin_account(step.snapshot), futures_policy(step)
    if account is None or policy is None:
        return None
    held = Fraction(max(0, margin.account_value_raw(account)))
    whole = held + max(Fraction(0), spot_value * quote_per_numeraire(step))
    return FuturesGrowth(
        {market.market: market.index for market in account.markets},
        {market.market: market.funding_daily for market in account.markets},
        Fraction(policy.full_leverage_bps or policy.leverage_bps, BPS),
        held / whole if whole else Fraction(0),
    )
