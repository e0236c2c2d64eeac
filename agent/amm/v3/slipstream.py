"""Pools of Slipstream (Aerodrome, Velodrome): the arithmetic of Uniswap V3 (CLPool.swap), with one pool
for two tokens and a tick spacing, and a fee that the factory's fee module may change at any time. The
state has the fee at its block; a minimum has to bear what changes until the swap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from agent.amm.v3.pool import V3Pool
from agent.model import SwapGas, VenueKeys

FEE_MODULE_GAS = 14_000
"""Gas of CLFactory.getSwapFee beyond a pool with a fee of its own: cold reads of factory, module and
its settings (EIP-2929).
"""


@dataclass(frozen=True, slots=True)
class SlipstreamPool(V3Pool):
    """See V3Pool."""

    kind: ClassVar[str] = "slipstream"
    forms: ClassVar[tuple[str, ...]] = ()
    venue_keys: ClassVar[VenueKeys] = VenueKeys(
        ("quoter", "tick_spacings", "pool_implementation"), ("router", "position_manager")
    )
    gas: ClassVar[SwapGas] = SwapGas(
        {"rebalancer": V3Pool.gas.swap["rebalancer"] + FEE_MODULE_GAS},
        again=V3Pool.gas.again,
        first_writes=V3Pool.gas.first_writes,
        moved=V3Pool.gas.moved,
        tick=V3Pool.gas.tick,
        stop=V3Pool.gas.stop,
    )

    @property
    def tier(self) -> int:
        """See Pool: the tick spacing."""
        return self.tick_spacing
