"""Pools and positions of the embedded chain, made by the whale at the current prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.artifacts import npm, own
from agent.localchain.chain import FAR_FUTURE_S, LocalChain, PoolInfo
from agent.localchain.description import Range, V2Spec, V3Spec
from agent.localchain.prices import TICK_SPACINGS, position, sqrt_price_x96, ticks_of
from agent.units import BPS, Token

OBSERVATIONS = 64
"""Slots for price observations per V3 pool: enough for a TWAP of 30 minutes across many trades."""
POSITION_MANAGER = "@uniswap/v3-periphery/artifacts/contracts/NonfungiblePositionManager.sol/NonfungiblePositionManager.json"
V3_POOL = "@uniswap/v3-core/artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json"
V3_FACTORY = "@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json"
V2_FACTORY = "@uniswap/v2-core/build/UniswapV2Factory.json"
V2_ROUTER = "@uniswap/v2-periphery/build/UniswapV2Router02.json"
MINTS_PER_TX = 40


def _sorted(chain: LocalChain, token_a: str, token_b: str) -> tuple[str, str]:
    """Symbols in the order of their addresses, as the factories sort them."""
    first, second = sorted((token_a, token_b), key=lambda symbol: int(chain.tokens[symbol].address, 16))
    return first, second


def _raw_worth(chain: LocalChain, symbol: str, usd: Fraction) -> int:
    return int(usd / chain.books.prices_usd[symbol] * 10 ** chain.tokens[symbol].decimals)


def _know(chain: LocalChain, info: PoolInfo) -> PoolInfo:
    chain.books = replace(chain.books, pool_info={**chain.books.pool_info, info.name: info})
    return info


def _know_ticks(chain: LocalChain, pool: PoolInfo, ends: Iterable[int]) -> None:
    known = chain.books.ticks
    chain.books = replace(chain.books, ticks={**known, pool.name: known.get(pool.name, frozenset()) | frozenset(ends)})


def _pair(chain: LocalChain, token_a: str, token_b: str) -> tuple[Token, Token]:
    first, second = _sorted(chain, token_a, token_b)
    return chain.tokens[first], chain.tokens[second]


def add_v2_pool(chain: LocalChain, token_a: str, token_b: str, value_usd: int) -> PoolInfo:
    """See LocalChain.add_v2_pool."""
    token0, token1 = _pair(chain, token_a, token_b)
    amounts = [_raw_worth(chain, token.symbol, Fraction(value_usd, 2)) for token in (token0, token1)]
    router = chain.contract(chain.addresses.v2_router, npm(V2_ROUTER))
    chain.send(
        router.functions.addLiquidity(token0.address, token1.address, *amounts, *amounts, chain.whale.address, FAR_FUTURE_S), gas=5_000_000
    )
    factory = chain.contract(chain.addresses.v2_factory, npm(V2_FACTORY))
    address = str(factory.functions.getPair(token0.address, token1.address).call())
    return _know(chain, PoolInfo(V2Spec(token_a, token_b, value_usd).name, address, 2, token0, token1, 3_000))


def add_v3_pool(
    chain: LocalChain, token_a: str, token_b: str, fee_pips: int, price: Fraction | None = None, observations: int = OBSERVATIONS
) -> PoolInfo:
    """See LocalChain.add_v3_pool. A pool of the factory keeps one price observation until somebody pays for more."""
    token0, token1 = _pair(chain, token_a, token_b)
    at = chain.pool_price(token0.symbol, token1.symbol) if price is None else price
    manager = chain.contract(chain.addresses.position_manager, npm(POSITION_MANAGER))
    pair = (token0.address, token1.address, fee_pips)
    chain.send(manager.functions.createAndInitializePoolIfNecessary(*pair, sqrt_price_x96(at)), gas=8_000_000)
    address = str(chain.contract(chain.addresses.v3_factory, npm(V3_FACTORY)).functions.getPool(*pair).call())
    chain.send(chain.contract(address, npm(V3_POOL)).functions.increaseObservationCardinalityNext(observations), gas=5_000_000)
    return _know(chain, PoolInfo(V3Spec(token_a, token_b, fee_pips, 0, ()).name, address, 3, token0, token1, fee_pips))


def provide(chain: LocalChain, pool: PoolInfo, value_usd: int, ranges: Sequence[Range]) -> None:
    """Positions of the whale worth `value_usd` in all, spread over the ranges, through the real position manager."""
    manager = chain.contract(chain.addresses.position_manager, npm(POSITION_MANAGER))
    price = chain.pool_price(pool.token0.symbol, pool.token1.symbol)
    spacing = TICK_SPACINGS[pool.fee_pips]
    mints, ends = [], set()
    for part in ranges:
        value1_raw = _raw_worth(chain, pool.token1.symbol, Fraction(value_usd * part.share_bps, BPS))
        made = position(price, *ticks_of(price, part, spacing), float(value1_raw))
        pair = (pool.token0.address, pool.token1.address, pool.fee_pips, made.tick_lower, made.tick_upper)
        mint = (*pair, made.amount0_raw, made.amount1_raw, 0, 0, chain.whale.address, FAR_FUTURE_S)
        mints.append(manager.encode_abi("mint", args=[mint]))
        ends |= {made.tick_lower, made.tick_upper}
    chain.send(manager.functions.multicall(mints))
    _know_ticks(chain, pool, ends)


def mint_positions(chain: LocalChain, pool: PoolInfo, positions: Sequence[tuple[int, int, int]]) -> None:
    """Exact liquidity (tick_lower, tick_upper, liquidity), owned by the PoolMinter, paid by the whale."""
    minter = chain.contract(chain.addresses.pool_minter, own("PoolMinter"))
    for start in range(0, len(positions), MINTS_PER_TX):
        lowers, uppers, liquidities = zip(*positions[start : start + MINTS_PER_TX], strict=True)
        chain.send(minter.functions.mint(pool.address, lowers, uppers, liquidities))
    _know_ticks(chain, pool, {end for lower, upper, _ in positions for end in (lower, upper)})
