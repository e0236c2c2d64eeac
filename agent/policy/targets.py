"""Target weights chosen by an allocator, or the reason why there are none: due time, the
allocator's result, and minimum change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent import codec
from agent.errors import ErrorCode, Refused
from agent.layers.allocators import ALLOCATORS
from agent.model import (
    Allocation,
    AllocationMethod,
    AllocatorConfig,
    Asset,
    InitialWeights,
    WeightLimit,
)
from agent.units import BPS, bounded_bps, format_bps, minute_text
from agent.weights.allocators import AllocatorData, UnroundedWeights, WeightBounds
from agent.weights.returns import ACCEPT_HINT


def settings_hash(settings: AllocatorConfig, assets: Sequence[Asset]) -> str:
    """Return a hash of allocator settings, assets, and targets of fixed assets, but not of
    `max_change_bps`, which decides no weight. An allocation is valid only under its hash.
    """
    fixed_bps_by_token = {
        asset.token.address: asset.target_bps
        for asset in assets
        if asset.token.address in settings.fixed_tokens
    }
    tokens = sorted(asset.token.address for asset in assets)
    settings_fields = codec.to_jsonable(settings)
    del settings_fields["max_change_bps"]
    hashed_text = (
        codec.dumps(settings_fields) + repr(tokens) + repr(sorted(fixed_bps_by_token.items()))
    )
    return hashlib.sha256(hashed_text.encode()).hexdigest()[:16]


def valid_allocation(
    settings: AllocatorConfig, assets: Sequence[Asset], last_allocation: Allocation | None
) -> Allocation | None:
    """Return the last allocation if its settings and assets are unchanged, else None."""
    if last_allocation is None or last_allocation.settings_hash != settings_hash(settings, assets):
        return None
    return last_allocation


def is_allocation_due(
    settings: AllocatorConfig,
    assets: Sequence[Asset],
    last_allocation: Allocation | None,
    now_s: int,
) -> bool:
    """True if a new allocation is due at chain time `now_s`."""
    if settings.method is AllocationMethod.FIXED:
        return False
    last_allocation = valid_allocation(settings, assets, last_allocation)
    return last_allocation is None or now_s >= last_allocation.at_s + settings.every_s


def unrounded_weights(
    settings: AllocatorConfig, assets: Sequence[Asset], inputs: AllocatorData
) -> tuple[WeightBounds, UnroundedWeights]:
    """Return the allocator's unrounded result.

    Raises Refused for data that are missing, stale, singular or zero.
    """
    weight_bounds = bounds_of(settings, assets)
    return weight_bounds, ALLOCATORS[settings.method](settings, weight_bounds, inputs)


def choose_allocation(
    settings: AllocatorConfig,
    assets: Sequence[Asset],
    inputs: AllocatorData,
    last_allocation: Allocation | None,
) -> Allocation:
    """Return an allocation with the weights of all assets in bps, sum 10,000.

    The weights are those of `last_allocation` if none would move by more than `churn_bps`. The
    result does not depend on the order of assets. Raises Refused as `unrounded_weights` does, and
    if a weight would move by more than `max_change_bps`, unless the owner accepts it.
    """
    weight_bounds, allocator_weights = unrounded_weights(settings, assets, inputs)
    free_weights_bps: list[int] = []
    try:
        if allocator_weights.shares_bps:
            free_weights_bps = bounded_bps(
                allocator_weights.shares_bps,
                weight_bounds.low_bps,
                weight_bounds.high_bps,
                weight_bounds.total_bps,
            )
    except ValueError as error:
        raise Refused(
            f"{settings.method.value}: {error}", remedy="check portfolio.weights.limits"
        ) from None
    free_bps_by_token = dict(
        zip(weight_bounds.tokens if free_weights_bps else (), free_weights_bps, strict=True)
    )
    weight_bps_by_token = {
        asset.token.address: free_bps_by_token.get(asset.token.address, asset.target_bps)
        for asset in assets
    }
    choice_reason = allocator_weights.why
    market_weights_bps = allocator_weights.market_bps
    if not inputs.accepts_jumps:
        _require_small_changes(
            settings, assets, inputs, last_allocation, weight_bps_by_token, market_weights_bps
        )
    last_allocation = valid_allocation(settings, assets, last_allocation)
    if last_allocation is not None:
        previous_bps_by_token = {
            token: last_allocation.weight_bps(token) for token in weight_bps_by_token
        }
        weight_moves_bps = [
            abs(weight_bps_by_token[token] - previous_bps_by_token[token])
            for token in weight_bps_by_token
        ]
        previous_bps_by_market = dict(last_allocation.market_bps)
        bps_by_market = dict(market_weights_bps)
        weight_moves_bps += [
            abs(bps_by_market.get(market, 0) - previous_bps_by_market.get(market, 0))
            for market in {**previous_bps_by_market, **bps_by_market}
        ]
        largest_move_bps = (
            BPS
            if bool(previous_bps_by_market) is not bool(market_weights_bps)
            else max(weight_moves_bps)
        )
        if 0 < largest_move_bps <= settings.churn_bps:
            weight_bps_by_token = previous_bps_by_token
            market_weights_bps = last_allocation.market_bps
            choice_reason += f"; no weight would move by more than {format_bps(largest_move_bps)}, so the weights stay"
    return Allocation(
        at_s=inputs.now_s,
        method=settings.method,
        weights_bps=tuple(sorted(weight_bps_by_token.items())),
        settings_hash=settings_hash(settings, assets),
        sample_text=allocator_weights.sample_text,
        why=choice_reason,
        first_price_s=allocator_weights.from_s,
        last_price_s=allocator_weights.until_s,
        return_count=0
        if allocator_weights.returns is None
        else len(allocator_weights.returns.simple_returns),
        market_bps=market_weights_bps,
    )


def _require_small_changes(
    settings: AllocatorConfig,
    assets: Sequence[Asset],
    inputs: AllocatorData,
    last_allocation: Allocation | None,
    weight_bps_by_token: Mapping[str, int],
    market_bps: tuple[tuple[str, int], ...],
) -> None:
    """Raise Refused if a weight would move by more than `max_change_bps` from the last allocation,
    under whatever settings it was chosen, or if a market would lose its weight; before the first one
    from the targets of the config, if these apply until then.
    """
    if settings.max_change_bps is None:
        return
    new_bps = {**weight_bps_by_token, **dict(market_bps)}
    # a market without a new weight would go to the target of the config, wherever that is
    for market, last_bps in () if last_allocation is None else last_allocation.market_bps:
        if last_bps and market not in new_bps:
            label = inputs.label_by_token.get(market, market)
            raise _waits_for_owner(
                f"{label} would leave its {format_bps(last_bps)} for the target of the config"
            )
    change = largest_change(settings, assets, last_allocation, new_bps)
    if change is not None and change.bps > settings.max_change_bps:
        label = inputs.label_by_token.get(change.name, change.name)
        raise _waits_for_owner(
            f"{label} would move from {format_bps(change.from_bps)} to {format_bps(change.to_bps)},"
            f" more than max_change of {format_bps(settings.max_change_bps)}"
        )


@dataclass(frozen=True, slots=True)
class WeightChange:
    """Change of the weight of a token or futures market, by address."""

    name: str
    from_bps: int
    to_bps: int

    @property
    def bps(self) -> int:
        """Its size."""
        return abs(self.to_bps - self.from_bps)


def largest_change(
    settings: AllocatorConfig,
    assets: Sequence[Asset],
    last_allocation: Allocation | None,
    new_bps: Mapping[str, int],
) -> WeightChange | None:
    """Return the largest change from the last allocation, under whatever settings it was chosen, to
    new weights by token and market; before the first one from the targets of the config, if these
    apply until then, else None.
    """
    previous_bps: dict[str, int] = {}
    if last_allocation is not None:
        previous_bps = dict.fromkeys(new_bps, 0)
        previous_bps |= dict(last_allocation.weights_bps)
        previous_bps |= dict(last_allocation.market_bps)
    elif settings.initial_weights is InitialWeights.TARGETS:
        previous_bps = {asset.token.address: asset.target_bps for asset in assets}
    changes = [
        WeightChange(name, previous_bps[name], bps)
        for name, bps in new_bps.items()
        if name in previous_bps
    ]
    return max(changes, key=lambda change: (change.bps, change.name), default=None)


def _waits_for_owner(change_text: str) -> Refused:
    return Refused(
        f"{change_text}: the choice waits for the owner ({ACCEPT_HINT})",
        remedy="look at it: trimtab weights",
        code=ErrorCode.WEIGHTS,
    )


def format_allocation(allocation: Allocation) -> str:
    """Format an allocation: method, time, data and reason."""
    period_text = ""
    if allocation.first_price_s is not None and allocation.last_price_s is not None:
        period_text = f", {minute_text(allocation.first_price_s)} UTC to {minute_text(allocation.last_price_s)} UTC"

    return (
        f"weights by {allocation.method.value}, chosen {minute_text(allocation.at_s)} UTC from {allocation.sample_text}{period_text}:"
        f" {allocation.why}"
    )


def bounds_of(settings: AllocatorConfig, assets: Sequence[Asset]) -> WeightBounds:
    """Return the bounds of free assets, ordered by address, so that ties do not depend on list
    order.

    Raises Refused if no weights fit the bounds.
    """
    free_tokens = tuple(
        sorted(
            asset.token.address
            for asset in assets
            if asset.token.address not in settings.fixed_tokens
        )
    )
    total_bps = BPS - sum(
        asset.target_bps for asset in assets if asset.token.address in settings.fixed_tokens
    )
    limit_by_token = {limit.token: limit for limit in settings.limits}
    limits = [limit_by_token.get(token, WeightLimit(token, 0, BPS)) for token in free_tokens]
    low_limits_bps = tuple(limit.low_bps for limit in limits)
    high_limits_bps = tuple(min(limit.high_bps, total_bps) for limit in limits)
    if (
        not free_tokens
        or total_bps <= 0
        or not sum(low_limits_bps) <= total_bps <= sum(high_limits_bps)
    ):
        raise Refused(
            f"weight limits sum to {sum(low_limits_bps) / 100:g} to {format_bps(sum(high_limits_bps))}, but the free weights"
            f" must sum to {format_bps(total_bps)}",
            remedy="widen portfolio.weights.limits",
        )
    return WeightBounds(free_tokens, total_bps, low_limits_bps, high_limits_bps)
