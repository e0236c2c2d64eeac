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
    AnsweredTrigger,
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
from agent.units import (
    BPS,
    Token,
    format_duration,
    format_time,
    pluralize,
)

SUM_TOLERANCE_PPM = 100
"""Millionths by which a sum of weights may differ from one: 0.01 %."""
IMPORT_HINT = "trimtab prices import and trimtab prices fetch add recorded prices"


def signal_requests(
    step: StepInput, last_allocation_by_owner: Mapping[str, Allocation]
) -> tuple[SignalRequest, ...]:
    """Return the requests that are due, of the portfolio or of the parts that divide the wallet;
    `last_allocation_by_owner` are those of the parts. `step` has prices and the portfolio's last
    allocation in its history.
    """
    return tuple(
        _signal_request(step, owner, allocator, settings, owned_assets)
        for owner, allocator, settings, owned_assets, is_due in _signals(
            step, last_allocation_by_owner
        )
        if is_due
    )


def idle_signals(
    step: StepInput, last_allocation_by_owner: Mapping[str, Allocation]
) -> tuple[tuple[str, SignalSettings], ...]:
    """Return owner and settings of the signals that are not due."""
    return tuple(
        (owner, settings)
        for owner, _, settings, _, is_due in _signals(step, last_allocation_by_owner)
        if not is_due
    )


def _signals(
    step: StepInput, last_allocation_by_owner: Mapping[str, Allocation]
) -> tuple[tuple[str, AllocatorConfig, SignalSettings, tuple[Asset, ...], bool], ...]:
    """Return owner, allocator and settings of each signal, the assets with the owner's targets, and
    whether it is due.
    """
    assets = step.portfolio.assets
    possible_requests: list[tuple[str, AllocatorConfig, tuple[Asset, ...], Allocation | None]] = []
    if not step.divides_wallet and step.portfolio.allocator is not None:
        possible_requests.append(("", step.portfolio.allocator, assets, step.history.allocation))
    for owned_allocator in (
        owned_allocator
        for layer_config in step.layer_configs
        for owned_allocator in layer_config.allocators
    ):
        weights_bps = dict(owned_allocator.weights_bps)
        owned_assets = tuple(
            replace(asset, target_bps=weights_bps.get(asset.token.address, 0)) for asset in assets
        )
        possible_requests.append(
            (
                owned_allocator.owner,
                owned_allocator.allocator,
                owned_assets,
                last_allocation_by_owner.get(owned_allocator.owner),
            )
        )
    now_s = step.snapshot.trusted_time_s
    return tuple(
        (
            owner,
            allocator,
            allocator.signal,
            owned_assets,
            targets.is_allocation_due(allocator, owned_assets, last_allocation, now_s),
        )
        for owner, allocator, owned_assets, last_allocation in possible_requests
        if allocator.method is AllocationMethod.SIGNAL and allocator.signal is not None
    )


def _signal_request(
    step: StepInput,
    owner: str,
    allocator: AllocatorConfig,
    settings: SignalSettings,
    owned_assets: tuple[Asset, ...],
) -> SignalRequest:
    """Return the request with its view, or with the reason why the view is incomplete."""
    free_tokens = [
        asset.token
        for asset in step.portfolio.assets
        if asset.token.address not in allocator.fixed_tokens
    ]
    share_by_token = _wallet_shares(step)
    share_by_market = held_weights(step)
    view = replace(
        _wallet_view(step, share_by_token, allocator.window_s, allocator.step_s),
        futures={
            market.symbol: float(share_by_market.get(market.market, 0))
            for market in settings.markets
        },
        markets={market.symbol: market.asset for market in settings.markets},
        options=dict(settings.options),
        free=tuple(token.label for token in free_tokens),
        targets=_target_shares(owned_assets),
    )
    gap_reasons = [
        f"{token.label} {why}"
        for token in free_tokens
        if token.label in view.prices
        and (why := _missing_prices_reason(allocator, view.prices[token.label], view.now_s))
    ]
    if not share_by_token:
        gap_reasons.append("some balances or prices are unknown")
    labelled_addresses = tuple((token.label, token.address) for token in free_tokens)
    if gap_reasons:
        gap_reasons.append(IMPORT_HINT)
    return SignalRequest(settings, owner, view, labelled_addresses, "; ".join(gap_reasons))


