"""Effective futures targets: the combined targets of signals and strategies replace those of the
config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.margin import account as margin
from agent.model import StepInput
from agent.model.futures import FuturesPolicy, FuturesTarget
from agent.model.strategies import CapitalSplit, StrategyBooks, StrategyHealth
from agent.policy.futures.decide import quote_per_numeraire
from agent.policy.strategies.capital import FuturesGrowth, target_capital_shares
from agent.units import BPS, Value, floor_int, format_percent, largest_remainder


def apply_futures_targets(step: StepInput) -> StepInput:
    """Return the step with the futures targets of its signal or its strategies; unchanged without
    any.

    Weights are shares of the target notional, account value times `leverage_bps`. A sum below one
    lowers the leverage.
    """
    weights = chosen_futures(step)
    if step.futures is None or weights is None:
        return step
    origin = "the signal" if step.split is None else "the strategies"
    return _with_weights(step, step.futures, weights, origin)


def chosen_futures(step: StepInput) -> dict[str, Fraction] | None:
    """Return the signed shares of the target notional, by market, that the signal or the strategies
    request; None if they keep the config's targets.
    """
    if step.split is not None:
        if not any(one.futures_bps for one in step.split.strategies):
            return None
        return strategy_futures(step.split, step.history.sleeves)
    chosen = step.history.allocation
    if step.portfolio.weights is None or chosen is None or not chosen.futures_bps:
        return None
    return {market: Fraction(bps, BPS) for market, bps in chosen.futures_bps}


def strategy_futures(split: CapitalSplit, books: StrategyBooks | None) -> dict[str, Fraction]:
    """Return the signed shares of the target notional by market: each strategy's weights times its
    share of the capital. A paused strategy has none; opposite weights offset each other.
    """
    shares = {one.name: Fraction(one.share_bps, BPS) for one in split.strategies}
    paused: set[str] = set()
    if books is not None and not books.fault:
        shares = target_capital_shares(split, books.named)
        paused = {book.name for book in books.sleeves if book.state.health is StrategyHealth.PAUSED}
    found: dict[str, Fraction] = {}
    for one in split.strategies:
        for market, bps in one.futures_bps:
            part = Fraction(0) if one.name in paused else shares[one.name] * bps / BPS
            found[market] = found.get(market, Fraction(0)) + part
    return found


def _with_weights(
    step: StepInput, policy: FuturesPolicy, weights: Mapping[str, Fraction], origin: str
) -> StepInput:
    combined = combined_policy(policy, weights)
    gross = sum(map(abs, weights.values()), Fraction(0))
    why = f"futures targets are those of {origin}: {format_percent(gross)} of the target notional"
    return replace(step, futures=combined, wishes=(*step.wishes, why))


def combined_policy(policy: FuturesPolicy, weights: Mapping[str, Fraction]) -> FuturesPolicy:
    """Return the policy with these signed shares of its target notional: weights whose absolute
    values sum to 100 % (by largest remainder), and a proportionally lower leverage, rounded down.
    """
    sizes = [abs(weight) for weight in weights.values()]
    gross = sum(sizes, Fraction(0))
    rounded = largest_remainder(sizes) if gross else [0] * len(sizes)
    targets = tuple(
        FuturesTarget(market, bps if weight > 0 else -bps)
        for (market, weight), bps in zip(weights.items(), rounded, strict=True)
    )
    full_bps = policy.full_leverage_bps or policy.leverage_bps
    return replace(
        policy,
        targets=targets,
        leverage_bps=floor_int(full_bps * gross),
        full_leverage_bps=full_bps,
    )


def margin_growth(step: StepInput, spot_value: Value) -> FuturesGrowth | None:
    """Return the futures data that strategies' health needs at this block: prices and funding of
    the markets, and the margin account's part of the capital; None without a known account.
    """
    account, policy = step.snapshot.futures, step.futures
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
