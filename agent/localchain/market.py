"""Market of a local chain: pools and positions, swaps and arbitrage, and market moves requested by another process."""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from agent.amm.v2 import get_amount_out
from agent.artifacts import npm_artifact, own_artifact
from agent.errors import ConfigError, Retryable
from agent.localchain.chain import FAR_FUTURE_S, FEED_DECIMALS, TWAP_WINDOW_S, LocalChain, LocalPool
from agent.localchain.world import (
    TICK_SPACINGS,
    LiquidityRange,
    TokenKind,
    V2Spec,
    V3Spec,
    position_amounts,
    range_ticks,
    sqrt_price_x96,
    v2_input_to_reach,
)
from agent.units import BPS, Token

# --- Pools and positions of the embedded chain, created by the whale at the current prices.


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


def _raw_for_usd(chain: LocalChain, symbol: str, usd: Fraction) -> int:
    return int(usd / chain.books.prices_usd[symbol] * 10 ** chain.tokens[symbol].decimals)


def _register_pool(chain: LocalChain, info: LocalPool) -> LocalPool:
    chain.books = replace(chain.books, pool_info={**chain.books.pool_info, info.name: info})
    return info


def _register_ticks(chain: LocalChain, pool: LocalPool, ends: Iterable[int]) -> None:
    known = chain.books.ticks
    chain.books = replace(chain.books, ticks={**known, pool.name: known.get(pool.name, frozenset()) | frozenset(ends)})


def _pair(chain: LocalChain, token_a: str, token_b: str) -> tuple[Token, Token]:
    first, second = _sorted(chain, token_a, token_b)
    return chain.tokens[first], chain.tokens[second]


def add_v2_pool(chain: LocalChain, token_a: str, token_b: str, value_usd: int) -> LocalPool:
    """See LocalChain.add_v2_pool."""
    token0, token1 = _pair(chain, token_a, token_b)
    amounts = [_raw_for_usd(chain, token.symbol, Fraction(value_usd, 2)) for token in (token0, token1)]
    router = chain.contract(chain.addresses.v2_router, npm_artifact(V2_ROUTER))
    chain.send(
        router.functions.addLiquidity(token0.address, token1.address, *amounts, *amounts, chain.whale.address, FAR_FUTURE_S), gas=5_000_000
    )
    factory = chain.contract(chain.addresses.v2_factory, npm_artifact(V2_FACTORY))
    address = str(factory.functions.getPair(token0.address, token1.address).call())
    return _register_pool(chain, LocalPool(V2Spec(token_a, token_b, value_usd).name, address, 2, token0, token1, 3_000))


def add_v3_pool(
    chain: LocalChain, token_a: str, token_b: str, fee_pips: int, price: Fraction | None = None, observations: int = OBSERVATIONS
) -> LocalPool:
    """See LocalChain.add_v3_pool. A factory pool keeps one price observation until someone pays for more."""
    token0, token1 = _pair(chain, token_a, token_b)
    at = chain.pool_price(token0.symbol, token1.symbol) if price is None else price
    manager = chain.contract(chain.addresses.position_manager, npm_artifact(POSITION_MANAGER))
    pair = (token0.address, token1.address, fee_pips)
    chain.send(manager.functions.createAndInitializePoolIfNecessary(*pair, sqrt_price_x96(at)), gas=8_000_000)
    address = str(chain.contract(chain.addresses.v3_factory, npm_artifact(V3_FACTORY)).functions.getPool(*pair).call())
    chain.send(chain.contract(address, npm_artifact(V3_POOL)).functions.increaseObservationCardinalityNext(observations), gas=5_000_000)
    return _register_pool(chain, LocalPool(V3Spec(token_a, token_b, fee_pips, 0, ()).name, address, 3, token0, token1, fee_pips))


