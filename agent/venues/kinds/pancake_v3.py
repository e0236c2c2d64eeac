"""PancakeSwap V3: a fork of Uniswap V3 whose pools a deployer makes, not the factory."""

from __future__ import annotations

from typing import ClassVar

from agent.amm.v3.pancake import PancakeV3Pool
from agent.chain.pools.reading import V3Reader
from agent.venues.kinds.uniswap_v3 import UniswapV3


class PancakeV3(UniswapV3):
    """See UniswapV3: its factory and its QuoterV2 answer as Uniswap's do."""

    pool_class = PancakeV3Pool
    reader = V3Reader(PancakeV3Pool)
    uniswap_python_version: ClassVar[int | None] = None

    @property
    def default_init_code_hash(self) -> str:
        """See AmmVenue: PoolAddress.POOL_INIT_CODE_HASH of PancakeSwap's v3-periphery."""
        return "0x6ce8eb472fa82df5469c6ab6d485f17c3ad13c8cd7af59b3d4a8026c5ce0f7e2"

    @property
    def uniswap_python_quoter(self) -> str:
        """See AmmVenue: uniswap-python does not know PancakeSwap."""
        return ""
