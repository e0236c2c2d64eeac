"""Embedded chain: real Uniswap contracts, tokens and feeds, on eth-tester in process or on
anvil.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.localchain.chain import LocalChain, LocalPool
from agent.localchain.deploy import deploy_world
from agent.localchain.market import serve
from agent.localchain.nodes import WHALE_WEI, AnvilNode, TesterNode, run_anvil
from agent.localchain.world import DEFAULT_WORLD, WHALE_INDEX, LocalWorld, TokenKind, dev_accounts

__all__ = [
    "DEFAULT_WORLD",
    "LocalChain",
    "LocalPool",
    "LocalWorld",
    "TokenKind",
    "open_anvil",
    "open_eth_tester",
    "run_anvil",
    "serve",
]


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
    history: Callable[[LocalChain], None] | None = None,
    **options: str | int | bool,
) -> Iterator[LocalChain]:
    """Open the world on an anvil process, chain id 31337, which ends with the context. `history`
    makes further deployments in the chain's past. `options` are anvil's flags with underscores:
    block_time=2, hardfork="cancun", no_cors=True. Raises ConfigError.
    """
    now_s = int(time.time())
    flags: list[str] = []
    for name, value in options.items():
        if value is False:
            continue
        flags.append(f"--{name.replace('_', '-')}")
        if value is not True:
            flags.append(str(value))
    with run_anvil(port, flags, genesis_s=now_s - world.history_s) as url:
        node = AnvilNode(url)
        node.set_native(dev_accounts()[WHALE_INDEX].address, WHALE_WEI)
        yield deploy_world(node, world, history)
