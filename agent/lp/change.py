"""What a position is after liquidity was taken out, collected or put in: the next state by the contracts' own accounts."""

from __future__ import annotations

from dataclasses import replace

from agent.lp.exact import Amounts, credited, growth_inside_x128, principal, uncollected, v2_protocol_mint
from agent.model import LpTarget, LpV2Position, LpV3Position, V3Pool

UNBORN = 0
"""Stands for the number of a position that is yet to be minted."""


def taken_out(position: LpV2Position | LpV3Position, liquidity: int) -> LpV2Position | LpV3Position:
    """After a burn of so many LP tokens, or decreaseLiquidity and a collect of everything."""
    paid = principal(position, liquidity)
    if isinstance(position, LpV2Position):
        gone = (-paid[0], -paid[1])
        return _settled(position, position.liquidity - liquidity, -liquidity, gone)
    left = collected(position)
    return replace(left, liquidity=left.liquidity - liquidity, core_liquidity=left.core_liquidity - liquidity)


def collected(position: LpV3Position) -> LpV3Position:
    """After a collect of everything: both accounts are up to date, and what was paid is in neither."""
    paid = uncollected(position)
    owed, core = position.owed, position.core_owed
    inside, core_inside = position.inside_last_x128, position.core_inside_last_x128
    if position.liquidity > 0:
        now = growth_inside_x128(position)
        owed, inside = credited(owed, now, inside, position.liquidity), now
        core, core_inside = credited(core, now, core_inside, position.core_liquidity), now
    return replace(
        position,
        owed=(owed[0] - paid[0], owed[1] - paid[1]),
        core_owed=(core[0] - paid[0], core[1] - paid[1]),
        inside_last_x128=inside,
        core_inside_last_x128=core_inside,
    )


def put_in(position: LpV2Position | LpV3Position, liquidity: int, amounts: Amounts) -> LpV2Position | LpV3Position:
    """After increaseLiquidity or addLiquidity. Fees earned before are owed, not paid."""
    if isinstance(position, LpV2Position):
        return _settled(position, position.liquidity + liquidity, liquidity, amounts)
    before = position
    if position.liquidity > 0:
        now = growth_inside_x128(position)
        before = replace(
            position,
            owed=credited(position.owed, now, position.inside_last_x128, position.liquidity),
            core_owed=credited(position.core_owed, now, position.core_inside_last_x128, position.core_liquidity),
            inside_last_x128=now,
            core_inside_last_x128=now,
        )
    return replace(before, liquidity=before.liquidity + liquidity, core_liquidity=before.core_liquidity + liquidity)


def minted(target: LpTarget, pool: V3Pool, ticks: Amounts, liquidity: int) -> LpV3Position:
    """A new position of the target's pool; it has earned nothing, and no number yet."""
    none = (0, 0)
    return LpV3Position(
        venue=target.venue,
        manager=target.contract,
        token_id=UNBORN,
        pool=target.pool,
        token0=target.token0,
        token1=target.token1,
        fee_pips=target.fee_pips,
        tick_lower=ticks[0],
        tick_upper=ticks[1],
        liquidity=liquidity,
        inside_last_x128=none,
        owed=none,
        sqrt_price_x96=pool.sqrt_price_x96,
        tick=pool.tick,
        growth_global_x128=none,
        growth_outside_lower_x128=none,
        growth_outside_upper_x128=none,
        core_liquidity=liquidity,
        core_inside_last_x128=none,
        core_owed=none,
    )


def _settled(position: LpV2Position, liquidity: int, minted_raw: int, moved: Amounts) -> LpV2Position:
    """UniswapV2Pair._update after a mint or burn: the reserves are what is held, kLast their product while there is a feeTo."""
    held = (position.balances[0] + moved[0], position.balances[1] + moved[1])
    return replace(
        position,
        liquidity=liquidity,
        total_supply=position.total_supply + v2_protocol_mint(position) + minted_raw,
        reserves=held,
        balances=held,
        k_last=held[0] * held[1] if position.protocol_fee else 0,
    )
