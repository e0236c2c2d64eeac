"""Deploy the described world on an empty node: protocol, tokens, feeds, pools, the wallet's holdings."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction

from eth_utils.crypto import keccak

from agent.artifacts import npm_artifact, own_artifact
from agent.localchain.chain import FEED_DECIMALS, WHALE_USD, LocalChain, ProtocolAddresses
from agent.localchain.market import V2_PAIR, V3_POOL, add_v2_pool, add_v3_pool, provide_liquidity
from agent.localchain.nodes import LocalNode
from agent.localchain.world import LocalWorld, TokenKind, V2Spec
from agent.units import UINT256_MAX, Token

_V3_CORE = "@uniswap/v3-core/artifacts/contracts"
_V3_PERIPHERY = "@uniswap/v3-periphery/artifacts/contracts"
_ROUTERS = "@uniswap/swap-router-contracts/artifacts/contracts"
FEEDS_BEFORE_S = 30
"""The last rounds of the feeds are this much older than the first block that others see."""
_NO_DESCRIPTOR = "0x0000000000000000000000000000000000000000"
"""Address of the contract that draws the picture of a position; unused here."""


def deploy_world(node: LocalNode, world: LocalWorld) -> LocalChain:
    """Deploy the world on that node, whose genesis is `history_s` ago: pools have a past, feeds are fresh, the newest block is of now."""
    chain = LocalChain(node, world)
    with node.past():
        _protocol(chain)
        for spec in world.tokens:
            add_token(chain, spec.symbol, spec.decimals, spec.price_usd, spec.kind)
        for pool in world.pools:
            if isinstance(pool, V2Spec):
                add_v2_pool(chain, pool.token_a, pool.token_b, pool.value_usd)
            else:
                provide_liquidity(chain, add_v3_pool(chain, pool.token_a, pool.token_b, pool.fee_pips), pool.value_usd, pool.ranges)
        weth = next(spec.symbol for spec in world.tokens if spec.kind is TokenKind.WRAPPED_NATIVE)
        # So that set_balance can take it back later without touching the wallet's nonce.
        chain.send(chain.token_contract(weth).functions.approve(chain.whale.address, UINT256_MAX), chain.wallet.address, gas=100_000)
        for spec in world.tokens:
            chain.set_balance(spec.symbol, spec.wallet_raw)
        node.set_native(chain.wallet.address, world.wallet_native_wei)
        node.mine_at(max(int(time.time()) - FEEDS_BEFORE_S, chain.now_s() + 1))
        chain.refresh_feeds()
    node.mine_at(max(int(time.time()), chain.now_s() + 1))
    return chain


def _protocol(chain: LocalChain) -> None:
    """Deploy Uniswap V2 and V3 as on mainnet, 0.01 % tier included."""
    weth = chain.deploy(npm_artifact("@uniswap/v2-periphery/build/WETH9.json"))
    v2_factory = chain.deploy(npm_artifact("@uniswap/v2-core/build/UniswapV2Factory.json"), chain.whale.address)
    v2_router = chain.deploy(npm_artifact("@uniswap/v2-periphery/build/UniswapV2Router02.json"), v2_factory, weth)
    factory_artifact = npm_artifact(f"{_V3_CORE}/UniswapV3Factory.sol/UniswapV3Factory.json")
    v3_factory = chain.deploy(factory_artifact)
    chain.send(chain.contract(v3_factory, factory_artifact).functions.enableFeeAmount(100, 1))
    pair_hash, pool_hash = (keccak(hexstr=npm_artifact(path).bytecode) for path in (V2_PAIR, V3_POOL))
    position_manager = chain.deploy(
        npm_artifact(f"{_V3_PERIPHERY}/NonfungiblePositionManager.sol/NonfungiblePositionManager.json"), v3_factory, weth, _NO_DESCRIPTOR
    )
    chain.addresses = ProtocolAddresses(
        weth=weth,
        v2_factory=v2_factory,
        v2_router=v2_router,
        v3_factory=v3_factory,
        swap_router_02=chain.deploy(
            npm_artifact(f"{_ROUTERS}/SwapRouter02.sol/SwapRouter02.json"), v2_factory, v3_factory, position_manager, weth
        ),
        quoter_v2=chain.deploy(npm_artifact(f"{_V3_PERIPHERY}/lens/QuoterV2.sol/QuoterV2.json"), v3_factory, weth),
        quoter_v1=chain.deploy(npm_artifact(f"{_V3_PERIPHERY}/lens/Quoter.sol/Quoter.json"), v3_factory, weth),
        position_manager=position_manager,
        pool_minter=chain.deploy(own_artifact("PoolMinter")),
        rebalancer=chain.deploy(own_artifact("Rebalancer"), weth, v2_factory, pair_hash, v3_factory, pool_hash),
    )


def add_token(chain: LocalChain, symbol: str, decimals: int, price_usd: Fraction, kind: TokenKind) -> Token:
    """Deploy a token with a feed at that price; the whale gets plenty and approves the protocol. See LocalChain.add_token."""
    if symbol in chain.tokens:
        raise ValueError(f"{symbol} is already on this chain")
    wrapped = kind is TokenKind.WRAPPED_NATIVE
    address = chain.addresses.weth if wrapped else chain.deploy(own_artifact(kind.value), symbol, symbol, decimals)
    feed = chain.deploy(own_artifact("PriceFeed"), f"{symbol} / USD", FEED_DECIMALS)
    token, books = Token(address, symbol, decimals), chain.books
    chain.books = replace(
        chain.books,
        tokens={**books.tokens, symbol: token},
        kinds={**books.kinds, symbol: kind},
        prices_usd={**books.prices_usd, symbol: price_usd},
        feeds={**books.feeds, symbol: feed},
    )
    plenty = int(WHALE_USD / price_usd * 10**decimals)
    functions = chain.token_contract(symbol).functions
    if wrapped:
        chain.send(functions.deposit(), value_wei=plenty)
    else:
        chain.send(functions.mint(chain.whale.address, plenty))
    chain.allow_whale([symbol])
    chain.refresh_feeds([symbol])
    return token
