"""Uniswap V2 pairs: the integer arithmetic of UniswapV2Library, and the checks of the pair."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from agent.amm.swap_errors import TOO_LITTLE_MESSAGE, UNPAID_MESSAGE, ContractRevert
from agent.units import PIPS, UINT256_MAX

UINT112_MAX = 2**112 - 1
"""Largest reserve of a pair."""
_SAFE_BITS = 112
"""Amounts below 2^112 cannot overflow the library's products: 2^112 · 2^20 · 2^112 < 2^256."""

V2_REVERT_MESSAGES = {
    "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT": TOO_LITTLE_MESSAGE,
    "UniswapV2Router: EXPIRED": "the deadline has passed",
    "TransferHelper: TRANSFER_FROM_FAILED": UNPAID_MESSAGE,
    "TransferHelper::transferFrom: transferFrom failed": UNPAID_MESSAGE,
    "UniswapV2: TRANSFER_FAILED": "the pool could not transfer a token",
    "UniswapV2: LOCKED": "the pool is locked: a reentrant call",
    "UniswapV2: K": "the pool was not paid in full: the token takes a fee on transfer",
    "UniswapV2: INSUFFICIENT_INPUT_AMOUNT": "the pool received no payment",
    "UniswapV2: INSUFFICIENT_LIQUIDITY": "the pool holds too little of the token",
    "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT": "the swap amount is zero",
    "UniswapV2Library: INSUFFICIENT_LIQUIDITY": "the pool is empty",
    "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT": "the amount is too small to buy anything",
}
"""Revert reasons of pair and Router02."""


def get_amount_out(amount_in: int, reserve_in: int, reserve_out: int, fee_pips: int = 3000) -> int:
    """Return the base units paid for amount_in, rounded down (UniswapV2Library.getAmountOut).
    Raises ContractRevert where the library reverts.
    """
    if amount_in <= 0:
        raise ContractRevert(
            "UniswapV2Library.getAmountOut", "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT"
        )
    if reserve_in <= 0 or reserve_out <= 0:
        raise ContractRevert(
            "UniswapV2Library.getAmountOut", "UniswapV2Library: INSUFFICIENT_LIQUIDITY"
        )
    amount_in_with_fee = amount_in * (PIPS - fee_pips)
    if amount_in >> _SAFE_BITS:
        _require_fits(amount_in_with_fee, reserve_in, reserve_out, fee_pips)
    return amount_in_with_fee * reserve_out // (reserve_in * PIPS + amount_in_with_fee)


def quoter(reserve_in: int, reserve_out: int, fee_pips: int = 3000) -> Callable[[int], int]:
    """Return get_amount_out for these reserves as a function. Terms that depend only on the
    reserves are computed once.
    """

    def quote_any(amount_in: int) -> int:
        return get_amount_out(amount_in, reserve_in, reserve_out, fee_pips)

    if reserve_in <= 0 or reserve_out <= 0:
        return quote_any
    divisor = gcd(PIPS, fee_pips)
    fee_factor = (PIPS - fee_pips) // divisor
    scaled_reserve_in = reserve_in * (PIPS // divisor)
    safe_bound = 1 << _SAFE_BITS

    def quote(amount_in: int) -> int:
        if 0 < amount_in < safe_bound:
            amount_in *= fee_factor
            return amount_in * reserve_out // (scaled_reserve_in + amount_in)
        return quote_any(amount_in)

    return quote


def require_pair_swaps(amount_in: int, amount_out: int, reserve_in: int, reserve_out: int) -> None:
    """Apply the checks of UniswapV2Pair.swap that UniswapV2Library lacks. Raises ContractRevert."""
    if amount_out <= 0:
        raise ContractRevert(
            "UniswapV2Pair.swap",
            "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT",
            "trade more: this buys less than one base unit",
        )
    if amount_out >= reserve_out:
        raise ContractRevert("UniswapV2Pair.swap", "UniswapV2: INSUFFICIENT_LIQUIDITY")
    if reserve_in + amount_in > UINT112_MAX:
        raise ContractRevert(
            "UniswapV2Pair.swap",
            "UniswapV2: OVERFLOW",
            "trade less: a reserve is at most 2^112 - 1",
        )


def _fee_unit_pips(fee_pips: int) -> int:
    """Return the number of millionths in one fee unit of the deployed library: 1,000 or 100."""
    for unit_pips in (1000, 100):
        if fee_pips % unit_pips == 0:
            return unit_pips
    return 1


def _require_fits(
    amount_in_with_fee: int, reserve_in: int, reserve_out: int, fee_pips: int
) -> None:
    """Raise ContractRevert where SafeMath reverts in getAmountOut, in the fee units of the
    contract.
    """
    uint256_limit = UINT256_MAX * _fee_unit_pips(fee_pips)
    if amount_in_with_fee * reserve_out > uint256_limit:
        raise ContractRevert("UniswapV2Library.getAmountOut", "ds-math-mul-overflow")
    if reserve_in * PIPS + amount_in_with_fee > uint256_limit:
        raise ContractRevert("UniswapV2Library.getAmountOut", "ds-math-add-overflow")
