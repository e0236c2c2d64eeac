"""Embedded chain: real Uniswap contracts, tokens and feeds, on eth-tester in process or on anvil."""

from agent.localchain.chain import LocalChain
from agent.localchain.contracts import LocalPool
from agent.localchain.deployment import open_anvil, open_eth_tester
from agent.localchain.market import serve
from agent.localchain.nodes import run_anvil
from agent.localchain.world import DEFAULT_WORLD, LocalWorld, TokenKind

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
