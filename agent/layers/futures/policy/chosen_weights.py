"""Futures targets that a signal or an allocator chooses in place of those of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.state import futures_policy, with_policy
from agent.model import FuturesPolicy, FuturesTarget, StepInput
from agent.units import BPS, floor_int, format_percent, largest_remainder


def apply_futures_targets(step: StepInput) -> StepInput:
    """Return the step with the futures targets of its signal or allocator; unchanged without any.

    Weights are shares of the target notional, account value times `leverage_bps`. A sum below one
    lowers the leverage.
    """
    allocator = step.portfolio.allocator
    origin = "the signal" if allocator and allocator.signal else "the allocator"
    return with_market_weights(step, chosen_share_by_market(step), origin)


def chosen_share_by_market(step: StepInput) -> dict[str, Fraction] | None:
    """Return the signed shares of the target notional, by market, that the signal or the allocator
    requests; None if it keeps the config's targets.
    """
    if step.divides_wallet:
        return None
    allocation = step.history.allocation
    if step.portfolio.allocator is None or allocation is None or not allocation.market_bps:
        return None
    return {market: Fraction(bps, BPS) for market, bps in allocation.market_bps}


def with_market_weights(
    step: StepInput, share_by_market: Mapping[str, Fraction] | None, origin: str
) -> StepInput:
    """Return the step with these signed shares of its target notional, by market, and their origin
    among its reasons; unchanged for None, and without futures.
    """
    if (policy := futures_policy(step)) is None or share_by_market is None:
        return step
    policy_with_weights = policy_with_shares(policy, share_by_market)
    gross_share = sum(map(abs, share_by_market.values()), Fraction(0))
    note = f"futures targets are those of {origin}: {format_percent(gross_share)} of the target notional"
    return with_policy(
        replace(step, targets=replace(step.targets, reasons=(*step.targets.reasons, note))),
        policy_with_weights,
    )


def policy_with_shares(
    policy: FuturesPolicy, share_by_market: Mapping[str, Fraction]
) -> FuturesPolicy:
    """Return the policy with these signed shares of its target notional: weights whose absolute
    values sum to 100 % (by largest remainder), and a proportionally lower leverage, rounded down.
    """
    absolute_shares = [abs(share) for share in share_by_market.values()]
    gross_share = sum(absolute_shares, Fraction(0))
    rounded_bps = largest_remainder(absolute_shares) if gross_share else [0] * len(absolute_shares)
    targets = tuple(
        FuturesTarget(market, bps if share > 0 else -bps)
        for (market, share), bps in zip(share_by_market.items(), rounded_bps, strict=True)
    )
    full_leverage_bps = policy.configured_leverage_bps or policy.leverage_bps
    return replace(
        policy,
        targets=targets,
        leverage_bps=floor_int(full_leverage_bps * gross_share),
        configured_leverage_bps=full_leverage_bps,
    )
