"""Pools of Uniswap V4: the arithmetic of Uniswap V3 (Pool.swap of v4-core) under the pool's fee and
the protocol's, which may differ by direction. One PoolManager holds all pools; a pool is a PoolId,
not a contract, and records no price observations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from agent.amm.v3.pool import V3Pool
from agent.model import SPACING_SHIFT, SwapGas, SwapStyle, VenueKeys
from agent.units import PIPS

DIRECTION_BITS = 12
"""Slot0.protocolFee is that of selling token0, and above these bits that of selling token1."""
MAX_PROTOCOL_FEE = 1_000
"""ProtocolFeeLibrary.MAX_PROTOCOL_FEE, millionths for one direction."""
UNLOCK_GAS = 9_000
"""Gas of an unlocking beyond a V3 swap; with it plans of scripts/check/mixed_plans.py use up to 0.993 of
their gas. Each further leg in one unlocking takes 17,000 to 38,000 less than this.
"""


def protocol_fees(protocol_fee: int) -> tuple[int, int]:
    """Return the protocol's fees on token0 and on token1, in millionths (ProtocolFeeLibrary)."""
    return protocol_fee % (1 << DIRECTION_BITS), protocol_fee >> DIRECTION_BITS


@dataclass(frozen=True, slots=True)
class V4Pool(V3Pool):
    """See V3Pool. `address` is the PoolId, 32 bytes; `fee_pips` is the fee of the pool's key,
    without the protocol's, `protocol_fee` that of Slot0.
    """

    manager: str = ""
    protocol_fee: int = 0

    kind: ClassVar[str] = "uniswap_v4"
    curve_names: ClassVar[tuple[str, ...]] = ()
    venue_keys: ClassVar[VenueKeys] = VenueKeys(("quoter", "tiers"), ("hooks", "position_manager"))
    style: ClassVar[SwapStyle] = SwapStyle.V4
    label: ClassVar[str] = " V4"
    keeps_observations: ClassVar[bool] = False
    gas: ClassVar[SwapGas] = replace(
        V3Pool.gas,
        swap_units_by_router={
            "rebalancer": V3Pool.gas.swap_units_by_router["rebalancer"] + UNLOCK_GAS
        },
        observation_gas=0,
    )

    @property
    def tier(self) -> int:
        """See Pool: fee and tick spacing."""
        return self.tick_spacing << SPACING_SHIFT | self.fee_pips

    @property
    def contract(self) -> str:
        """See Pool: the PoolManager."""
        return self.manager

    def fee_toward(self, zero_for_one: bool) -> int:
        """Return the fee of a swap in this direction (ProtocolFeeLibrary.calculateSwapFee)."""
        protocol_pips = protocol_fees(self.protocol_fee)[not zero_for_one]
        return protocol_pips + self.fee_pips - protocol_pips * self.fee_pips // PIPS


CONVERSION_GAS = 20_000
"""Gas of unwrapping before a swap, or of wrapping after it; measured 16,000 to 17,400."""


@dataclass(frozen=True, slots=True)
class V4NativePool(V4Pool):
    """See V4Pool: the pool's first currency is the native coin, and its token0 the wrapped form,
    whatever the addresses. A swap is one of wrapped coin, which the Rebalancer converts.
    """

    kind: ClassVar[str] = "uniswap_v4_native"
    label: ClassVar[str] = " V4 native"
    trades_native: ClassVar[bool] = True
    gas: ClassVar[SwapGas] = replace(
        V4Pool.gas,
        swap_units_by_router={
            "rebalancer": V4Pool.gas.swap_units_by_router["rebalancer"] + CONVERSION_GAS
        },
    )
