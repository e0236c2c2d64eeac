"""How far each asset stands from its target, what would bring it back, and at which price it leaves its band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import Asset, AssetDrift, Goal, StepInput, Trigger
from agent.policy import coin, liquidity, words
from agent.policy.bands import band
from agent.units import BPS, Price, Value, largest_remainder


def drift(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    """Every asset's standing, in the portfolio's order. `prices` are numeraire base units per token base unit, by address.

    Confirmed liquidity positions count by what they stand for at these prices (R1.2). Raises Refused when a balance, position or
    price is missing: unknown is never taken for zero. Of the native asset both balances count, and the floor for gas does not.
    """
    assets = [replace(asset, reserve_raw=coin.kept_raw(step, asset)) for asset in step.portfolio.assets]
    return weigh(assets, coin.held(step), prices, step.policy.trigger, liquidity.holdings(step, prices))


def weigh(
    assets: Sequence[Asset],
    held: Mapping[str, int],
    prices: Mapping[str, Price],
    trigger: Trigger,
    in_positions: Mapping[str, int] | None = None,
) -> tuple[AssetDrift, ...]:
    """The same from balances in base units by token address, without a chain; `in_positions` are those in liquidity.

    What is reserved does not count; with nothing to invest every share is zero and nothing is outside its band.
    """
    lp = in_positions or {}
    for asset in assets:
        for what, known in (("balance", held), ("reference price", prices)):
            if asset.token.address not in known:
                raise Refused(f"the {what} of {asset.token.label} is not known", remedy="see status for what could not be read")
    investable = [max(0, held[asset.token.address] - asset.reserve_raw) for asset in assets]
    values = [(raw + lp.get(asset.token.address, 0)) * prices[asset.token.address] for raw, asset in zip(investable, assets, strict=True)]
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
                lp_raw=lp.get(asset.token.address, 0),
                own_band=asset.band,
                max_bps=asset.max_bps,
            )
        )
    return tuple(result)


def ideal_trades(drifts: Sequence[AssetDrift]) -> dict[str, Value]:
    """Value to buy (positive) or sell of each token to stand exactly on target, at reference prices without costs; sums to zero."""
    whole = total(drifts)
    return {drift.token: whole * drift.target_bps / BPS - drift.value for drift in drifts}


def corrections(drifts: Sequence[AssetDrift], goal: Goal) -> dict[str, Value]:
    """Value that each token lacks (positive) or has too much of, to the nearest share that the goal allows."""
    whole = total(drifts)
    result = {}
    for drift, wanted in zip(drifts, goal.weights, strict=True):
        result[drift.token] = whole * (min(max(drift.share, wanted.low), wanted.high) - drift.share)
    return result


def overweight(drifts: Sequence[AssetDrift]) -> tuple[str, ...]:
    """Which assets are above limits.max_weight, in words."""
    return tuple(
        f"{drift.symbol} is {words.percent(drift.share)} of the portfolio, above limits.max_weight of {drift.max_bps / 100:g} %: "
        "nothing more of it is bought, and it is brought down where that is worth its cost"
        for drift in drifts
        if drift.max_bps is not None and drift.share * BPS > drift.max_bps
    )


def total(drifts: Sequence[AssetDrift]) -> Value:
    """Investable value of the portfolio, numeraire base units."""
    return sum((drift.value for drift in drifts), Fraction(0))


def alert_prices(drifts: Sequence[AssetDrift]) -> dict[str, tuple[Price | None, Price | None]]:
    """Prices below and above which each asset leaves its band when it alone moves; None where no price does that.

    A share e = v / (v + rest) is reached at v = rest · e / (1 - e): a band of 45 to 55 % is left at -18.2 % and +22.2 %.
    Amounts in liquidity positions are taken as they are now, although they change with the price.
    """
    whole = total(drifts)
    result = {}
    for drift in drifts:
        rest = whole - drift.value
        edges = (drift.band_low_bps / BPS, drift.band_high_bps / BPS)
        low, high = (_price_at(share, rest, drift.investable_raw + drift.lp_raw) for share in edges)
        result[drift.token] = (low, high)
    return result


def unreachable(drift: AssetDrift, drifts: Sequence[AssetDrift]) -> tuple[str, str]:
    """Why there is no alert price below, and above; empty where there is one."""
    if drift.investable_raw + drift.lp_raw == 0:
        return ("none of it is held, so that no price changes its share",) * 2
    if total(drifts) == drift.value:
        return ("nothing else has any value, so that its share is 100 % at every price",) * 2
    low = "its band reaches down to 0 %, below which no price takes it" if drift.band_low_bps <= 0 else ""
    return low, "its band reaches up to 100 %, above which no price takes it" if drift.band_high_bps >= BPS else ""


def _price_at(share: Fraction, rest: Value, counted_raw: int) -> Price | None:
    if not 0 < share < 1 or rest == 0 or counted_raw == 0:
        return None
    return rest * share / (1 - share) / counted_raw