def trigger_request(step: StepInput) -> SignalRequest | None:
    """Return the request to the signal that is the trigger, or with the reason why its view is
    incomplete; None without one. `step` has its targets.
    """
    trigger = step.policy.trigger
    if not isinstance(trigger, AnsweredTrigger) or trigger.signal is None:
        return None
    view = replace(
        trigger_view(step, trigger.window_s, trigger.step_s), options=dict(trigger.signal.options)
    )
    gap_reasons = [f"{symbol} has no prices" for symbol, bars in view.prices.items() if not bars]
    if not any(view.weights.values()):
        gap_reasons.append("some balances or prices are unknown")
    return SignalRequest(trigger.signal, "", view, (), "; ".join(gap_reasons), is_trigger=True)


def trigger_view(step: StepInput, window_s: int, step_s: int) -> SignalView:
    """Return the view of a function that is a trigger: prices of the last `window_s` seconds, one in
    each `step_s`, the weights of the wallet, and the effective targets.
    """
    return replace(
        _wallet_view(step, _wallet_shares(step), window_s, step_s),
        targets=_target_shares(step.effective_assets),
    )


def _target_shares(assets: tuple[Asset, ...]) -> dict[str, float]:
    return {asset.token.label: asset.target_bps / BPS for asset in assets}


def _wallet_shares(step: StepInput) -> dict[str, Fraction]:
    """Return the share of each token in the wallet, not in one of its parts; none if a balance or
    price is unknown.
    """
    whole_wallet_step = replace(
        step, layer_configs=tuple(layer for layer in step.layer_configs if not layer.divides_wallet)
    )
    return {drift.token: drift.share for drift in current_drifts(whole_wallet_step)}


def _wallet_view(
    step: StepInput, share_by_token: Mapping[str, Fraction], window_s: int, step_s: int
) -> SignalView:
    """Return the view of a wallet without futures, all of whose weights are free."""
    tokens = [asset.token for asset in step.portfolio.assets]
    numeraire = step.portfolio.numeraire
    now_s = step.snapshot.trusted_time_s
    return SignalView(
        now_s,
        numeraire.label,
        {
            token.label: _bars(window_s, step_s, step.history.prices, token, numeraire, now_s)
            for token in tokens
            if token.address != numeraire.address
        },
        {token.label: float(share_by_token.get(token.address, 0)) for token in tokens},
        free=tuple(token.label for token in tokens),
    )


def _bars(
    window_s: int,
    step_s: int,
    price_points: tuple[PricePoint, ...],
    token: Token,
    numeraire: Token,
    now_s: int,
) -> tuple[PriceBar, ...]:
    """Return the last price of each interval within the window, oldest first."""
    start_s = now_s - window_s
    unit_scale = Fraction(10) ** (token.decimals - numeraire.decimals)
    last_point_by_interval = {
        point.at_s // step_s: point
        for point in price_points
        if point.token == token.address and start_s < point.at_s <= now_s
    }
    return tuple(
        PriceBar(
            last_point_by_interval[interval].at_s,
            float(last_point_by_interval[interval].price * unit_scale),
        )
        for interval in sorted(last_point_by_interval)
    )


def _missing_prices_reason(
    allocator: AllocatorConfig, bars: tuple[PriceBar, ...], now_s: int
) -> str:
    """Return why prices do not meet min_history and max_age; empty if they do."""
    if len(bars) <= allocator.min_returns:
        count_text = "has no price"
        if allocator.min_returns:
            count_text = f"has {pluralize(len(bars), 'price')}, min_history requires {allocator.min_returns + 1}"
        return f"{count_text} in the window, which starts {format_time(now_s - allocator.window_s)}"
    if now_s - bars[-1].at_s > allocator.max_age_s:
        return f"has no price within {format_duration(allocator.max_age_s)}"
    return ""


