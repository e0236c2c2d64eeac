"""Pools of stated depth around a recorded price, as the arbitrage of a whole bar leaves them."""

from __future__ import annotations

from math import isqrt

from agent.amm.v3_math.tick_math import MAX_TICK, get_tick_at_sqrt_ratio
from agent.backtest.wanted import simulated_address
from agent.errors import ConfigError
from agent.model import PoolState, TickLiquidity, V2Pool, V3Pool
from agent.units import Price, Token, floor_int

SPACINGS = {100: 1, 500: 10, 3000: 60, 10_000: 200}
"""Tick spacing by fee, as the factory enables them; other fees get that of 0.3 %."""
UINT112_MAX = 2**112 - 1


def pool_at(kind: str, token: Token, money: Token, price: Price, depth_raw: int, fee_pips: int) -> PoolState:
    """A pool in which one base unit of `token` costs `price` base units of `money`, with `depth_raw` of `money` on that side.

    "v2" is a pair, "v3" a pool whose liquidity spans every tick; of that `depth_raw` is the virtual reserve.
    Raises ConfigError when the amounts do not fit the contract.
    """
    other_raw = floor_int(depth_raw / price)
    if not 0 < other_raw <= UINT112_MAX or not 0 < depth_raw <= UINT112_MAX:
        raise ConfigError(
            f"--depth: {depth_raw} base units of {money.label} beside {other_raw} of {token.label} do not fit a contract",
            "choose another depth: both sides are 1 base unit or more, and below 2^112",
        )
    first = int(token.address, 16) < int(money.address, 16)
    token0, token1 = (token.address, money.address) if first else (money.address, token.address)
    reserve0, reserve1 = (other_raw, depth_raw) if first else (depth_raw, other_raw)
    address = simulated_address(f"{kind} {token.address} {money.address}")
    if kind == "v2":
        return V2Pool(address, "uniswap_v2", token0, token1, reserve0, reserve1, fee_pips)
    ratio = price if first else 1 / price
    sqrt_x96 = isqrt(floor_int(ratio * 2**192))
    liquidity = isqrt(reserve0 * reserve1)
    spacing = SPACINGS.get(fee_pips, 60)
    edge = MAX_TICK // spacing * spacing
    ends = (TickLiquidity(-edge, liquidity), TickLiquidity(edge, -liquidity))
    tick = get_tick_at_sqrt_ratio(sqrt_x96)
    return V3Pool(address, "uniswap_v3", token0, token1, fee_pips, spacing, sqrt_x96, tick, liquidity, ends, -edge, edge)
