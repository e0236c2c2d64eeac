"""PancakeSwap V3 pools: the arithmetic of Uniswap V3 (PancakeV3Pool.swap). The protocol's share of
the fee, kept in another word of slot0, changes no amount of a swap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from agent.amm.v3.pool import V3Pool
from agent.model import SwapGas, SwapStyle, VenueKeys


@dataclass(frozen=True, slots=True)
class PancakeV3Pool(V3Pool):
    """See V3Pool."""

    kind: ClassVar[str] = "pancake_v3"
    curve_names: ClassVar[tuple[str, ...]] = ()
    venue_keys: ClassVar[VenueKeys] = VenueKeys(
        ("deployer", "quoter", "fee_tiers"),
        ("router", "position_manager", "init_code_hash", "pools"),
    )
    style: ClassVar[SwapStyle] = SwapStyle.PANCAKE_V3
    gas: ClassVar[SwapGas] = replace(V3Pool.gas, swap_units_by_router={"rebalancer": 68_000})