def checked_answer(request: SignalRequest, reply: Any, source: str) -> SignalAnswer:
    """Return the answer in millionths, or with the reason why it is invalid: an unknown name, a
    weight that is not finite or out of bounds, or a wrong sum.
    """
    settings = request.settings
    answer = SignalAnswer(request.settings.name, request.owner)
    if not isinstance(reply, dict):
        return replace(answer, source=source, why="its answer is not readable")
    if why := reply.get("why"):
        return replace(answer, source=source, why=str(why))
    if request.is_trigger:
        is_due = reply.get("is_due")
        if isinstance(is_due, bool):
            return replace(answer, source=source, is_due=is_due)
        return replace(answer, source=source, why="it returned neither True nor False")
    spot_weights = reply.get("spot")
    futures_weights = reply.get("futures")
    market_by_symbol = {market.symbol: market.market for market in settings.markets}
    try:
        if spot_weights is None and futures_weights is None:
            raise ValueError("it returned neither spot nor futures weights")
        spot_ppm = (
            None
            if spot_weights is None
            else _spot_ppm(spot_weights, dict(request.address_by_symbol))
        )
        market_ppm = (
            None if futures_weights is None else _market_ppm(futures_weights, market_by_symbol)
        )
    except (ValueError, OverflowError) as error:
        return replace(answer, source=source, why=str(error))
    return replace(answer, spot_ppm=spot_ppm, market_ppm=market_ppm, source=source)


def _spot_ppm(weights: Any, token_by_symbol: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    ppm_by_symbol = _weights_ppm(weights, token_by_symbol, "an asset whose weight is free", 0)
    if abs((total_ppm := sum(ppm_by_symbol.values())) - WEIGHT_RESOLUTION) > SUM_TOLERANCE_PPM:
        raise ValueError(f"its spot weights sum to {total_ppm / WEIGHT_RESOLUTION:g}, not 1")
    return tuple((token, ppm_by_symbol.get(symbol, 0)) for symbol, token in token_by_symbol.items())


def _market_ppm(weights: Any, market_by_symbol: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    if not market_by_symbol:
        raise ValueError("it returned futures weights, but the config has no [futures]")
    ppm_by_symbol = _weights_ppm(weights, market_by_symbol, "a futures market", -1)
    if (total_ppm := sum(map(abs, ppm_by_symbol.values()))) > WEIGHT_RESOLUTION + SUM_TOLERANCE_PPM:
        raise ValueError(
            f"its absolute futures weights sum to {total_ppm / WEIGHT_RESOLUTION:g}, above 1"
        )
    return tuple(
        (market, ppm_by_symbol.get(symbol, 0)) for symbol, market in market_by_symbol.items()
    )


def _weights_ppm(
    weights: Any, known_names: Mapping[str, str], kind_text: str, min_weight: int
) -> dict[str, int]:
    """Return weights in millionths, rounded half to even."""
    if not isinstance(weights, dict):
        raise ValueError("its weights are not a mapping")
    ppm_by_name = {}
    for name, weight in weights.items():
        if name not in known_names:
            likely_names = [known for known in known_names if _are_alike(str(name), known)]
            likely_text = f"did you mean {' or '.join(likely_names)}? " if likely_names else ""
            raise ValueError(
                f"{str(name)[:16]!r} is not {kind_text}; {likely_text}choose from {', '.join(known_names)}"
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"the weight of {name} is not a number")
        if not math.isfinite(weight) or not min_weight <= weight <= 1:
            raise ValueError(f"the weight of {name} is {weight:g}, not from {min_weight} to 1")
        ppm_by_name[name] = round(weight * WEIGHT_RESOLUTION)
    return ppm_by_name


def _are_alike(name: str, known_name: str) -> bool:
    """Return whether one name is in the other, as BTC in WBTC and USD in USDC."""
    capitals = name.upper()
    known_capitals = known_name.upper()
    return bool(capitals) and (capitals in known_capitals or known_capitals in capitals)
