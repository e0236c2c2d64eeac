"""Requests to user-defined signals, built from a step alone, and validation of their answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from agent.layers.questions import held_weights
from agent.model import (
    GRID,
    Allocation,
    AllocationMethod,
    AllocatorConfig,
    Asset,
    PriceBar,
    PricePoint,
    SignalAnswer,
    SignalRequest,
    SignalSettings,
    SignalView,
    StepInput,
)
from agent.policy import targets
from agent.policy.decide import current_drifts
from agent.policy.target_changes import trusted_time_s
from agent.units import (
    Token,
    format_duration,
)

SLACK = 100
"""Millionths by which a sum of weights may differ from one: 0.01 %."""


def signal_requests(
    step: StepInput, choices: Mapping[str, Allocation]
) -> tuple[SignalRequest, ...]:
    """Return the requests that are due, of the portfolio or of the parts that divide the wallet;
    `choices` are the parts' last allocations by owner. `step` has prices and the portfolio's last
    allocation in its history.
    """
    assets = step.portfolio.assets
    asking: list[tuple[str, AllocatorConfig, tuple[Asset, ...], Allocation | None]] = []
    if not step.divides_wallet and step.portfolio.weights is not None:
        asking.append(("", step.portfolio.weights, assets, step.history.allocation))
    for part in (part for config in step.layers for part in config.allocators):
        weights = dict(part.weights_bps)
        own = tuple(replace(a, target_bps=weights.get(a.token.address, 0)) for a in assets)
        asking.append((part.owner, part.allocator, own, choices.get(part.owner)))
    now_s = trusted_time_s(step.snapshot)
    return tuple(
        _request(step, owner, weights, weights.signal)
        for owner, weights, own, last in asking
        if weights.method is AllocationMethod.SIGNAL
        and weights.signal is not None
        and targets.is_allocation_due(weights, own, last, now_s)
    )


def _request(
    step: StepInput, owner: str, weights: AllocatorConfig, settings: SignalSettings
) -> SignalRequest:
    """Return the request with its view, or with the reason why the view is incomplete."""
    portfolio, now_s = step.portfolio, trusted_time_s(step.snapshot)
    free = [asset.token for asset in portfolio.assets if asset.token.address not in weights.fixed]
    numeraire = portfolio.numeraire
    prices, late = {}, []
    for asset in portfolio.assets:
        token = asset.token
        if token.address == numeraire.address:
            continue
        bars = _bars(weights, step.history.prices, token, numeraire, now_s)
        prices[token.label] = bars
        if token in free and (why := _too_little(weights, bars, now_s)):
            late.append(f"{token.label} {why}")
    # these are shares of the wallet, not of one of its parts
    whole = replace(step, layers=tuple(layer for layer in step.layers if not layer.divides_wallet))
    shares = {drift.token: drift.share for drift in current_drifts(whole)}
    if not shares:
        late.append("some balances or prices are unknown")
    held = held_weights(step)
    view = SignalView(
        now_s,
        numeraire.label,
        prices,
        {one.token.label: float(shares.get(one.token.address, 0)) for one in portfolio.assets},
        {market.symbol: float(held.get(market.market, 0)) for market in settings.markets},
        {market.symbol: market.asset for market in settings.markets},
        dict(settings.options),
        tuple(token.label for token in free),
    )
    tokens = tuple((token.label, token.address) for token in free)
    if late:
        late.append("trimtab prices import and trimtab prices fetch add recorded prices")
    return SignalRequest(settings, owner, view, tokens, "; ".join(late))


def _bars(
    weights: AllocatorConfig,
    prices: tuple[PricePoint, ...],
    token: Token,
    numeraire: Token,
    now_s: int,
) -> tuple[PriceBar, ...]:
    """Return the last price of each interval within the window, oldest first."""
    start_s, scale = now_s - weights.window_s, Fraction(10) ** (token.decimals - numeraire.decimals)
    last = {
        point.at_s // weights.step_s: point
        for point in prices
        if point.token == token.address and start_s < point.at_s <= now_s
    }
    return tuple(PriceBar(last[n].at_s, float(last[n].price * scale)) for n in sorted(last))


def _too_little(weights: AllocatorConfig, bars: tuple[PriceBar, ...], now_s: int) -> str:
    """Return why prices do not meet min_history and max_age; empty if they do."""
    if len(bars) <= weights.min_returns:
        return f"has {len(bars)} prices, min_history requires {weights.min_returns + 1}"
    if now_s - bars[-1].at_s > weights.max_age_s:
        return f"has no price within {format_duration(weights.max_age_s)}"
    return ""


def checked_answer(request: SignalRequest, found: Any, source: str) -> SignalAnswer:
    """Return the answer in millionths, or with the reason why it is invalid: an unknown name, a
    weight that is not finite or out of bounds, or a wrong sum.
    """
    settings, answer = request.settings, SignalAnswer(request.settings.name, request.owner)
    if not isinstance(found, dict):
        return replace(answer, source=source, why="its answer is not readable")
    if why := found.get("why"):
        return replace(answer, source=source, why=str(why))
    spot, futures = found.get("spot"), found.get("futures")
    markets = {market.symbol: market.market for market in settings.markets}
    try:
        if spot is None and futures is None:
            raise ValueError("it returned neither spot nor futures weights")
        spot_ppm = None if spot is None else _spot(spot, dict(request.tokens))
        market_ppm = None if futures is None else _futures(futures, markets)
    except ValueError as error:
        return replace(answer, source=source, why=str(error))
    return replace(answer, spot_ppm=spot_ppm, market_ppm=market_ppm, source=source)


def _spot(found: Any, tokens: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    parts = _on_grid(found, tokens, "an asset whose weight is free", 0)
    if abs((total := sum(parts.values())) - GRID) > SLACK:
        raise ValueError(f"its spot weights sum to {total / GRID:g}, not 1")
    return tuple((token, parts.get(symbol, 0)) for symbol, token in tokens.items())


def _futures(found: Any, markets: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    if not markets:
        raise ValueError("it returned futures weights, but the config has no [futures]")
    parts = _on_grid(found, markets, "a futures market", -1)
    if (total := sum(map(abs, parts.values()))) > GRID + SLACK:
        raise ValueError(f"its absolute futures weights sum to {total / GRID:g}, above 1")
    return tuple((market, parts.get(symbol, 0)) for symbol, market in markets.items())


def _on_grid(found: Any, names: Mapping[str, str], what: str, least: int) -> dict[str, int]:
    """Return weights in millionths, rounded half to even."""
    if not isinstance(found, dict):
        raise ValueError("its weights are not a mapping")
    parts = {}
    for name, weight in found.items():
        if name not in names:
            raise ValueError(f"{str(name)[:16]!r} is not {what}; choose from {', '.join(names)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight of {name} is not a number")
        if not math.isfinite(weight) or not least <= weight <= 1:
            raise ValueError(f"the weight of {name} is {weight:g}, not from {least} to 1")
        parts[name] = round(weight * GRID)
    return parts
