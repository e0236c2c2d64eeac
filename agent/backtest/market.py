"""Simulated pools: pools of stated depth around a price, and recorded V3 pools traded to each bar's
price exactly.
"""

from __future__ import annotations

import json
from math import isqrt
from pathlib import Path
from typing import Any

from agent.amm import FORMS
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.amm.v3.tick_math import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, get_tick_at_sqrt_ratio
from agent.backtest.settings import simulated_address
from agent.errors import ConfigError
from agent.model import Pool
from agent.units import PIPS, Price, Token, floor_int
from agent.units import Price as Ratio

# --- Pools of stated depth around a recorded price, after arbitrage over a whole bar.


UINT112_MAX = 2**112 - 1


def make_pool(
    form: str, token: Token, money: Token, price: Price, depth_raw: int, fee_pips: int
) -> Pool:
    """Return a pool in which one base unit of `token` costs `price` base units of `money`, with
    `depth_raw` of `money`. `form` is a key of FORMS. Raises ConfigError if the amounts do not fit
    the contract.
    """
    other_raw = floor_int(depth_raw / price)
    if not 0 < other_raw <= UINT112_MAX or not 0 < depth_raw <= UINT112_MAX:
        raise ConfigError(
            f"--depth: {depth_raw} base units of {money.label} beside {other_raw} of {token.label}"
            " do not fit a contract",
            "choose another depth: both sides are 1 base unit or more, and below 2^112",
        )
    first = int(token.address, 16) < int(money.address, 16)
    tokens, reserves = (
        ((token, money), (other_raw, depth_raw))
        if first
        else ((money, token), (depth_raw, other_raw))
    )
    address = simulated_address(f"{form} {token.address} {money.address}")
    return FORMS[form].simulated(
        form, address, tokens, price if first else 1 / price, reserves, fee_pips
    )


LARGEST_RAW = 2**255 - 1


def read_pool(path: Path, token0: Token, token1: Token) -> V3Pool:
    """Read a JSON file with `scalars` (fee, tick_spacing, sqrt_price_x96, tick, liquidity) and
    `tick_data` by tick: [gross, net, …]. It must list every initialised tick. Raises ConfigError
    for another format, and for ticks that do not sum to the stated liquidity or to zero at the end.
    """
    try:
        made = _pool(json.loads(path.read_text(encoding="utf-8")), path, token0, token1)
    except OSError as error:
        raise ConfigError(
            f"--pool-state: {path} cannot be read: {error.strerror}",
            "name a JSON file that you may read",
        ) from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        why = f"--pool-state: {path.name} is not a pool: {type(error).__name__} {error}"[:160]
        raise ConfigError(why, "give scalars and tick_data, see docs/backtest.md") from None
    inside = sum(one.liquidity_net for one in made.ticks if one.index <= made.tick)
    if inside != made.liquidity or sum(one.liquidity_net for one in made.ticks) != 0:
        raise ConfigError(
            f"--pool-state: the ticks of {path.name} do not add up to its liquidity",
            "give every initialised tick",
        )
    if not int(token0.address, 16) < int(token1.address, 16):
        raise ConfigError(
            f"--pool-state: {token0.label} does not come before {token1.label} by address",
            "name its token0 first",
        )
    return made


def _pool(data: Any, path: Path, token0: Token, token1: Token) -> V3Pool:
    scalars = data["scalars"]
    fee_pips, spacing, sqrt_x96, tick = (
        int(scalars[name]) for name in ("fee", "tick_spacing", "sqrt_price_x96", "tick")
    )
    if not (0 <= fee_pips < PIPS and spacing > 0 and MIN_SQRT_RATIO <= sqrt_x96 < MAX_SQRT_RATIO):
        raise ValueError("fee, spacing or price is impossible")
    if get_tick_at_sqrt_ratio(sqrt_x96) != tick:
        raise ValueError("its tick is not that of its price")
    ticks = tuple(
        TickLiquidity(int(index), int(row[1]))
        for index, row in sorted(data["tick_data"].items(), key=lambda one: int(one[0]))
    )
    edge = MAX_TICK // spacing * spacing
    if any(one.index % spacing or abs(one.index) > edge for one in ticks):
        raise ValueError("a tick that this spacing does not have")
    address = simulated_address(f"pool {path.name} {token0.address} {token1.address}")
    return V3Pool(
        address,
        "uniswap_v3",
        token0.address,
        token1.address,
        fee_pips,
        spacing,
        sqrt_x96,
        tick,
        int(scalars["liquidity"]),
        ticks,
        -edge,
        edge,
    )


def arbitrage_pool(pool: V3Pool, price: Ratio) -> V3Pool:
    """Return the pool after a swap to `price` of token1 per base unit of token0, over every tick in
    between. Real arbitrage stops a fee short on either side. Raises ConfigError for a price outside
    the pool's range.
    """
    wanted_x96 = isqrt(floor_int(price * 2**192))
    if not MIN_SQRT_RATIO < wanted_x96 < MAX_SQRT_RATIO:
        raise ConfigError(
            "--pool-state: a price of the table is beyond what a pool can have",
            "check the decimals of its tokens",
        )
    if wanted_x96 == pool.sqrt_price_x96:
        return pool
    token_in = pool.token0 if wanted_x96 < pool.sqrt_price_x96 else pool.token1
    return pool.swap(token_in, LARGEST_RAW, wanted_x96).after
