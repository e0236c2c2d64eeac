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
    principal_raws = principal(position, liquidity)
    if isinstance(position, LpV2Position):
        paid_out_raw = (-principal_raws[0], -principal_raws[1])
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
    owed = position.owed
    core_owed = position.core_owed
    inside_last = position.inside_last_x128
    core_inside_last = position.core_inside_last_x128
    if position.liquidity > 0:
        growth_now = growth_inside_x128(position)
        owed = credit_fees(owed, growth_now, inside_last, position.liquidity)
        inside_last = growth_now
        core_owed = credit_fees(core_owed, growth_now, core_inside_last, position.core_liquidity)
        core_inside_last = growth_now
    return replace(
        position,
        owed=(owed[0] - paid_fees[0], owed[1] - paid_fees[1]),
        core_owed=(core_owed[0] - paid_fees[0], core_owed[1] - paid_fees[1]),
        inside_last_x128=inside_last,
        core_inside_last_x128=core_inside_last,
    )


def after_provision(
    position: LpV2Position | LpV3Position, liquidity: int, amounts: Amounts
) -> LpV2Position | LpV3Position:
    """Return the position after increaseLiquidity or addLiquidity. Fees earned before are owed, not
    paid.
    """
    if isinstance(position, LpV2Position):
        return _settled_pair(position, position.liquidity + liquidity, liquidity, amounts)
    credited_position = position
    if position.liquidity > 0:
        growth_now = growth_inside_x128(position)
        credited_position = replace(
            position,
            owed=credit_fees(
                position.owed, growth_now, position.inside_last_x128, position.liquidity
            ),
            core_owed=credit_fees(
                position.core_owed,
                growth_now,
                position.core_inside_last_x128,
                position.core_liquidity,
            ),
            inside_last_x128=growth_now,
            core_inside_last_x128=growth_now,
        )
    return replace(
        credited_position,
        liquidity=credited_position.liquidity + liquidity,
        core_liquidity=credited_position.core_liquidity + liquidity,
    )


def new_position(
    target: LpTarget, tick_state: TickState, ticks: Amounts, liquidity: int
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
