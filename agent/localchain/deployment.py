"""Deployment of a world on an empty node: protocol, tokens, feeds, pools, the wallet's balances."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.artifacts import npm_artifact, own_artifact
from agent.localchain.chain import (
    POSITION_MANAGER_ARTIFACT,
    SWAP_ROUTER_02_ARTIFACT,
    V2_FACTORY_ARTIFACT,
    V2_ROUTER_ARTIFACT,
    V3_FACTORY_ARTIFACT,
    LocalChain,
)
from agent.localchain.contracts import SpotContractAddresses
from agent.localchain.nodes import WHALE_WEI, AnvilNode, LocalNode, TesterNode, run_anvil
from agent.localchain.world import (
    DEFAULT_WORLD,
    WHALE_INDEX,
    LocalWorld,
    TokenKind,
    V2Spec,
    dev_accounts,
)
from agent.units import UINT256_MAX

_V3_PERIPHERY_PATH = "@uniswap/v3-periphery/artifacts/contracts"
FEED_AGE_S = 30
"""Age of the last feed rounds at the first visible block."""
_NO_DESCRIPTOR = "0x0000000000000000000000000000000000000000"
"""Address of the contract that renders position NFTs; unused here."""


def deploy_world(
    node: LocalNode,
    world: LocalWorld,
    build_history: Callable[[LocalChain], None] | None = None,
    now_s: int | None = None,
    open_chain: Callable[[LocalNode, LocalWorld], LocalChain] = LocalChain,
) -> LocalChain:
    """Deploy the world on a node whose genesis is `history_s` ago, so that pools have a history.
    Afterwards feeds are fresh, and the newest block has the current time, or `now_s`.
    `build_history` runs in the past, before the wallet is funded.
    """
    chain = open_chain(node, world)
    with node.one_second_blocks():
        _deploy_uniswap(chain)
        for token_spec in world.tokens:
            chain.add_token(
                token_spec.symbol, token_spec.decimals, token_spec.price_usd, token_spec.kind
            )
        for pool_spec in world.pools:
            if isinstance(pool_spec, V2Spec):
                chain.add_v2_pool(pool_spec.token_a, pool_spec.token_b, pool_spec.value_usd)
            else:
                chain.provide_liquidity(
                    chain.add_v3_pool(pool_spec.token_a, pool_spec.token_b, pool_spec.fee_pips),
                    pool_spec.value_usd,
                    pool_spec.ranges,
                )
        if build_history is not None:
            build_history(chain)
        weth_symbol = next(
            token_spec.symbol
            for token_spec in world.tokens
            if token_spec.kind is TokenKind.WRAPPED_NATIVE
        )
        # set_balance can then reduce the balance without using the wallet's nonce.
        chain.send(
            chain.token_contract(weth_symbol).functions.approve(chain.whale.address, UINT256_MAX),
            chain.wallet.address,
            gas=100_000,
        )
        for token_spec in world.tokens:
            chain.set_balance(token_spec.symbol, token_spec.wallet_raw)
        node.set_native(chain.wallet.address, world.wallet_native_wei)
        node.mine_at(max((now_s or int(time.time())) - FEED_AGE_S, chain.now_s() + 1))
        chain.refresh_feeds()
    node.mine_at(max(now_s or int(time.time()), chain.now_s() + 1))
    return chain


def _deploy_uniswap(chain: LocalChain) -> None:
    """Deploy Uniswap V2 and V3 as on mainnet, including the 0.01 % tier."""
    weth = chain.deploy(npm_artifact("@uniswap/v2-periphery/build/WETH9.json"))
    v2_factory = chain.deploy(npm_artifact(V2_FACTORY_ARTIFACT), chain.whale.address)
    v2_router = chain.deploy(npm_artifact(V2_ROUTER_ARTIFACT), v2_factory, weth)
    factory_artifact = npm_artifact(V3_FACTORY_ARTIFACT)
    v3_factory = chain.deploy(factory_artifact)
    chain.send(chain.contract(v3_factory, factory_artifact).functions.enableFeeAmount(100, 1))
    position_manager = chain.deploy(
        npm_artifact(POSITION_MANAGER_ARTIFACT), v3_factory, weth, _NO_DESCRIPTOR
    )
    chain.addresses = SpotContractAddresses(
        weth=weth,
        v2_factory=v2_factory,
        v2_router=v2_router,
        v3_factory=v3_factory,
        swap_router_02=chain.deploy(
            npm_artifact(SWAP_ROUTER_02_ARTIFACT), v2_factory, v3_factory, position_manager, weth
        ),
        quoter_v2=chain.deploy(
            npm_artifact(f"{_V3_PERIPHERY_PATH}/lens/QuoterV2.sol/QuoterV2.json"), v3_factory, weth
        ),
        quoter_v1=chain.deploy(
            npm_artifact(f"{_V3_PERIPHERY_PATH}/lens/Quoter.sol/Quoter.json"), v3_factory, weth
        ),
        position_manager=position_manager,
        pool_minter=chain.deploy(own_artifact("PoolMinter")),
        rebalancer=chain.deploy(own_artifact("Rebalancer")),
    )


@contextmanager
def open_eth_tester(world: LocalWorld = DEFAULT_WORLD) -> Iterator[LocalChain]:
    """Open the world in this process, chain id 131277322940537, one block per transaction; takes
    some seconds.
    """
    now_s = int(time.time())
    yield deploy_world(TesterNode(now_s - world.history_s, world.wallet_native_wei), world)


@contextmanager
def open_anvil(
    port: int | None = None,
    world: LocalWorld = DEFAULT_WORLD,
    build_history: Callable[[LocalChain], None] | None = None,
    now_s: int | None = None,
    **options: str | int | bool,
) -> Iterator[LocalChain]:
    """Open the world on an anvil process, by default of chain id 31337, which ends with the context.
    `build_history` makes further deployments in the chain's past; the newest block has the time
    `now_s`, by default the present. `options` are anvil's flags with underscores: block_time=2,
    hardfork="cancun", no_cors=True. Raises ConfigError.
    """
    head_time_s = int(time.time()) if now_s is None else now_s
    flags: list[str] = []
    for flag_name, flag_value in options.items():
        if flag_value is False:
            continue
        flags.append(f"--{flag_name.replace('_', '-')}")
        if flag_value is not True:
            flags.append(str(flag_value))
    with run_anvil(port, flags, genesis_s=head_time_s - world.history_s) as url:
        node = AnvilNode(url)
        node.set_native(dev_accounts()[WHALE_INDEX].address, WHALE_WEI)
        yield deploy_world(node, world, build_history, now_s)
