"""One place that builds worlds for tests: pool states read straight from the contracts, the real mainnet pool."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agent.artifacts import npm_artifact
from agent.localchain import LocalChain, LocalPool
from agent.localchain.market import V2_PAIR, V3_POOL, mint_positions
from agent.localchain.world import MAX_TICK
from agent.model import PoolState, TickLiquidity, V2Pool, V3Pool

DATA = Path(__file__).parents[1] / "data"
MAINNET_POOL = DATA / "uniswap_v3_wbtc_weth_3000_block_24407242.json"


def missing(why: str) -> None:
    """Skips the test, or fails it where nothing may be missing (CI)."""
    if os.environ.get("CI"):
        pytest.fail(f"under CI nothing may be missing: {why}")
    pytest.skip(why)


def pool_contract(chain: LocalChain, pool: LocalPool) -> Any:
    """The pair's or pool's contract."""
    return chain.contract(pool.address, npm_artifact(V2_PAIR if pool.version == 2 else V3_POOL))


def read_pool(chain: LocalChain, name: str) -> PoolState:
    """The whole state of a pool, every initialised tick included, asked of the contract itself and not of our lens."""
    pool = chain.books.pool_info[name]
    return read_v2(chain, pool) if pool.version == 2 else read_v3(chain, pool)


def read_v2(chain: LocalChain, pool: LocalPool) -> V2Pool:
    """Reserves of a pair."""
    reserve0, reserve1, _ = pool_contract(chain, pool).functions.getReserves().call()
    return V2Pool(pool.address, "uniswap_v2", pool.token0.address, pool.token1.address, reserve0, reserve1)


def read_v3(chain: LocalChain, pool: LocalPool) -> V3Pool:
    """Slot 0, liquidity and all ticks of a pool. Where positions end is in the chain's books, the rest says the contract."""
    functions = pool_contract(chain, pool).functions
    answers = [(index, functions.ticks(index).call()) for index in sorted(chain.books.ticks.get(pool.name, ()))]
    slot0 = functions.slot0().call()
    ticks = tuple(TickLiquidity(index, int(tick[1])) for index, tick in answers if tick[7])
    state = V3Pool(
        address=pool.address,
        venue="uniswap_v3",
        token0=pool.token0.address,
        token1=pool.token1.address,
        fee_pips=pool.fee_pips,
        tick_spacing=functions.tickSpacing().call(),
        sqrt_price_x96=slot0[0],
        tick=slot0[1],
        liquidity=functions.liquidity().call(),
        ticks=ticks,
        known_from_tick=-MAX_TICK,
        known_to_tick=MAX_TICK,
    )
    assert sum(t.liquidity_net for t in ticks if t.index <= state.tick) == state.liquidity, "a position that the books do not know"
    return state


def price_now(chain: LocalChain, name: str) -> Fraction:
    """Base units of token1 that a pool pays per base unit of token0 at the margin, fee excluded."""
    pool = chain.books.pool_info[name]
    functions = pool_contract(chain, pool).functions
    if pool.version == 2:
        reserve0, reserve1, _ = functions.getReserves().call()
        return Fraction(reserve1, reserve0)
    return Fraction(functions.slot0().call()[0] ** 2, 2**192)


@dataclass(frozen=True, slots=True)
class RecordedPool:
    """A pool as recorded on mainnet: price, liquidity, and liquidity_net by tick."""

    fee_pips: int
    tick_spacing: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    net_by_tick: Mapping[int, int]


def recorded_pool(path: Path = MAINNET_POOL) -> RecordedPool:
    """The recording; its tick entries are [liquidity_gross, liquidity_net, block]."""
    data = json.loads(path.read_text(encoding="utf-8"))
    scalars = data["scalars"]
    net = {int(tick): entry[1] for tick, entry in data["tick_data"].items()}
    return RecordedPool(
        scalars["fee"], scalars["tick_spacing"], scalars["sqrt_price_x96"], scalars["tick"], scalars["liquidity"], dict(sorted(net.items()))
    )


def mint_ticks(chain: LocalChain, pool: LocalPool, net_by_tick: Mapping[int, int]) -> None:
    """Gives an empty pool these ticks: one position per gap between neighbours, as deep as the nets below it add up to."""
    depth, positions = 0, []
    for lower, upper in pairwise(sorted(net_by_tick)):
        depth += net_by_tick[lower]
        if depth > 0:
            positions.append((lower, upper, depth))
    mint_positions(chain, pool, positions)


def mint_mainnet_pool(chain: LocalChain) -> LocalPool:
    """The recorded WBTC/WETH pool between two new tokens of 8 and 18 decimals, in the recorded order."""
    recorded = recorded_pool()
    symbols: list[str] = []
    # A token's address is known once it is deployed: deploy until one of 8 decimals sorts below one of 18.
    while True:
        number = len(symbols) // 2
        symbols += [f"MBTC{number}", f"METH{number}"]
        chain.add_token(symbols[-2], 8, Fraction(60_000))
        chain.add_token(symbols[-1], 18, Fraction(1_800))
        low = min((s for s in symbols if s.startswith("MBTC")), key=lambda s: int(chain.tokens[s].address, 16))
        high = max((s for s in symbols if s.startswith("METH")), key=lambda s: int(chain.tokens[s].address, 16))
        if int(chain.tokens[low].address, 16) < int(chain.tokens[high].address, 16):
            break
    for symbol in (low, high):
        chain.set_balance(symbol, 10**40, owner=chain.whale.address)
    pool = chain.add_v3_pool(low, high, recorded.fee_pips, Fraction(recorded.sqrt_price_x96**2, 2**192))
    mint_ticks(chain, pool, recorded.net_by_tick)
    return pool
