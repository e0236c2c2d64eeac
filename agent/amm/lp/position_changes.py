"""State of a position after a withdrawal, collect or provision, computed as the contracts do."""

from __future__ import annotations

from dataclasses import replace

from agent.amm.lp.positions import (
    Amounts,
    uncollected_fees,
    v2_burn,
    v2_protocol_mint,
    with_credited_fees,
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
    if isinstance(position, LpV2Position):
        amount0, amount1 = v2_burn(position, liquidity)
        paid_out_raw = (-amount0, -amount1)
        return _settled_pair(position, position.liquidity - liquidity, -liquidity, paid_out_raw)
    collected_position = after_collect(position)
    return replace(
        collected_position,
        liquidity=collected_position.liquidity - liquidity,
        core_liquidity=collected_position.core_liquidity - liquidity,
    )


def after_collect(position: LpV3Position) -> LpV3Position:
    """Return the position after a full collect: manager and pool updated, the paid amounts removed
    from both.
    """
    paid_fees = uncollected_fees(position)
    credited_position = with_credited_fees(position)
    owed = credited_position.owed
    core_owed = credited_position.core_owed
    return replace(
        credited_position,
        owed=(owed[0] - paid_fees[0], owed[1] - paid_fees[1]),
        core_owed=(core_owed[0] - paid_fees[0], core_owed[1] - paid_fees[1]),
    )


def after_provision(
    position: LpV2Position | LpV3Position, liquidity: int, amounts: Amounts
) -> LpV2Position | LpV3Position:
    """Return the position after increaseLiquidity or addLiquidity. Fees earned before are owed, not
    paid.
    """
    if isinstance(position, LpV2Position):
        return _settled_pair(position, position.liquidity + liquidity, liquidity, amounts)
    credited_position = with_credited_fees(position)
    return replace(
        credited_position,
        liquidity=credited_position.liquidity + liquidity,
        core_liquidity=credited_position.core_liquidity + liquidity,
    )


def new_position(
    target: LpTarget, tick_state: TickState, ticks: tuple[int, int], liquidity: int
) -> LpV3Position:
    """Return a new position in the target's pool, without fees and without a token id."""
    zero_amounts = (0, 0)
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
        inside_last_x128=zero_amounts,
        owed=zero_amounts,
        sqrt_price_x96=tick_state.sqrt_price_x96,
        tick=tick_state.tick,
        growth_global_x128=zero_amounts,
        growth_outside_lower_x128=zero_amounts,
        growth_outside_upper_x128=zero_amounts,
        core_liquidity=liquidity,
        core_inside_last_x128=zero_amounts,
        core_owed=zero_amounts,
    )


def _settled_pair(
    position: LpV2Position, liquidity: int, minted_raw: int, balance_changes: Amounts
) -> LpV2Position:
    """Return the state after UniswapV2Pair._update of a mint or burn: reserves equal balances,
    kLast their product while feeTo is set.
    """
    balances = (
        position.balances[0] + balance_changes[0],
        position.balances[1] + balance_changes[1],
    )
    return replace(
        position,
        liquidity=liquidity,
        total_supply=position.total_supply + v2_protocol_mint(position) + minted_raw,
        reserves=balances,
        balances=balances,
        k_last=balances[0] * balances[1] if position.has_protocol_fee else 0,
    )
