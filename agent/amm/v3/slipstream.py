"""Pools of Slipstream (Aerodrome, Velodrome): the arithmetic of Uniswap V3 (CLPool.swap), with one
pool for two tokens and a tick spacing, and a fee that the factory's fee module decides at each
swap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from agent.amm.v3.pool import V3Pool
from agent.model import IdlePoolFee, SwapGas, SwapResult, VenueKeys

DYNAMIC_FEE_GAS = 6_500
"""Gas of DynamicSwapFeeModule.getFee beyond a module with fixed fees, without its search for an
observation.
"""
OBSERVATION_GAS = 4_600
"""Gas of each step of that search."""
FEE_WINDOW_S = 600
"""DynamicSwapFeeModule.secondsAgo as deployed."""
SCALING_PRECISION = 10**6
"""DynamicSwapFeeModule.SCALING_PRECISION."""


@dataclass(frozen=True, slots=True)
class DynamicFee:
    """Fee of a pool by DynamicSwapFeeModule.getFee, without a discount: `base_pips`, and `scaling`
    millionths of a pip for each tick between the pool's tick and its mean, at most `cap_pips`.

    `mean_tick` is that of the module's window at the time of the swap, None if the pool's
    observations do not cover it, which the module takes for no distance. `initial_pips` is the fee
    until a swap of the block moves the tick; None if there is none, or one has moved it.
    """

    base_pips: int
    cap_pips: int
    scaling: int
    mean_tick: int | None
    initial_pips: int | None = None

    def pips(self, tick: int) -> int:
        """Return the fee of a swap that starts at this tick, in millionths of the input."""
        if self.initial_pips is not None:
            return self.initial_pips
        ticks_away = 0 if self.mean_tick is None else abs(tick - self.mean_tick)
        return min(self.base_pips + ticks_away * self.scaling // SCALING_PRECISION, self.cap_pips)


@dataclass(frozen=True, slots=True)
class SlipstreamPool(V3Pool):
    """See V3Pool. `fee_pips` is the fee of the next swap, the first of its block. A `dynamic_fee`
    gives that of each later one in the same block; None for a fee that does not depend on the tick,
    or by a rule that is not known. Minimums bear what else changes until the swap, such as another
    trader's swap in its block, as they bear its price.
    """

    dynamic_fee: DynamicFee | None = None

    kind: ClassVar[str] = "slipstream"
    curve_names: ClassVar[tuple[str, ...]] = ()
    venue_keys: ClassVar[VenueKeys] = VenueKeys(
        ("quoter", "tick_spacings", "pool_implementation"), ("router", "position_manager", "pools")
    )
    gas: ClassVar[SwapGas] = replace(
        V3Pool.gas,
        swap_units_by_router={"rebalancer": 100_000},
        repeat_saving=53_000,
        tick_gas=80_000,
        stop_gas=20_500,
    )
    """Each step asks the voter and a second module for the gauge's share (CLPool.calculateFees)."""

    @property
    def tier(self) -> int:
        """See Pool: the tick spacing."""
        return self.tick_spacing

    @property
    def idle_fee(self) -> IdlePoolFee | None:
        """See Pool: the mean tick reaches the pool's after one window."""
        if self.dynamic_fee is None or self.dynamic_fee.initial_pips is not None:
            return None
        idle_fee = replace(self.dynamic_fee, mean_tick=self.tick)
        return IdlePoolFee(idle_fee.pips(self.tick), FEE_WINDOW_S)

    @property
    def fee_gas(self) -> int:
        """See Pool."""
        if self.dynamic_fee is None or self.observation_counts is None:
            return 0
        return DYNAMIC_FEE_GAS + OBSERVATION_GAS * self.observation_counts[0].bit_length()

    def swap(
        self, token_in: str, amount_in_raw: int, sqrt_price_limit_x96: int | None = None
    ) -> SwapResult[Self]:
        """See Pool: CLPool.swap."""
        # `super()` does not work in a dataclass with slots, which is a copy of its class.
        swap_result = V3Pool.swap(self, token_in, amount_in_raw, sqrt_price_limit_x96)
        if self.dynamic_fee is None:
            return swap_result
        next_fee = self.dynamic_fee
        tick_after = swap_result.pool_after.tick
        if tick_after != self.tick:  # CLPool.swap writes an observation
            next_fee = replace(next_fee, initial_pips=None)
        return replace(
            swap_result,
            pool_after=replace(
                swap_result.pool_after,
                fee_pips=next_fee.pips(tick_after),
                dynamic_fee=next_fee,
            ),
        )