def provide_liquidity(chain: LocalChain, pool: LocalPool, value_usd: int, ranges: Sequence[LiquidityRange]) -> None:
    """Provide `value_usd` in total over the ranges as positions of the whale, through the real position manager."""
    manager = chain.contract(chain.addresses.position_manager, npm_artifact(POSITION_MANAGER))
    price = chain.pool_price(pool.token0.symbol, pool.token1.symbol)
    spacing = TICK_SPACINGS[pool.fee_pips]
    mints, ends = [], set()
    for part in ranges:
        value1_raw = _raw_for_usd(chain, pool.token1.symbol, Fraction(value_usd * part.share_bps, BPS))
        made = position_amounts(price, *range_ticks(price, part, spacing), float(value1_raw))
        pair = (pool.token0.address, pool.token1.address, pool.fee_pips, made.tick_lower, made.tick_upper)
        mint = (*pair, made.amount0_raw, made.amount1_raw, 0, 0, chain.whale.address, FAR_FUTURE_S)
        mints.append(manager.encode_abi("mint", args=[mint]))
        ends |= {made.tick_lower, made.tick_upper}
    chain.send(manager.functions.multicall(mints))
    _register_ticks(chain, pool, ends)


def mint_positions(chain: LocalChain, pool: LocalPool, positions: Sequence[tuple[int, int, int]]) -> None:
    """Mint exact liquidity (tick_lower, tick_upper, liquidity), owned by the PoolMinter, paid by the whale."""
    minter = chain.contract(chain.addresses.pool_minter, own_artifact("PoolMinter"))
    for start in range(0, len(positions), MINTS_PER_TX):
        lowers, uppers, liquidities = zip(*positions[start : start + MINTS_PER_TX], strict=True)
        chain.send(minter.functions.mint(pool.address, lowers, uppers, liquidities))
    _register_ticks(chain, pool, {end for lower, upper, _ in positions for end in (lower, upper)})


# --- Market moves: real swaps bring every pool to the new world price, then feeds and time follow.


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


def arbitrage(chain: LocalChain, pool: LocalPool) -> None:
    """Trade as the whale until the pool's marginal price, fee excluded, is the current cross price."""
    target = chain.pool_price(pool.token0.symbol, pool.token1.symbol)
    if pool.version == 2:
        _arbitrage_v2(chain, pool, target)
    else:
        _arbitrage_v3(chain, pool, target)


def swap(chain: LocalChain, pool: LocalPool, token_in: str, amount_in_raw: int) -> int:
    """See LocalChain.swap."""
    given = pool.token0 if pool.token0.symbol == token_in else pool.token1
    wanted = pool.token1 if given is pool.token0 else pool.token0
    before = chain.balance(wanted.symbol, chain.whale.address)
    if pool.version == 2:
        _swap_v2(chain, given, wanted, amount_in_raw)
    else:
        _swap_v3(chain, pool, given, wanted, amount_in_raw, 0)
    return chain.balance(wanted.symbol, chain.whale.address) - before


def _arbitrage_v2(chain: LocalChain, pool: LocalPool, target: Fraction) -> None:
    reserve0, reserve1, _ = chain.contract(pool.address, npm_artifact(V2_PAIR)).functions.getReserves().call()
    sell0 = v2_input_to_reach(reserve0, reserve1, target)
    sell1 = v2_input_to_reach(reserve1, reserve0, 1 / target)
    # A pair refuses a trade whose output is zero.
    if sell0 > 0 and get_amount_out(sell0, reserve0, reserve1) > 0:
        _swap_v2(chain, pool.token0, pool.token1, sell0)
    elif sell1 > 0 and get_amount_out(sell1, reserve1, reserve0) > 0:
        _swap_v2(chain, pool.token1, pool.token0, sell1)


def _arbitrage_v3(chain: LocalChain, pool: LocalPool, target: Fraction) -> None:
    now_x96 = int(chain.contract(pool.address, npm_artifact(V3_POOL)).functions.slot0().call()[0])
    limit_x96 = sqrt_price_x96(target)
    if now_x96 == limit_x96:
        return
    given, wanted = (pool.token0, pool.token1) if limit_x96 < now_x96 else (pool.token1, pool.token0)
    _swap_v3(chain, pool, given, wanted, chain.balance(given.symbol, chain.whale.address), limit_x96)


