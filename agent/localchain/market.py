"""Moves the market of the embedded chain: real swaps bring every pool to the new world price, then feeds and time follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from agent.amm.v2_math import get_amount_out
from agent.artifacts import npm
from agent.localchain.chain import TWAP_WINDOW_S, LocalChain, PoolInfo
from agent.localchain.liquidity import V3_POOL
from agent.localchain.prices import sqrt_price_x96, v2_input_to_reach
from agent.units import Token

SWAP_ROUTER_02 = "@uniswap/swap-router-contracts/artifacts/contracts/SwapRouter02.sol/SwapRouter02.json"
V2_PAIR = "@uniswap/v2-core/build/UniswapV2Pair.json"
TWAP_MARGIN_S = 60


def move_market(chain: LocalChain, prices_usd: Mapping[str, Fraction], twap_follows: bool, feeds_follow: bool) -> None:
    """See LocalChain.move_market."""
    for symbol, price in prices_usd.items():
        if symbol not in chain.tokens or price <= 0:
            raise ValueError(f"cannot move {symbol} to {price}: it needs to be a token of this chain and a positive price")
    chain.books = replace(chain.books, prices_usd={**chain.books.prices_usd, **prices_usd})
    for pool in chain.books.pool_info.values():
        if pool.token0.symbol in prices_usd or pool.token1.symbol in prices_usd:
            arbitrage(chain, pool)
    if twap_follows:
        chain.warp(TWAP_WINDOW_S + TWAP_MARGIN_S, refresh_feeds=False)
    if feeds_follow:
        # Time may have passed for all of them, so all get a round.
        chain.refresh_feeds(chain.feeds if twap_follows else prices_usd)


def arbitrage(chain: LocalChain, pool: PoolInfo) -> None:
    """The whale trades until the pool's marginal price, fee excluded, is the current cross price."""
    target = chain.pool_price(pool.token0.symbol, pool.token1.symbol)
    if pool.version == 2:
        _arbitrage_v2(chain, pool, target)
    else:
        _arbitrage_v3(chain, pool, target)


def swap(chain: LocalChain, pool: PoolInfo, token_in: str, amount_in_raw: int) -> int:
    """See LocalChain.swap."""
    given = pool.token0 if pool.token0.symbol == token_in else pool.token1
    wanted = pool.token1 if given is pool.token0 else pool.token0
    before = chain.balance(wanted.symbol, chain.whale.address)
    if pool.version == 2:
        _swap_v2(chain, given, wanted, amount_in_raw)
    else:
        _swap_v3(chain, pool, given, wanted, amount_in_raw, 0)
    return chain.balance(wanted.symbol, chain.whale.address) - before


def _arbitrage_v2(chain: LocalChain, pool: PoolInfo, target: Fraction) -> None:
    reserve0, reserve1, _ = chain.contract(pool.address, npm(V2_PAIR)).functions.getReserves().call()
    sell0 = v2_input_to_reach(reserve0, reserve1, target)
    sell1 = v2_input_to_reach(reserve1, reserve0, 1 / target)
    # A pair refuses a trade so small that it pays nothing for it.
    if sell0 > 0 and get_amount_out(sell0, reserve0, reserve1) > 0:
        _swap_v2(chain, pool.token0, pool.token1, sell0)
    elif sell1 > 0 and get_amount_out(sell1, reserve1, reserve0) > 0:
        _swap_v2(chain, pool.token1, pool.token0, sell1)


def _arbitrage_v3(chain: LocalChain, pool: PoolInfo, target: Fraction) -> None:
    now_x96 = int(chain.contract(pool.address, npm(V3_POOL)).functions.slot0().call()[0])
    limit_x96 = sqrt_price_x96(target)
    if now_x96 == limit_x96:
        return
    given, wanted = (pool.token0, pool.token1) if limit_x96 < now_x96 else (pool.token1, pool.token0)
    _swap_v3(chain, pool, given, wanted, chain.balance(given.symbol, chain.whale.address), limit_x96)


def _swap_v2(chain: LocalChain, given: Token, wanted: Token, amount_in_raw: int) -> None:
    router = chain.contract(chain.addresses.swap_router_02, npm(SWAP_ROUTER_02))
    path = [given.address, wanted.address]
    chain.send(router.functions.swapExactTokensForTokens(amount_in_raw, 0, path, chain.whale.address))


def _swap_v3(chain: LocalChain, pool: PoolInfo, given: Token, wanted: Token, amount_in_raw: int, limit_x96: int) -> None:
    """Exact input up to a price limit: what the limit leaves over is never taken from the whale."""
    router = chain.contract(chain.addresses.swap_router_02, npm(SWAP_ROUTER_02))
    order = (given.address, wanted.address, pool.fee_pips, chain.whale.address, amount_in_raw, 0, limit_x96)
    chain.send(router.functions.exactInputSingle(order))
