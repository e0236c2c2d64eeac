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
    drifts: Sequence[AssetDrift], goal: Goal, side: TradeSide | None, numeraire: str
) -> Goal:
    """Return the goal restricted to one side as defined above; unchanged without `side`. No other
    token is bought or sold; under sell the numeraire may only grow, under buy only shrink.
    """
    if side is None:
        return goal
    share_corrections = {
        drift.token: min(max(drift.share, weight.low), weight.high) - drift.share
        for drift, weight in zip(drifts, goal.weights, strict=True)
    }
    match side:
        case TradeSide.SELL:
            share_changes = {
                token: share_change
                for token, share_change in share_corrections.items()
                if share_change < 0 and token != numeraire
            }
        case TradeSide.BUY:
            purchase_changes = {
                token: share_change
                for token, share_change in share_corrections.items()
                if share_change > 0 and token != numeraire
            }
            share_changes = _scaled_changes(
                purchase_changes, max(Fraction(0), -_shortfalls(drifts).get(numeraire, Fraction(0)))
            )
        case TradeSide.WINNERS:
            sale_changes = {
                drift.token: share_corrections[drift.token]
                for drift in drifts
                if drift.is_outside_band and share_corrections[drift.token] < 0
            }
            share_changes = sale_changes | _scaled_changes(
                {
                    token: shortfall
                    for token, shortfall in _shortfalls(drifts).items()
                    if shortfall > 0
                },
                -sum(sale_changes.values()),
            )
        case TradeSide.LOSERS:
            loser_purchases = {
                drift.token: share_corrections[drift.token]
                for drift in drifts
                if drift.is_outside_band and share_corrections[drift.token] > 0
            }
            share_changes = loser_purchases | _scaled_changes(
                {
                    token: shortfall
                    for token, shortfall in _shortfalls(drifts).items()
                    if shortfall < 0
                },
                sum(loser_purchases.values()),
            )
    return _exact_goal(
        drifts,
        share_changes,
        numeraire if side in (TradeSide.SELL, TradeSide.BUY) else None,
        side is TradeSide.SELL,
    )


def _shortfalls(drifts: Sequence[AssetDrift]) -> ShareChanges:
    """Return each token's target share less its share; negative if overweight."""
    return {drift.token: Fraction(drift.target_bps, BPS) - drift.share for drift in drifts}


def _scaled_changes(changes: Mapping[str, Fraction], max_total: Fraction | int) -> ShareChanges:
    """Scale `changes`, all of one sign, in proportion so that their sum is at most `max_total`."""
    total = abs(sum(changes.values(), Fraction(0)))
    factor = min(Fraction(1), max_total / total) if total else Fraction(0)
    return {token: share_change * factor for token, share_change in changes.items() if factor}


def _exact_goal(
    drifts: Sequence[AssetDrift],
    share_changes: ShareChanges,
    balancing_token: str | None,
    balancing_grows: bool,
) -> Goal:
    """Return a goal of exact shares; unmoved tokens keep theirs, and `balancing_token` offsets an
    unbalanced change.
    """
    remaining_change = -sum(share_changes.values(), Fraction(0))
    end_shares = {
        drift.token: drift.share
        + share_changes.get(
            drift.token, remaining_change if drift.token == balancing_token else Fraction(0)
        )
        for drift in drifts
    }
    sold_tokens = {token for token, share_change in share_changes.items() if share_change < 0}
    bought_tokens = {token for token, share_change in share_changes.items() if share_change > 0}
    if balancing_token is not None:
        (bought_tokens if balancing_grows else sold_tokens).add(balancing_token)
    return Goal(
        tuple(GoalWeight(token, share, share) for token, share in end_shares.items()),
        None,
        tuple(token for token in end_shares if token not in sold_tokens),
        tuple(token for token in end_shares if token not in bought_tokens),
    )


def partial_goal(drifts: Sequence[AssetDrift], goal: Goal, fraction: Fraction) -> Goal:
    """Return the goal for one slice: each edge not yet reached is replaced by the point `fraction`
    of the way from the current weight to it.
    """
    weights = []
    for drift, weight in zip(drifts, goal.weights, strict=True):
        low = weight.low
        high = weight.high
        share = drift.share
        is_point = low == high
        if is_point or share < low:
            low = share + fraction * (low - share)
        if is_point or share > high:
            high = share + fraction * (high - share)
        weights.append(replace(weight, low=low, high=high))
    return replace(goal, weights=tuple(weights))


def target_weights(assets: Sequence[Asset]) -> tuple[tuple[str, int], ...]:
    """Return the target of each token to which an execution is bound."""
    return tuple((asset.token.address, asset.target_bps) for asset in assets)