def _swap_v2(chain: LocalChain, given: Token, wanted: Token, amount_in_raw: int) -> None:
    router = chain.contract(chain.addresses.swap_router_02, npm_artifact(SWAP_ROUTER_02))
    path = [given.address, wanted.address]
    chain.send(router.functions.swapExactTokensForTokens(amount_in_raw, 0, path, chain.whale.address))


def _swap_v3(chain: LocalChain, pool: LocalPool, given: Token, wanted: Token, amount_in_raw: int, limit_x96: int) -> None:
    """Swap exact input up to a price limit: the rest beyond the limit is never taken from the whale."""
    router = chain.contract(chain.addresses.swap_router_02, npm_artifact(SWAP_ROUTER_02))
    order = (given.address, wanted.address, pool.fee_pips, chain.whale.address, amount_in_raw, 0, limit_x96)
    chain.send(router.functions.exactInputSingle(order))


ANSWER_TIMEOUT_S = 120.0
LEAST, MOST = Fraction(1, 20), Fraction(10)
"""Of a price: what one move may leave of it, or make of it."""
FIRST_OBSERVATION = 8
"""Storage slot of UniswapV3Pool.observations; each is one word: 32 bits of time, 56 of tickCumulative, then 168 that stay."""
_MOVE = re.compile(r"([A-Za-z0-9._-]{1,16})=([+-][0-9]{1,3}(?:\.[0-9]{1,4})?)%")


def parse_moves(texts: list[str]) -> dict[str, Fraction]:
    """Parse factors by symbol from texts such as WBTC=+30%. Raises ConfigError."""
    found = {}
    for text in texts:
        match = _MOVE.fullmatch(text)
        factor = Fraction(0) if match is None else 1 + Fraction(match[2]) / 100
        if match is None or not LEAST <= factor <= MOST:
            raise ConfigError(f"--move: {text[:40]!r}", "write for example WBTC=+30% or WETH=-20%, from -95% to +900%")
        found[match[1]] = factor
    return found


def move_socket_path(port: int) -> Path:
    """Path of the owner-only socket on which the served chain of that port listens for moves."""
    return user_state_path("trimtab", ensure_exists=True) / f"localchain-{port}.sock"


class MarketMoveServer:
    """Listens for moves while a chain is served."""

    def __init__(self, port: int) -> None:
        self._path = move_socket_path(port)
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen()

    def __enter__(self) -> MarketMoveServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def wait(self, seconds: float, chain: LocalChain) -> None:
        """Wait until a move is requested and carry it out, or until the time has passed."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return
        line, _ = self._socket.accept()
        with line, line.makefile("rw", encoding="utf-8") as stream:
            line.settimeout(ANSWER_TIMEOUT_S)
            try:
                wanted = {symbol: Fraction(factor) for symbol, factor in json.loads(stream.readline()).items()}
                answer: dict[str, Any] = {"prices_usd": {name: str(float(price)) for name, price in apply_move(chain, wanted).items()}}
            except (ConfigError, ValueError, AttributeError, RuntimeError) as error:
                answer = {"error": str(error)}
            stream.write(json.dumps(answer) + "\n")


def request_move(port: int, factors: Mapping[str, Fraction]) -> dict[str, str]:
    """Move the market of the chain served at that port; return the new prices in USD. Raises ConfigError if there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(ANSWER_TIMEOUT_S)
            line.connect(str(move_socket_path(port)))
            with line.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps({symbol: str(factor) for symbol, factor in factors.items()}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline() or "{}")
    except (FileNotFoundError, ConnectionRefusedError):
        raise ConfigError(f"--move: no local chain is served on port {port}", "start one: trimtab localchain, or name its --port") from None
    except (OSError, ValueError):
        raise Retryable(f"--move: the local chain on port {port} gave no answer", "try again") from None
    if "prices_usd" not in answer:
        raise ConfigError(f"--move: {answer.get('error', 'the chain ended meanwhile')}", "trimtab status shows the symbols")
    return dict(answer["prices_usd"])


