"""Configs priced by pools in one block, and a whale."""

from __future__ import annotations

from agent.localchain import LocalChain
from tests.support.agents import ROOMY

POOL = "v3 WETH/USDC 500"
BLOCKS = 3


def spot_price_config(chain: LocalChain, *pools: str, blocks: int = BLOCKS) -> dict[str, object]:
    """A config whose only prices are those of these pools in one block."""
    addresses = [chain.address_by_pool[pool] for pool in pools]
    return {
        **ROOMY,
        "reference.kind": ["spot"],
        "policy.confirm_blocks": blocks,
        "venues.uniswap_v2": None,
        "venues.uniswap_v3.pools": addresses,
    }


def push(chain: LocalChain, usd: int) -> int:
    """A whale buys WETH for so much, in one block; returns what it got."""
    return chain.swap(POOL, "USDC", usd * 10**6)
