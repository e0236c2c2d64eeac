"""Choice of weights: due time, allocator result, and threshold of a change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from agent import codec
from agent.errors import Refused
from agent.model import Allocation, AllocationMethod, AllocatorConfig, Asset, WeightLimit
from agent.units import BPS, bounded_bps
from agent.weights.allocators import ALLOCATORS, AllocatorData, UnroundedWeights, WeightBounds


def settings_hash(weights: AllocatorConfig, assets: Sequence[Asset]) -> str:
    """Return a hash of the choice's inputs besides data: allocator settings, assets, and targets of
    fixed assets.
    """
    kept = {
        asset.token.address: asset.target_bps
        for asset in assets
        if asset.token.address in weights.fixed
    }
    tokens = sorted(asset.token.address for asset in assets)
    text = codec.dumps(weights) + repr(tokens) + repr(sorted(kept.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def valid_allocation(
    weights: AllocatorConfig, assets: Sequence[Asset], last: Allocation | None
) -> Allocation | None:
    """Return the last choice if made under these settings for these assets."""
    return last if last is not None and last.basis == settings_hash(weights, assets) else None


def is_allocation_due(
    weights: AllocatorConfig, assets: Sequence[Asset], last: Allocation | None, now_s: int
) -> bool:
    """True if weights must be chosen anew at chain time `now_s`."""
    if weights.method is AllocationMethod.FIXED:
        return False
    last = valid_allocation(weights, assets, last)
    return last is None or now_s >= last.at_s + weights.every_s


def unrounded_weights(
    weights: AllocatorConfig, assets: Sequence[Asset], facts: AllocatorData
) -> tuple[WeightBounds, UnroundedWeights]:
    """Return the allocator's unrounded result.

    Raises Refused naming data that are missing, stale, singular or zero.
    """
    bounds = bounds_of(weights, assets)
    return bounds, ALLOCATORS[weights.method](weights, bounds, facts)


def choose_allocation(
    weights: AllocatorConfig, assets: Sequence[Asset], facts: AllocatorData, last: Allocation | None
) -> Allocation:
    """Return weights of all assets in bps that sum to 10,000; those of `last` if none would move by
    more than `churn_bps`. The result does not depend on the order of assets. Raises Refused as
    `unrounded_weights`.
    """
    bounds, found = unrounded_weights(weights, assets, facts)
    try:
        chosen = bounded_bps(found.shares, bounds.low, bounds.high, bounds.total)
    except ValueError as error:
        raise Refused(
            f"{weights.method.value}: {error}", remedy="check portfolio.weights.limits"
        ) from None
    free = dict(zip(bounds.tokens, chosen, strict=True))
    weights_bps = {
        asset.token.address: free.get(asset.token.address, asset.target_bps) for asset in assets
    }
    why, last = found.why, valid_allocation(weights, assets, last)
    if last is not None:
        before = {token: last.bps(token) for token in weights_bps}
        most = max(abs(weights_bps[token] - before[token]) for token in weights_bps)
        if 0 < most <= weights.churn_bps:
            weights_bps, why = (
                before,
                (
                    f"{why}; no weight would move by more than {most / 100:g} %, so the current"
                    " ones stay"
                ),
            )
    return Allocation(
        at_s=facts.now_s,
        method=weights.method,
        weights_bps=tuple(sorted(weights_bps.items())),
        basis=settings_hash(weights, assets),
        data=found.data,
        why=why,
        from_s=found.from_s,
        until_s=found.until_s,
        returns=0 if found.seen is None else len(found.seen.moves),
    )


def format_allocation(chosen: Allocation) -> str:
    """Format an allocation: method, time, data and reason."""
    span = (
        ""
        if chosen.from_s is None or chosen.until_s is None
        else f", {_utc(chosen.from_s)} to {_utc(chosen.until_s)}"
    )
    return (
        f"weights by {chosen.method.value}, chosen {_utc(chosen.at_s)} from {chosen.data}{span}:"
        f" {chosen.why}"
    )


def bounds_of(weights: AllocatorConfig, assets: Sequence[Asset]) -> WeightBounds:
    """Return bounds of free assets by address, so that list order never breaks ties.

    Raises Refused if no weights fit the bounds.
    """
    free = tuple(
        sorted(asset.token.address for asset in assets if asset.token.address not in weights.fixed)
    )
    total = BPS - sum(asset.target_bps for asset in assets if asset.token.address in weights.fixed)
    limits = {limit.token: limit for limit in weights.limits}
    each = [limits.get(token, WeightLimit(token, 0, BPS)) for token in free]
    low, high = tuple(one.low_bps for one in each), tuple(min(one.high_bps, total) for one in each)
    if not free or total <= 0 or not sum(low) <= total <= sum(high):
        raise Refused(
            f"limits of {sum(low) / 100:g} to {sum(high) / 100:g} % leave no weights that sum to"
            f" {total / 100:g} %",
            remedy="widen portfolio.weights.limits",
        )
    return WeightBounds(free, total, low, high)


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
