"""Pools with a liquidity target: their tokens, and what exits leave in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from agent.amm.lp.venues import LpVenue
from agent.model import (
    AssetDrift,
    ConfirmedPosition,
    ExecutionConfig,
    LpMissingPosition,
    LpPosition,
    LpTarget,
    LpV2Position,
    LpV3Position,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.units import Value

POSITIONS_PLACE = "positions"
"""Name of liquidity positions among the places of holdings."""
POSITION_CONTRACT_ROLES: dict[str, str] = {LpVenue.V2: "V2 router", LpVenue.V3: "position manager"}
"""Contracts of the venues through which positions change."""


def position_spenders(execution: ExecutionConfig) -> dict[str, str]:
    """Return the contracts that may hold an allowance for liquidity, with their roles."""
    return {
        contract: POSITION_CONTRACT_ROLES.get(venue, venue)
        for venue, contract in execution.contract_by_venue
    }


def spenders(step: StepInput) -> dict[str, str]:
    """Return the `position_spenders` of a step's config."""
    return position_spenders(step.execution)


def pooled_tokens(portfolio: Portfolio) -> set[str]:
    """Return the tokens of positions and targets."""
    positions_and_targets: tuple[ConfirmedPosition | LpTarget, ...] = (
        *portfolio.positions,
        *portfolio.lp_targets,
    )
    return {
        token
        for position_or_target in positions_and_targets
        for token in (position_or_target.token0, position_or_target.token1)
    }


def without_targets(portfolio: Portfolio, excluded_tokens: Collection[str]) -> Portfolio:
    """Return the portfolio that provides none of these tokens."""
    lp_targets = tuple(
        replace(target, share_bps=0)
        if {target.token0, target.token1} & {*excluded_tokens}
        else target
        for target in portfolio.lp_targets
    )
    return replace(portfolio, lp_targets=lp_targets)


def is_in_targeted_pool(snapshot: Snapshot, portfolio: Portfolio, token: str) -> bool:
    """True if a pool with a liquidity target has the token, so its liquidity is withdrawn first."""
    targeted_pools = {
        target.pool for target in portfolio.lp_targets if token in (target.token0, target.token1)
    }
    return any(_has_liquidity_in(position, targeted_pools) for position in snapshot.positions)


def _has_liquidity_in(position: LpPosition, pools: Collection[str]) -> bool:
    match position:
        case LpV2Position():
            return position.liquidity > 0 and position.pair in pools
        case LpV3Position():
            return position.liquidity > 0 and position.pool in pools
        case LpMissingPosition():
            return False


def pools_hold(step: StepInput, drift: AssetDrift, min_value: Value) -> bool:
    """True if an exit withdraws an asset from a targeted pool, and all positions together have at
    least this value of it.
    """
    return (
        is_in_targeted_pool(step.snapshot, step.portfolio, drift.token)
        and drift.raw_at(POSITIONS_PLACE) * drift.price >= min_value
    )


def place_name(_: StepInput) -> str:
    """Return where liquidity is."""
    return "liquidity positions"
