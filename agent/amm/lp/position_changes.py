"""State of a position after a withdrawal, collect or provision, computed as the contracts do."""

from __future__ import annotations

from dataclasses import replace

from agent.amm.lp.positions import (
    Amounts,
    credit_fees,
    growth_inside_x128,
    principal,
    uncollected_fees,
    v2_protocol_mint,
)
from agent.model import (
    LpTarget,
    LpV2Position,
    LpV3Position,
    TickState,
)

UNMINTED_TOKEN_ID = 0
"""Token id of a position that is not minted yet."""


def after_withdrawal(
    position: LpV2Position | LpV3Position, liquidity: int
) -> LpV2Position | LpV3Position:
    """Return the position after a burn of LP tokens, or after decreaseLiquidity and a full
    collect.
    """
    paid = principal(position, liquidity)
    if isinstance(position, LpV2Position):
        gone = (-paid[0], -paid[1])
        return _settled(position, position.liquidity - liquidity, -liquidity, gone)
    left = after_collect(position)
    return replace(
        left, liquidity=left.liquidity - liquidity, core_liquidity=left.core_liquidity - liquidity
    )


def after_collect(position: LpV3Position) -> LpV3Position:
    """Return the position after a full collect: manager and pool updated, the paid amounts removed
    from both.
    """
    paid = uncollected_fees(position)
    owed, core = position.owed, position.core_owed
    inside, core_inside = position.inside_last_x128, position.core_inside_last_x128
    if position.liquidity > 0:
        now = growth_inside_x128(position)
        owed, inside = credit_fees(owed, now, inside, position.liquidity), now
        core, core_inside = credit_fees(core, now, core_inside, position.core_liquidity), now
    return replace(
        position,
        owed=(owed[0] - paid[0], owed[1] - paid[1]),
        core_owed=(core[0] - paid[0], core[1] - paid[1]),
        inside_last_x128=inside,
        core_inside_last_x128=core_inside,
    )


def after_provision(
    position: LpV2Position | LpV3Position, liquidity: int, amounts: Amounts
) -> LpV2Position | LpV3Position:
    """Return the position after increaseLiquidity or addLiquidity. Fees earned before are owed, not
    paid.
    """
    if isinstance(position, LpV2Position):
        return _settled(position, position.liquidity + liquidity, liquidity, amounts)
    before = position
    if position.liquidity > 0:
        now = growth_inside_x128(position)
        before = replace(
            position,
            owed=credit_fees(position.owed, now, position.inside_last_x128, position.liquidity),
            core_owed=credit_fees(
                position.core_owed, now, position.core_inside_last_x128, position.core_liquidity
            ),
            inside_last_x128=now,
            core_inside_last_x128=now,
        )
    return replace(
        before,
        liquidity=before.liquidity + liquidity,
        core_liquidity=before.core_liquidity + liquidity,
    )


def new_position(target: LpTarget, at: TickState, ticks: Amounts, liquidity: int) -> LpV3Position:
    """Return a new position in the target's pool, without fees and without a token id."""
    none = (0, 0)
    return LpV3Position(
        venue=target.venue,
        manager=target.contract,
        token_id=UNMINTED_TOKEN_ID,
        pool=target.pool,
        token0=target.token0,
        token1=target.token1,
        fee_pips=target.fee_pips,
        tick_lower=ticks[0],
        tick_upper=ticks[1],
        liquidity=liquidity,
        inside_last_x128=none,
        owed=none,
        sqrt_price_x96=at.sqrt_price_x96,
        tick=at.tick,
        growth_global_x128=none,
        growth_outside_lower_x128=none,
        growth_outside_upper_x128=none,
        core_liquidity=liquidity,
        core_inside_last_x128=none,
        core_owed=none,
    )


def _settled(
    position: LpV2Position, liquidity: int, minted_raw: int, moved: Amounts
) -> LpV2Position:
    """Return the state after UniswapV2Pair._update of a mint or burn: reserves equal balances,
    kLast their product while feeTo is set.
    """
    balances = (position.balances[0] + moved[0], position.balances[1] + moved[1])
    return replace(
        position,
        liquidity=liquidity,
        total_supply=position.total_supply + v2_protocol_mint(position) + minted_raw,
        reserves=balances,
        balances=balances,
        k_last=balances[0] * balances[1] if position.protocol_fee else 0,
    )
