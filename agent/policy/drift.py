"""Drift of each asset from its target, the goal of a rebalance, and the prices at which an asset
leaves its band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import ErrorCode, Refused
from agent.layers.questions import apart_raw, outside_by_place
from agent.model import (
    Asset,
    AssetDrift,
    Destination,
    Goal,
    GoalWeight,
    NoTradeZone,
    StepInput,
    Threshold,
    Trigger,
    thresholds_of,
)
from agent.policy import native_coin
from agent.units import BPS, Price, Value, largest_remainder

# --- Width of the band around a target: the trigger's widths, an asset's own widths, the narrower
# of several.


BandEdges = tuple[Fraction, Fraction]


def has_band(trigger: Trigger) -> bool:
    """True if a trigger has a band that weights can leave."""
    return bool(thresholds_of(trigger))


def band(
    trigger: Trigger, target_bps: int, own: Threshold | None = None, most_bps: int | None = None
) -> BandEdges:
    """Return the exact edges of the band around a target in bps, within 0 and 10,000.

    `own` is the asset's band, in place of the trigger's widths. A band ends at `most_bps` if that
    is above the target. The narrower of an absolute and a relative width counts, and the narrowest
    of several triggers. A trigger without a band has a band of zero width; for a zone the whole
    range, 0 to 10,000, is returned, because its band depends on the market
    (agent/policy/triggers/no_trade_zone.py).
    """
    if isinstance(trigger, NoTradeZone):
        return Fraction(0), Fraction(BPS)
    widths = [_width(own or threshold, target_bps) for threshold in thresholds_of(trigger)]
    width = min(widths, default=Fraction(0))
    most = BPS if most_bps is None or most_bps <= target_bps else most_bps
    return max(Fraction(0), target_bps - width), min(Fraction(most), target_bps + width)


def with_trigger_bands(drifts: Sequence[AssetDrift], trigger: Trigger) -> tuple[AssetDrift, ...]:
    """Return the drifts with the bands of another trigger; each trigger of AnyOf has its own."""
    whole = sum((drift.value for drift in drifts), Fraction(0))
    result = []
    for drift in drifts:
        low, high = band(trigger, drift.target_bps, drift.own_band, drift.max_bps)
        outside = whole > 0 and not low <= drift.share * BPS <= high
        result.append(replace(drift, band_low_bps=low, band_high_bps=high, outside=outside))
    return tuple(result)


def _width(threshold: Threshold, target_bps: int) -> Fraction:
    if threshold.absolute_bps is None:
        widths = []
    else:
        widths = [Fraction(threshold.absolute_bps)]
    widths += (
        []
        if threshold.relative_bps is None
        else [Fraction(threshold.relative_bps * target_bps, BPS)]
    )
    return min(widths, default=Fraction(0))


def compute_drifts(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    """Return the drift of every asset, in the portfolio's order. `prices` are numeraire base units
    per token base unit, by address.

    Confirmed liquidity positions count by their token amounts at these prices (R1.2); with
    futures.margin_in_weights the margin account counts by its value in the collateral. Native coin
    counts with its wrapped token if that is the native asset, without the gas floor. Raises Refused
    if a balance, position or price is missing: unknown is never zero.
    """
    assets = [
        replace(asset, reserve_raw=native_coin.reserved_raw(step.limits, asset))
        for asset in step.effective_assets
    ]
    return drifts_from_balances(
        assets,
        native_coin.held_balances(step),
        prices,
        step.policy.trigger,
        outside_by_place(step, prices),
    )


def drifts_from_balances(
    assets: Sequence[Asset],
    held: Mapping[str, int],
    prices: Mapping[str, Price],
    trigger: Trigger,
    outside: Mapping[str, Mapping[str, int]] | None = None,
) -> tuple[AssetDrift, ...]:
    """Return the drifts from balances in base units by token address; `outside` are those outside
    the wallet, by place and token.

    Reserves do not count. If nothing is investable, every share is zero and no asset is outside its
    band. Raises Refused if a balance or price is missing.
    """
    places = outside or {}
    for asset in assets:
        for code, what, known in (
            (ErrorCode.BALANCE, "balance", held),
            (ErrorCode.REFERENCE_PRICE, "reference price", prices),
        ):
            if asset.token.address not in known:
                raise Refused(
                    f"the {what} of {asset.token.label} is unknown",
                    remedy="trimtab status shows what could not be read",
                    code=code,
                )
    investable = [max(0, held[asset.token.address] - asset.reserve_raw) for asset in assets]
    values = [
        (raw + sum(amounts.get(token, 0) for amounts in places.values())) * prices[token]
        for raw, token in zip(investable, (asset.token.address for asset in assets), strict=True)
    ]
    total = sum(values, Fraction(0))
    weights_bps = largest_remainder(values) if total > 0 else [0] * len(assets)
    result = []
    for asset, raw, value, weight_bps in zip(assets, investable, values, weights_bps, strict=True):
        share = value / total if total > 0 else Fraction(0)
        low_bps, high_bps = band(trigger, asset.target_bps, asset.band, asset.max_bps)
        result.append(
            AssetDrift(
                token=asset.token.address,
                symbol=asset.token.label,
                raw=held[asset.token.address],
                investable_raw=raw,
                price=prices[asset.token.address],
                value=value,
                share=share,
                weight_bps=weight_bps,
                target_bps=asset.target_bps,
                drift_bps=weight_bps - asset.target_bps,
                band_low_bps=low_bps,
                band_high_bps=high_bps,
                outside=total > 0 and not low_bps <= share * BPS <= high_bps,
                own_band=asset.band,
                max_bps=asset.max_bps,
                elsewhere=tuple(
                    (place, raw_there)
                    for place, amounts in places.items()
                    if (raw_there := amounts.get(asset.token.address, 0))
                ),
            )
        )
    return tuple(result)


def ideal_trades(drifts: Sequence[AssetDrift]) -> dict[str, Value]:
    """Return the value to buy (positive) or sell of each token to be exactly on target, at
    reference prices without costs. The values sum to zero.
    """
    whole = investable_total(drifts)
    return {drift.token: whole * drift.target_bps / BPS - drift.value for drift in drifts}


def corrections(drifts: Sequence[AssetDrift], goal: Goal) -> dict[str, Value]:
    """Return the value of each token to buy (positive) or sell to reach the nearest share within
    the goal.
    """
    whole = investable_total(drifts)
    result = {}
    for drift, weight in zip(drifts, goal.weights, strict=True):
        result[drift.token] = whole * (min(max(drift.share, weight.low), weight.high) - drift.share)
    return result


def overweight_messages(drifts: Sequence[AssetDrift]) -> tuple[str, ...]:
    """Return a message for each asset above limits.max_weight."""
    return tuple(
        f"{drift.symbol} is {drift.percent} of the portfolio, above"
        f" limits.max_weight of {drift.max_bps / 100:g} %: it is not bought, "
        "and it is reduced if that is worth its cost"
        for drift in drifts
        if drift.max_bps is not None and drift.share * BPS > drift.max_bps
    )


def investable_total(drifts: Sequence[AssetDrift]) -> Value:
    """Return the investable value of the portfolio, numeraire base units."""
    return sum((drift.value for drift in drifts), Fraction(0))


def portfolio_total(step: StepInput, drifts: Sequence[AssetDrift]) -> Value:
    """Return the value of the whole portfolio: that of the drifts, and what counts in no weight."""
    apart = apart_raw(step)
    return sum(
        (drift.value + apart.get(drift.token, 0) * drift.price for drift in drifts), Fraction(0)
    )


def alert_prices(drifts: Sequence[AssetDrift]) -> dict[str, tuple[Price | None, Price | None]]:
    """Return the prices below and above which each asset leaves its band if it alone moves; None if
    there is no such price.

    A share e = v / (v + rest) is reached at v = rest · e / (1 - e): a band of 45 to 55 % is left at
    -18.2 % and +22.2 %. Amounts in liquidity positions and in margin are held constant, although
    they change with the price.
    """
    whole = investable_total(drifts)
    result = {}
    for drift in drifts:
        rest = whole - drift.value
        edges = (drift.band_low_bps / BPS, drift.band_high_bps / BPS)
        low, high = (
            _price_at(share, rest, drift.investable_raw + drift.locked_raw) for share in edges
        )
        result[drift.token] = (low, high)
    return result


def unreachable_reasons(drift: AssetDrift, drifts: Sequence[AssetDrift]) -> tuple[str, str]:
    """Return why there is no alert price below, and above; empty if there is one."""
    if drift.investable_raw + drift.locked_raw == 0:
        return ("the portfolio holds none of it, so no price changes its share",) * 2
    if investable_total(drifts) == drift.value:
        return ("no other asset has value, so its share is 100 % at every price",) * 2
    if drift.band_low_bps <= 0:
        low = "its band reaches down to 0 %, and its share cannot fall below that"
    else:
        low = ""
    return (
        low,
        (
            "its band reaches up to 100 %, and its share cannot rise above that"
            if drift.band_high_bps >= BPS
            else ""
        ),
    )


def _price_at(share: Fraction, rest: Value, counted_raw: int) -> Price | None:
    if not 0 < share < 1 or rest == 0 or counted_raw == 0:
        return None
    return rest * share / (1 - share) / counted_raw


# --- Goal of a rebalance: the target, the edge of the band, halfway, or towards the target as far
# as the saving exceeds the cost.


def rebalance_goal(drifts: Sequence[AssetDrift], destination: Destination) -> Goal:
    """Return the goal shares of all assets, in order. Points sum to one; every share in an interval
    can be offset by the other assets.
    """
    match destination:
        case Destination.TARGET | Destination.ZONE:
            return _points(drifts, [_target(drift) for drift in drifts])
        case Destination.HALFWAY:
            return _points(drifts, [(drift.share + _target(drift)) / 2 for drift in drifts])
        case Destination.BAND:
            return _bands(drifts)


def _target(drift: AssetDrift) -> Fraction:
    return Fraction(drift.target_bps, BPS)


def _points(drifts: Sequence[AssetDrift], shares: Sequence[Fraction]) -> Goal:
    return Goal(
        tuple(
            GoalWeight(drift.token, share, share)
            for drift, share in zip(drifts, shares, strict=True)
        )
    )


def _bands(drifts: Sequence[AssetDrift]) -> Goal:
    """Return the bands without the shares that the other assets cannot offset: a share of 55 %
    needs other assets whose bands together reach down to 45 %.
    """
    lows = [drift.band_low_bps / BPS for drift in drifts]
    highs = [drift.band_high_bps / BPS for drift in drifts]
    weights = []
    for drift, low, high in zip(drifts, lows, highs, strict=True):
        others_low, others_high = sum(lows) - low, sum(highs) - high
        weights.append(
            GoalWeight(drift.token, max(low, 1 - others_high), min(high, 1 - others_low))
        )
    return Goal(tuple(weights))
