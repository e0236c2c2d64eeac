"""Drift of each asset from its target, the goal of a rebalance, and the prices at which an asset
leaves its band.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import ErrorCode, Refused
from agent.layers.questions import raw_by_place_outside, unweighted_raw
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
from agent.units import BPS, Price, Value, format_bps, largest_remainder

# --- Width of the band around a target: the trigger's widths, an asset's own widths, the narrower
# of several.


BandEdges = tuple[Fraction, Fraction]


def has_band(trigger: Trigger) -> bool:
    """True if a trigger has a band that weights can leave."""
    return bool(thresholds_of(trigger))


def band(
    trigger: Trigger, target_bps: int, own_band: Threshold | None = None, max_bps: int | None = None
) -> BandEdges:
    """Return the exact edges of the band around a target in bps, within 0 and 10,000.

    `own_band` is the asset's band, in place of the trigger's widths. A band ends at `max_bps` if
    that is above the target. The narrower of an absolute and a relative width counts, and the
    narrowest of several triggers. A trigger without a band has a band of zero width; for a zone the
    whole range, 0 to 10,000, is returned, because its band depends on the market
    (agent/policy/triggers/no_trade_zone.py).
    """
    if isinstance(trigger, NoTradeZone):
        return Fraction(0), Fraction(BPS)
    widths_bps = [
        _width_bps(own_band or threshold, target_bps) for threshold in thresholds_of(trigger)
    ]
    width_bps = min(widths_bps, default=Fraction(0))
    band_end_bps = BPS if max_bps is None or max_bps <= target_bps else max_bps
    return max(Fraction(0), target_bps - width_bps), min(
        Fraction(band_end_bps), target_bps + width_bps
    )


def with_trigger_bands(drifts: Sequence[AssetDrift], trigger: Trigger) -> tuple[AssetDrift, ...]:
    """Return the drifts with the bands of another trigger; each trigger of AnyOf has its own."""
    total_value = sum((drift.value for drift in drifts), Fraction(0))
    drifts_with_bands = []
    for drift in drifts:
        low_bps, high_bps = band(trigger, drift.target_bps, drift.own_band, drift.max_bps)
        is_outside = total_value > 0 and not low_bps <= drift.share * BPS <= high_bps
        drifts_with_bands.append(
            replace(drift, band_low_bps=low_bps, band_high_bps=high_bps, is_outside_band=is_outside)
        )
    return tuple(drifts_with_bands)


def _width_bps(threshold: Threshold, target_bps: int) -> Fraction:
    if threshold.absolute_bps is None:
        widths_bps = []
    else:
        widths_bps = [Fraction(threshold.absolute_bps)]
    widths_bps += (
        []
        if threshold.relative_bps is None
        else [Fraction(threshold.relative_bps * target_bps, BPS)]
    )
    return min(widths_bps, default=Fraction(0))


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
        raw_by_place_outside(step, prices),
    )


def drifts_if_known(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    """Return the drifts, or none if a balance, position or price is missing: no decision is made
    then, no exit counts as sold, and an asset awaiting its entry keeps no target.
    """
    try:
        return compute_drifts(step, prices)
    except Refused:
        return ()


def drifts_from_balances(
    assets: Sequence[Asset],
    balances_raw: Mapping[str, int],
    prices: Mapping[str, Price],
    trigger: Trigger,
    balances_elsewhere: Mapping[str, Mapping[str, int]] | None = None,
) -> tuple[AssetDrift, ...]:
    """Return the drifts from balances in base units by token address; `balances_elsewhere` are
    those outside the wallet, by place and token.

    Reserves do not count. If nothing is investable, every share is zero and no asset is outside its
    band. Raises Refused if a balance or price is missing.
    """
    balances_by_place = balances_elsewhere or {}
    for asset in assets:
        for error_code, input_name, known_by_token in (
            (ErrorCode.BALANCE, "balance", balances_raw),
            (ErrorCode.REFERENCE_PRICE, "reference price", prices),
        ):
            if asset.token.address not in known_by_token:
                raise Refused(
                    f"the {input_name} of {asset.token.label} is unknown",
                    remedy="trimtab status shows what could not be read",
                    code=error_code,
                )
    investable_raws = [
        max(0, balances_raw[asset.token.address] - asset.reserve_raw) for asset in assets
    ]
    asset_values = [
        (
            investable_raw
            + sum(raw_by_token.get(token, 0) for raw_by_token in balances_by_place.values())
        )
        * prices[token]
        for investable_raw, token in zip(
            investable_raws, (asset.token.address for asset in assets), strict=True
        )
    ]
    total_value = sum(asset_values, Fraction(0))
    weights_bps = largest_remainder(asset_values) if total_value > 0 else [0] * len(assets)
    drifts = []
    for asset, investable_raw, asset_value, weight_bps in zip(
        assets, investable_raws, asset_values, weights_bps, strict=True
    ):
        share = asset_value / total_value if total_value > 0 else Fraction(0)
        low_bps, high_bps = band(trigger, asset.target_bps, asset.band, asset.max_bps)
        drifts.append(
            AssetDrift(
                token=asset.token.address,
                symbol=asset.token.label,
                raw=balances_raw[asset.token.address],
                investable_raw=investable_raw,
                price=prices[asset.token.address],
                value=asset_value,
                share=share,
                weight_bps=weight_bps,
                target_bps=asset.target_bps,
                drift_bps=weight_bps - asset.target_bps,
                band_low_bps=low_bps,
                band_high_bps=high_bps,
                is_outside_band=total_value > 0 and not low_bps <= share * BPS <= high_bps,
                own_band=asset.band,
                max_bps=asset.max_bps,
                raw_by_outside_place=tuple(
                    (place, place_raw)
                    for place, raw_by_token in balances_by_place.items()
                    if (place_raw := raw_by_token.get(asset.token.address, 0))
                ),
            )
        )
    return tuple(drifts)


def ideal_trades(drifts: Sequence[AssetDrift]) -> dict[str, Value]:
    """Return the value to buy (positive) or sell of each token to be exactly on target, at
    reference prices without costs. The values sum to zero.
    """
    total_value = investable_total(drifts)
    return {drift.token: total_value * drift.target_bps / BPS - drift.value for drift in drifts}


def corrections(drifts: Sequence[AssetDrift], goal: Goal) -> dict[str, Value]:
    """Return the value of each token to buy (positive) or sell to reach the nearest share within
    the goal.
    """
    total_value = investable_total(drifts)
    value_by_token = {}
    for drift, weight in zip(drifts, goal.weights, strict=True):
        value_by_token[drift.token] = total_value * (
            min(max(drift.share, weight.low), weight.high) - drift.share
        )
    return value_by_token


def overweight_messages(drifts: Sequence[AssetDrift]) -> tuple[str, ...]:
    """Return a message for each asset above limits.max_weight."""
    return tuple(
        f"{drift.symbol} is {drift.weight_text} of the portfolio, above"
        f" limits.max_weight of {format_bps(drift.max_bps)}: it is not bought, "
        "and it is reduced if that is worth its cost"
        for drift in drifts
        if drift.max_bps is not None and drift.share * BPS > drift.max_bps
    )


def investable_total(drifts: Sequence[AssetDrift]) -> Value:
    """Return the investable value of the portfolio, numeraire base units."""
    return sum((drift.value for drift in drifts), Fraction(0))


def portfolio_total(step: StepInput, drifts: Sequence[AssetDrift]) -> Value:
    """Return the value of the whole portfolio: that of the drifts, and what counts in no weight."""
    unweighted_by_token = unweighted_raw(step)
    return sum(
        (drift.value + unweighted_by_token.get(drift.token, 0) * drift.price for drift in drifts),
        Fraction(0),
    )


def band_edge_prices(
    drifts: Sequence[AssetDrift], numeraire: str = ""
) -> dict[str, tuple[Price | None, Price | None]]:
    """Return the prices below and above which each asset leaves its band if it alone moves; None if
    there is no such price, as for the numeraire, whose price is 1 (empty without one).

    A share e = v / (v + rest) is reached at v = rest · e / (1 - e): a band of 45 to 55 % is left at
    -18.2 % and +22.2 %. Amounts in liquidity positions and in margin are held constant, although
    they change with the price.
    """
    total_value = investable_total(drifts)
    edge_prices_by_token: dict[str, tuple[Price | None, Price | None]] = {}
    for drift in drifts:
        if drift.token == numeraire:
            edge_prices_by_token[drift.token] = (None, None)
            continue
        other_value = total_value - drift.value
        edge_shares = (drift.band_low_bps / BPS, drift.band_high_bps / BPS)
        low_price, high_price = (
            _price_at(edge_share, other_value, drift.investable_raw + drift.locked_raw)
            for edge_share in edge_shares
        )
        edge_prices_by_token[drift.token] = (low_price, high_price)
    return edge_prices_by_token


def unreachable_reasons(
    drift: AssetDrift, drifts: Sequence[AssetDrift], numeraire: str = ""
) -> tuple[str, str]:
    """Return why there is no alert price below, and above; empty if there is one."""
    if drift.token == numeraire:
        return ("unit of all values, price 1",) * 2
    if drift.investable_raw + drift.locked_raw == 0:
        return ("the portfolio holds none of it, so no price changes its share",) * 2
    if investable_total(drifts) == drift.value:
        return ("no other asset has value, so its share is 100 % at every price",) * 2
    if drift.band_low_bps <= 0:
        low_reason = "its band reaches down to 0 %, and its share cannot fall below that"
    else:
        low_reason = ""
    return (
        low_reason,
        (
            "its band reaches up to 100 %, and its share cannot rise above that"
            if drift.band_high_bps >= BPS
            else ""
        ),
    )


def _price_at(share: Fraction, other_value: Value, counted_raw: int) -> Price | None:
    if not 0 < share < 1 or other_value == 0 or counted_raw == 0:
        return None
    return other_value * share / (1 - share) / counted_raw


# --- Goal of a rebalance: the target, the edge of the band, halfway, or towards the target as far
# as the saving exceeds the cost.


def rebalance_goal(drifts: Sequence[AssetDrift], destination: Destination) -> Goal:
    """Return the goal shares of all assets, in order. Goals that are single shares sum to one;
    every share in an interval can be offset by the other assets.
    """
    match destination:
        case Destination.TARGET | Destination.ZONE:
            return _point_goal(drifts, [_target_share(drift) for drift in drifts])
        case Destination.HALFWAY:
            return _point_goal(
                drifts, [(drift.share + _target_share(drift)) / 2 for drift in drifts]
            )
        case Destination.BAND:
            return _band_goal(drifts)


def _target_share(drift: AssetDrift) -> Fraction:
    return Fraction(drift.target_bps, BPS)


def _point_goal(drifts: Sequence[AssetDrift], shares: Sequence[Fraction]) -> Goal:
    return Goal(
        tuple(
            GoalWeight(drift.token, share, share)
            for drift, share in zip(drifts, shares, strict=True)
        )
    )


def _band_goal(drifts: Sequence[AssetDrift]) -> Goal:
    """Return the bands without the shares that the other assets cannot offset: a share of 55 %
    needs other assets whose bands together reach down to 45 %.
    """
    low_shares = [drift.band_low_bps / BPS for drift in drifts]
    high_shares = [drift.band_high_bps / BPS for drift in drifts]
    goal_weights = []
    for drift, low_share, high_share in zip(drifts, low_shares, high_shares, strict=True):
        others_low_share = sum(low_shares) - low_share
        others_high_share = sum(high_shares) - high_share
        goal_weights.append(
            GoalWeight(
                drift.token,
                max(low_share, 1 - others_high_share),
                min(high_share, 1 - others_low_share),
            )
        )
    return Goal(tuple(goal_weights))