def apply_move(chain: LocalChain, factors: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Move prices from the feeds' present ones, by trades of the whale in the pools; return the new USD prices.

    The observations of V3 pools are rewritten as if the new price had always held, so that TWAPs follow at once and no block is in the
    future.
    """
    if strange := sorted(set(factors) - set(chain.feeds)):
        raise ConfigError(f"{strange[0]!r} is no token of this chain: {', '.join(chain.feeds)}")
    prices = {name: Fraction(chain.feed_contract(name).functions.latestRoundData().call()[1], 10**FEED_DECIMALS) for name in chain.feeds}
    wanted = {symbol: prices[symbol] * factor for symbol, factor in factors.items()}
    chain.books = replace(chain.books, prices_usd={**chain.books.prices_usd, **prices})
    chain.move_market(wanted, twap_follows=False)
    for pool in chain.books.pool_info.values():
        if pool.version == 3:
            _rewrite_observations(chain, pool)
    chain.mine()
    while (ahead := chain.now_s() - time.time()) > 0:  # each trade is a block, and blocks are at least a second apart
        time.sleep(ahead)
    return wanted


def _rewrite_observations(chain: LocalChain, pool: LocalPool) -> None:
    """Rewrite the pool's observations so that its present tick is its mean over any window."""
    rpc = chain.node.rpc  # type: ignore[attr-defined]  # served chains run on anvil
    slot0 = chain.contract(pool.address, npm_artifact(V3_POOL)).functions.slot0().call()
    tick, newest, count = int(slot0[1]), int(slot0[2]), int(slot0[3])
    words = [int(rpc("eth_getStorageAt", pool.address, hex(FIRST_OBSERVATION + at), "latest"), 16) for at in range(count)]
    last_s, last = words[newest] & 0xFFFFFFFF, words[newest] >> 32 & (1 << 56) - 1
    for at, word in enumerate(words):
        if at == newest or not word >> 248:
            continue
        cumulative = last - tick * (last_s - (word & 0xFFFFFFFF)) & (1 << 56) - 1
        changed = word & ~(((1 << 56) - 1) << 32) | cumulative << 32
        rpc("anvil_setStorageAt", pool.address, hex(FIRST_OBSERVATION + at), f"0x{changed:064x}")


# --- Balances of an address: read in one request, and set by the whale.


BALANCE_OF = "0x70a08231"
"""Selector of balanceOf(address)."""


def balances(chain: LocalChain, symbols: Iterable[str], owner: str) -> dict[str, int]:
    """See LocalChain.balances."""
    wanted = list(symbols)
    data = BALANCE_OF + owner.removeprefix("0x").lower().rjust(64, "0")
    calls = [("eth_call", [{"from": owner, "to": chain.tokens[symbol].address, "data": data}, "latest"]) for symbol in wanted]
    return {symbol: int(str(answer), 16) for symbol, answer in zip(wanted, chain.node.ask(calls), strict=True)}


def set_balances(chain: LocalChain, wanted: Mapping[str, int], owner: str) -> None:
    """See LocalChain.set_balance."""
    held = balances(chain, wanted, owner)
    for symbol, raw in wanted.items():
        missing, token = raw - held[symbol], chain.token_contract(symbol).functions
        if missing == 0:
            continue
        if chain.books.kinds[symbol] is TokenKind.WRAPPED_NATIVE:
            move = token.transfer(owner, missing) if missing > 0 else token.transferFrom(owner, chain.whale.address, -missing)
        else:
            move = token.mint(owner, missing) if missing > 0 else token.burn(owner, -missing)
        chain.send(move)
