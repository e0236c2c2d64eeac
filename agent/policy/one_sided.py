"""Rebalancing one side only (policy.only).
sell: sell assets above their goals down to them; the proceeds stay in the numeraire, and no asset
is bought.
buy: buy assets below their goals with the numeraire above its own target; if that is too little,
fill all shortfalls in proportion.
winners: sell assets above their bands down to their goals; the proceeds go to all assets below
target, in proportion to shortfall.
losers: buy assets below their bands up to their goals, paid for by all assets above target, in
proportion to excess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import (
    Asset,
    AssetDrift,
    Goal,
    GoalWeight,
    TradeSide,
)
from agent.units import BPS

ShareChanges = dict[str, Fraction]
"""Changes of shares by token; missing tokens are not moved."""


def restrict_to_side(
    drifts: Sequence[AssetDrift], goal: Goal, only: TradeSide | None, numeraire: str
) -> Goal:
    """Return the goal restricted to one side as defined above; unchanged without `only`. No other
    token is bought or sold; under sell the numeraire may only grow, under buy only shrink.
    """
    if only is None:
        return goal
    off = {
        drift.token: min(max(drift.share, want.low), want.high) - drift.share
        for drift, want in zip(drifts, goal.weights, strict=True)
    }
    match only:
        case TradeSide.SELL:
            changes = {
                token: change for token, change in off.items() if change < 0 and token != numeraire
            }
        case TradeSide.BUY:
            lacks = {
                token: change for token, change in off.items() if change > 0 and token != numeraire
            }
            changes = _scaled(lacks, max(Fraction(0), -_short(drifts).get(numeraire, Fraction(0))))
        case TradeSide.WINNERS:
            sold = {
                asset_drift.token: off[asset_drift.token]
                for asset_drift in drifts
                if asset_drift.outside and off[asset_drift.token] < 0
            }
            changes = sold | _scaled(
                {token: lack for token, lack in _short(drifts).items() if lack > 0},
                -sum(sold.values()),
            )
        case TradeSide.LOSERS:
            bought = {
                drift.token: off[drift.token]
                for drift in drifts
                if drift.outside and off[drift.token] > 0
            }
            changes = bought | _scaled(
                {token: lack for token, lack in _short(drifts).items() if lack < 0},
                sum(bought.values()),
            )
    return _goal(
        drifts,
        changes,
        numeraire if only in (TradeSide.SELL, TradeSide.BUY) else None,
        only is TradeSide.SELL,
    )


def _short(drifts: Sequence[AssetDrift]) -> ShareChanges:
    """Return each token's target share less its share; negative if overweight."""
    return {drift.token: Fraction(drift.target_bps, BPS) - drift.share for drift in drifts}


def _scaled(wanted: Mapping[str, Fraction], money: Fraction | int) -> ShareChanges:
    """Scale `wanted`, all of one sign, in proportion so that their sum is at most `money`."""
    whole = abs(sum(wanted.values(), Fraction(0)))
    part = min(Fraction(1), money / whole) if whole else Fraction(0)
    return {token: change * part for token, change in wanted.items() if part}


def _goal(
    drifts: Sequence[AssetDrift], changes: ShareChanges, money: str | None, grows: bool
) -> Goal:
    """Return a goal of exact shares; unmoved tokens keep theirs, and `money` offsets an unbalanced
    change.
    """
    rest = -sum(changes.values(), Fraction(0))
    ends = {
        drift.token: drift.share
        + changes.get(drift.token, rest if drift.token == money else Fraction(0))
        for drift in drifts
    }
    sold = {token for token, change in changes.items() if change < 0}
    bought = {token for token, change in changes.items() if change > 0}
    if money is not None:
        (bought if grows else sold).add(money)
    return Goal(
        tuple(GoalWeight(token, share, share) for token, share in ends.items()),
        None,
        tuple(token for token in ends if token not in sold),
        tuple(token for token in ends if token not in bought),
    )


def partial_goal(drifts: Sequence[AssetDrift], goal: Goal, part: Fraction) -> Goal:
    """Return the goal for one slice: each edge not yet reached is replaced by the point `part` of
    the way from the current weight to it.
    """
    weights = []
    for drift, weight in zip(drifts, goal.weights, strict=True):
        low, high, share = weight.low, weight.high, drift.share
        is_point = low == high
        if is_point or share < low:
            low = share + part * (low - share)
        if is_point or share > high:
            high = share + part * (high - share)
        weights.append(replace(weight, low=low, high=high))
    return replace(goal, weights=tuple(weights))


def target_weights(assets: Sequence[Asset]) -> tuple[tuple[str, int], ...]:
    """Return the target of each token to which an execution is bound."""
    return tuple((asset.token.address, asset.target_bps) for asset in assets)
