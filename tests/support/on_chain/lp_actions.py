"""Configs with liquidity targets at pools of a local chain."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from agent.localchain import LocalChain
from agent.model import ConfirmedPosition
from tests.support import agents
from tests.support.agents import Changes
from tests.support.on_chain.liquidity import table

V2 = "v2 WETH/USDC"
V3 = "v3 WETH/USDC 3000"


def config_with_targets(chain: LocalChain, pool: str, own: Sequence[ConfirmedPosition] = (), **wishes: str) -> Changes:
    """The config with one target and these positions, room for both, and a trigger that stays quiet."""
    info = chain.deployed_world.pool_by_name[pool]
    if info.version == 2:
        target: dict[str, object] = {"kind": "uniswap_v2", "pair": info.address, "share": "20%"}
    else:
        target = {"kind": "uniswap_v3", "pool": info.address, "share": "20%", "width": "20%", "compound_above": "off"}
    wide = {"limits.lp_max_weight": "90%", "limits.impermanent_loss": "9%", "limits.min_trade": "1"}
    quiet = {"policy.trigger": {"kind": "threshold", "absolute": "50%"}}
    return {
        "portfolio.positions": [table(chain, position) for position in own],
        "lp.targets": [target | wishes],
        **agents.ROOMY,
        **wide,
        **quiet,
    }


def trade_both_ways(chain: LocalChain, pool: str, seed: int, usd: int = 300_000) -> None:
    """Somebody trades both ways, about as much, and leaves fees."""
    random = Random(seed)
    info = chain.deployed_world.pool_by_name[pool]
    for token in (info.token0, info.token1):
        chain.swap(
            pool, token.symbol, int(usd * random.uniform(0.97, 1.03) / chain.deployed_world.prices_usd[token.symbol] * 10**token.decimals)
        )
