"""Requests to user-defined signals, built from a step alone, and validation of their answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from agent.layers.questions import held_weights
from agent.model import (
    WEIGHT_RESOLUTION,
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

SUM_TOLERANCE_PPM = 100
"""Millionths by which a sum of weights may differ from one: 0.01 %."""


def signal_requests(
    step: StepInput, choices: Mapping[str, Allocation]
) -> tuple[SignalRequest, ...]:
    """Return the requests that are due, of the portfolio or of the parts that divide the wallet;
    `choices` are the parts' last allocations by owner. `step` has prices and the portfolio's last
    allocation in its history.
    """
    assets = step.portfolio.assets
    candidates: list[tuple[str, AllocatorConfig, tuple[Asset, ...], Allocation | None]] = []
    if not step.divides_wallet and step.portfolio.weights is not None:
        candidates.append(("", step.portfolio.weights, assets, step.history.allocation))
    for owned_allocator in (
        owned_allocator for config in step.layers for owned_allocator in config.allocators
    ):
        weights_bps = dict(owned_allocator.weights_bps)
        owned_assets = tuple(
            replace(asset, target_bps=weights_bps.get(asset.token.address, 0)) for asset in assets
        )
        candidates.append(
            (
                owned_allocator.owner,
                owned_allocator.allocator,
                owned_assets,
                choices.get(owned_allocator.owner),
            )
        )
    now_s = trusted_time_s(step.snapshot)
    return tuple(
        _request(step, owner, allocator, allocator.signal)
        for owner, allocator, owned_assets, last_allocation in candidates
        if allocator.method is AllocationMethod.SIGNAL
        and allocator.signal is not None
        and targets.is_allocation_due(allocator, owned_assets, last_allocation, now_s)
    )


def _request(
    step: StepInput, owner: str, allocator: AllocatorConfig, settings: SignalSettings
) -> SignalRequest:
    """Return the request with its view, or with the reason why the view is incomplete."""
    portfolio, now_s = step.portfolio, trusted_time_s(step.snapshot)
    free_tokens = [
        asset.token for asset in portfolio.assets if asset.token.address not in allocator.fixed
    ]
    numeraire = portfolio.numeraire
    prices, missing_notes = {}, []
    for asset in portfolio.assets:
        token = asset.token
        if token.address == numeraire.address:
            continue
        bars = _bars(allocator, step.history.prices, token, numeraire, now_s)
        prices[token.label] = bars
        if token in free_tokens and (why := _missing_prices_reason(allocator, bars, now_s)):
            missing_notes.append(f"{token.label} {why}")
    # these are shares of the wallet, not of one of its parts
    whole_step = replace(
        step, layers=tuple(layer for layer in step.layers if not layer.divides_wallet)
    )
    shares = {drift.token: drift.share for drift in current_drifts(whole_step)}
    if not shares:
        missing_notes.append("some balances or prices are unknown")
    market_shares = held_weights(step)
    view = SignalView(
        now_s,
        numeraire.label,
        prices,
        {
            listed.token.label: float(shares.get(listed.token.address, 0))
            for listed in portfolio.assets
        },
        {market.symbol: float(market_shares.get(market.market, 0)) for market in settings.markets},
        {market.symbol: market.asset for market in settings.markets},
        dict(settings.options),
        tuple(token.label for token in free_tokens),
    )
    tokens = tuple((token.label, token.address) for token in free_tokens)
    if missing_notes:
        missing_notes.append("trimtab prices import and trimtab prices fetch add recorded prices")
    return SignalRequest(settings, owner, view, tokens, "; ".join(missing_notes))


def _bars(
    allocator: AllocatorConfig,
    prices: tuple[PricePoint, ...],
    token: Token,
    numeraire: Token,
    now_s: int,
) -> tuple[PriceBar, ...]:
    """Return the last price of each interval within the window, oldest first."""
    start_s, scale = (
        now_s - allocator.window_s,
        Fraction(10) ** (token.decimals - numeraire.decimals),
    )
    last_points = {
        point.at_s // allocator.step_s: point
        for point in prices
        if point.token == token.address and start_s < point.at_s <= now_s
    }
    return tuple(
        PriceBar(last_points[interval].at_s, float(last_points[interval].price * scale))
        for interval in sorted(last_points)
    )


def _missing_prices_reason(
    allocator: AllocatorConfig, bars: tuple[PriceBar, ...], now_s: int
) -> str:
    """Return why prices do not meet min_history and max_age; empty if they do."""
    if len(bars) <= allocator.min_returns:
        return f"has {len(bars)} prices, min_history requires {allocator.min_returns + 1}"
    if now_s - bars[-1].at_s > allocator.max_age_s:
        return f"has no price within {format_duration(allocator.max_age_s)}"
    return ""


def checked_answer(request: SignalRequest, reply: Any, source: str) -> SignalAnswer:
    """Return the answer in millionths, or with the reason why it is invalid: an unknown name, a
    weight that is not finite or out of bounds, or a wrong sum.
    """
    settings, answer = request.settings, SignalAnswer(request.settings.name, request.owner)
    if not isinstance(reply, dict):
        return replace(answer, source=source, why="its answer is not readable")
    if why := reply.get("why"):
        return replace(answer, source=source, why=str(why))
    spot, futures = reply.get("spot"), reply.get("futures")
    markets = {market.symbol: market.market for market in settings.markets}
    try:
        if spot is None and futures is None:
            raise ValueError("it returned neither spot nor futures weights")
        spot_ppm = None if spot is None else _spot_ppm(spot, dict(request.tokens))
        market_ppm = None if futures is None else _market_ppm(futures, markets)
    except ValueError as error:
        return replace(answer, source=source, why=str(error))
    return replace(answer, spot_ppm=spot_ppm, market_ppm=market_ppm, source=source)


def _spot_ppm(weights: Any, tokens: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    weights_ppm = _weights_ppm(weights, tokens, "an asset whose weight is free", 0)
    if abs((total := sum(weights_ppm.values())) - WEIGHT_RESOLUTION) > SUM_TOLERANCE_PPM:
        raise ValueError(f"its spot weights sum to {total / WEIGHT_RESOLUTION:g}, not 1")
    return tuple((token, weights_ppm.get(symbol, 0)) for symbol, token in tokens.items())


def _market_ppm(weights: Any, markets: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    if not markets:
        raise ValueError("it returned futures weights, but the config has no [futures]")
    weights_ppm = _weights_ppm(weights, markets, "a futures market", -1)
    if (total := sum(map(abs, weights_ppm.values()))) > WEIGHT_RESOLUTION + SUM_TOLERANCE_PPM:
        raise ValueError(
            f"its absolute futures weights sum to {total / WEIGHT_RESOLUTION:g}, above 1"
        )
    return tuple((market, weights_ppm.get(symbol, 0)) for symbol, market in markets.items())


def _weights_ppm(
    weights: Any, names: Mapping[str, str], kind_text: str, minimum: int
) -> dict[str, int]:
    """Return weights in millionths, rounded half to even."""
    if not isinstance(weights, dict):
        raise ValueError("its weights are not a mapping")
    weights_ppm = {}
    for name, weight in weights.items():
        if name not in names:
            raise ValueError(
                f"{str(name)[:16]!r} is not {kind_text}; choose from {', '.join(names)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight of {name} is not a number")
        if not math.isfinite(weight) or not minimum <= weight <= 1:
            raise ValueError(f"the weight of {name} is {weight:g}, not from {minimum} to 1")
        weights_ppm[name] = round(weight * WEIGHT_RESOLUTION)
    return weights_ppm
