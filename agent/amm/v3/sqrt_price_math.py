"""Amounts between two sqrt prices, and the price after an amount: SqrtPriceMath (v3-core). Prices
in Q96.
"""

from __future__ import annotations

from agent.amm.pools import ContractRevert

UINT160_BITS = 160


def get_amount0_delta(
    sqrt_ratio_a_x96: int, sqrt_ratio_b_x96: int, liquidity: int, round_up: bool
) -> int:
    """token0 base units between two prices: L/√lower − L/√upper (SqrtPriceMath.getAmount0Delta)."""
    if sqrt_ratio_a_x96 > sqrt_ratio_b_x96:
        sqrt_ratio_a_x96, sqrt_ratio_b_x96 = sqrt_ratio_b_x96, sqrt_ratio_a_x96
    if sqrt_ratio_a_x96 <= 0:
        raise ContractRevert("SqrtPriceMath.getAmount0Delta", "")
    product = (liquidity << 96) * (sqrt_ratio_b_x96 - sqrt_ratio_a_x96)
    if round_up:
        return -((-product // sqrt_ratio_b_x96) // sqrt_ratio_a_x96)
    return product // sqrt_ratio_b_x96 // sqrt_ratio_a_x96


def get_amount1_delta(
    sqrt_ratio_a_x96: int, sqrt_ratio_b_x96: int, liquidity: int, round_up: bool
) -> int:
    """token1 base units between two prices: L·(√upper − √lower) (SqrtPriceMath.getAmount1Delta)."""
    product = liquidity * abs(sqrt_ratio_b_x96 - sqrt_ratio_a_x96)
    return -(-product >> 96) if round_up else product >> 96


def get_next_sqrt_price_from_amount0_rounding_up(
    sqrt_price_x96: int, liquidity: int, amount: int, add: bool
) -> int:
    """Return the price after token0 is added or removed
    (SqrtPriceMath.getNextSqrtPriceFromAmount0RoundingUp). Raises ContractRevert.
    """
    if amount == 0:
        return sqrt_price_x96
    numerator = liquidity << 96
    product = amount * sqrt_price_x96
    if add:
        denominator = numerator + product
        # the contract abandons the precise formula once it overflows 256 bits
        if denominator >> 256:
            return -(-numerator // (numerator // sqrt_price_x96 + amount))
        return -(-numerator * sqrt_price_x96 // denominator)
    if product >> 256 or numerator <= product:
        raise ContractRevert("SqrtPriceMath.getNextSqrtPriceFromAmount0RoundingUp", "")
    price = -(-numerator * sqrt_price_x96 // (numerator - product))
    return _to_uint160(price, "SqrtPriceMath.getNextSqrtPriceFromAmount0RoundingUp")


def get_next_sqrt_price_from_amount1_rounding_down(
    sqrt_price_x96: int, liquidity: int, amount: int, add: bool
) -> int:
    """Return the price after token1 is added or removed
    (SqrtPriceMath.getNextSqrtPriceFromAmount1RoundingDown). Raises ContractRevert.
    """
    if add:
        price = sqrt_price_x96 + (amount << 96) // liquidity
        return _to_uint160(price, "SqrtPriceMath.getNextSqrtPriceFromAmount1RoundingDown")
    price = sqrt_price_x96 + (-amount << 96) // liquidity
    if price <= 0:
        raise ContractRevert("SqrtPriceMath.getNextSqrtPriceFromAmount1RoundingDown", "")
    return price


def get_next_sqrt_price_from_input(
    sqrt_price_x96: int, liquidity: int, amount_in: int, zero_for_one: bool
) -> int:
    """Return the price after amount_in (less fee), rounded against the trader
    (SqrtPriceMath.getNextSqrtPriceFromInput).
    """
    if sqrt_price_x96 <= 0 or liquidity <= 0:
        raise ContractRevert("SqrtPriceMath.getNextSqrtPriceFromInput", "")
    if zero_for_one:
        return get_next_sqrt_price_from_amount0_rounding_up(
            sqrt_price_x96, liquidity, amount_in, True
        )
    return get_next_sqrt_price_from_amount1_rounding_down(
        sqrt_price_x96, liquidity, amount_in, True
    )


def get_next_sqrt_price_from_output(
    sqrt_price_x96: int, liquidity: int, amount_out: int, zero_for_one: bool
) -> int:
    """Return the price after amount_out, rounded against the trader
    (SqrtPriceMath.getNextSqrtPriceFromOutput).
    """
    if sqrt_price_x96 <= 0 or liquidity <= 0:
        raise ContractRevert("SqrtPriceMath.getNextSqrtPriceFromOutput", "")
    if zero_for_one:
        return get_next_sqrt_price_from_amount1_rounding_down(
            sqrt_price_x96, liquidity, amount_out, False
        )
    return get_next_sqrt_price_from_amount0_rounding_up(
        sqrt_price_x96, liquidity, amount_out, False
    )


def _to_uint160(price: int, where: str) -> int:
    if price >> UINT160_BITS:
        raise ContractRevert(where, "")
    return price
