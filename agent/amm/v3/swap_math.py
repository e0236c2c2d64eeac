"""One step of a V3 swap within a range of constant liquidity: SwapMath (v3-core).

The amounts are those of sqrt_price_math, inlined here because this is the innermost loop of every
quote; a property test compares the two. A step without liquidity is handled separately to avoid a
division by zero: it costs nothing and reaches its target.
"""

from __future__ import annotations

from agent.amm.v3.sqrt_price_math import (
    get_next_sqrt_price_from_amount0_rounding_up,
    get_next_sqrt_price_from_amount1_rounding_down,
)
from agent.units import PIPS


def compute_swap_step(
    sqrt_ratio_current_x96: int,
    sqrt_ratio_target_x96: int,
    liquidity: int,
    amount_remaining: int,
    fee_pips: int,
) -> tuple[int, int, int, int]:
    """Return (next sqrt price, amount in, amount out, fee) of SwapMath.computeSwapStep;
    amount_remaining < 0 specifies an output. Amounts in base units; the fee is in the input token,
    on top of amount in. Raises ContractRevert where the contract reverts.
    """
    current, target = sqrt_ratio_current_x96, sqrt_ratio_target_x96
    if amount_remaining < 0:
        return _step_exact_out(current, target, liquidity, -amount_remaining, fee_pips)
    # An amount that does not reach the target in exact arithmetic does not reach it after rounding
    # either, since prices round away from the target. Below, `reached` is therefore never the
    # target, and the rest of the input is fee.
    less_fee = amount_remaining * (PIPS - fee_pips) // PIPS
    if current >= target:
        amount_in = -((liquidity * (target - current) << 96) // current // target)
        if less_fee >= amount_in:
            return (
                target,
                amount_in,
                liquidity * (current - target) >> 96,
                -(-amount_in * fee_pips // (PIPS - fee_pips)),
            )
        reached = get_next_sqrt_price_from_amount0_rounding_up(current, liquidity, less_fee, True)
        amount_in = -((liquidity * (reached - current) << 96) // current // reached)
        return (
            reached,
            amount_in,
            liquidity * (current - reached) >> 96,
            amount_remaining - amount_in,
        )
    amount_in = -(liquidity * (current - target) >> 96)
    if less_fee >= amount_in:
        amount_out = (liquidity * (target - current) << 96) // target // current
        return target, amount_in, amount_out, -(-amount_in * fee_pips // (PIPS - fee_pips))
    reached = get_next_sqrt_price_from_amount1_rounding_down(current, liquidity, less_fee, True)
    amount_in = -(liquidity * (current - reached) >> 96)
    amount_out = (liquidity * (reached - current) << 96) // reached // current
    return reached, amount_in, amount_out, amount_remaining - amount_in


def whole_step(current: int, target: int, liquidity: int, fee_pips: int) -> tuple[int, int, int]:
    """Return (amount in, amount out, fee) of a step that reaches its target with input left."""
    if current >= target:
        amount_in = -((liquidity * (target - current) << 96) // current // target)
        amount_out = liquidity * (current - target) >> 96
    else:
        amount_in = -(liquidity * (current - target) >> 96)
        amount_out = (liquidity * (target - current) << 96) // target // current
    return amount_in, amount_out, -(-amount_in * fee_pips // (PIPS - fee_pips))


def _step_exact_out(
    current: int, target: int, liquidity: int, wanted: int, fee_pips: int
) -> tuple[int, int, int, int]:
    """Return the result of computeSwapStep for amountRemaining < 0. A price short of the target is
    rounded far enough to pay the whole output.
    """
    if current >= target:
        amount_out = liquidity * (current - target) >> 96
        reached = target
        if wanted < amount_out:
            reached, amount_out = (
                get_next_sqrt_price_from_amount1_rounding_down(current, liquidity, wanted, False),
                wanted,
            )
        amount_in = -((liquidity * (reached - current) << 96) // current // reached)
    else:
        amount_out = (liquidity * (target - current) << 96) // target // current
        reached = target
        if wanted < amount_out:
            reached, amount_out = (
                get_next_sqrt_price_from_amount0_rounding_up(current, liquidity, wanted, False),
                wanted,
            )
        amount_in = -(liquidity * (current - reached) >> 96)
    return reached, amount_in, amount_out, -(-amount_in * fee_pips // (PIPS - fee_pips))
