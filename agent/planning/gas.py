"""What a plan's transaction costs in gas: a model with measured constants, so that gas is spent only where it pays."""

from __future__ import annotations

from fractions import Fraction

from agent.model import PoolState, Snapshot, V2Pool
from agent.units import Value

BASE_UNITS = 37_000
"""Transaction (21,000), calldata and dispatch of a SwapRouter02 multicall; embedded chain, legs taken off."""
V2_LEG_UNITS = 100_000
"""One swapExactTokensForTokens inside a multicall; embedded chain, plain ERC-20 tokens."""
V3_LEG_UNITS = 83_000
"""One exactInputSingle inside a multicall that stays in its tick range; embedded chain, plain ERC-20 tokens."""
TICK_UNITS = 44_000
"""Each initialised tick crossed for the first time; embedded chain. Tick.cross writes slots of zero then (v3-core, Tick.sol)."""
WORD_UNITS = 2_200
"""Each further stop at a bitmap word's border: one cold storage read (v3-core, TickBitmap.sol; EIP-2929)."""


def leg_units(pool: PoolState, ticks_crossed: int, steps: int = 1) -> int:
    """Gas units of one leg through `pool`."""
    if isinstance(pool, V2Pool):
        return V2_LEG_UNITS
    return V3_LEG_UNITS + TICK_UNITS * ticks_crossed + WORD_UNITS * max(0, steps - 1 - ticks_crossed)


def gas_price_wei(snapshot: Snapshot) -> int:
    """Wei per unit of gas now: base fee and priority fee, or the node's gas price on chains without EIP-1559."""
    base = snapshot.head.base_fee_wei
    return snapshot.gas_price_wei if base is None else base + snapshot.priority_fee_wei


def gas_value(units: int, wei_per_unit: int, native_price: Fraction) -> Value:
    """Worth of that much gas in numeraire base units; `native_price` is numeraire base units per wei."""
    return units * wei_per_unit * native_price
