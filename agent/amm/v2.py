"""Exact integers of a Uniswap V2 pair: UniswapV2Library and the pair's own checks."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd

from agent.amm.errors import ContractRevert
from agent.units import PIPS, UINT256_MAX

UINT112_MAX = 2**112 - 1
"""Largest reserve a pair can hold."""
_SAFE_BITS = 112
"""Amounts below 2^112 cannot overflow the library's products: 2^112 · 2^20 · 2^112 < 2^256."""


def get_amount_out(amount_in: int, reserve_in: int, reserve_out: int, fee_pips: int = 3000) -> int:
    """Base units paid for amount_in, rounded down (UniswapV2Library.getAmountOut). Raises ContractRevert as the library does."""
    if amount_in <= 0:
        raise ContractRevert("UniswapV2Library.getAmountOut", "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT")
    if reserve_in <= 0 or reserve_out <= 0:
        raise ContractRevert("UniswapV2Library.getAmountOut", "UniswapV2Library: INSUFFICIENT_LIQUIDITY")
    amount_in_with_fee = amount_in * (PIPS - fee_pips)
    if amount_in >> _SAFE_BITS:
        _require_fits(amount_in_with_fee, reserve_in, reserve_out, fee_pips)
    return amount_in_with_fee * reserve_out // (reserve_in * PIPS + amount_in_with_fee)


def get_amount_in(amount_out: int, reserve_in: int, reserve_out: int, fee_pips: int = 3000) -> int:
    """Base units that buy amount_out, rounded up (UniswapV2Library.getAmountIn). Raises ContractRevert as the library does."""
    if amount_out <= 0:
        raise ContractRevert("UniswapV2Library.getAmountIn", "UniswapV2Library: INSUFFICIENT_OUTPUT_AMOUNT")
    if reserve_in <= 0 or reserve_out <= 0:
        raise ContractRevert("UniswapV2Library.getAmountIn", "UniswapV2Library: INSUFFICIENT_LIQUIDITY")
    numerator = reserve_in * amount_out * PIPS
    if numerator > UINT256_MAX * _finer(fee_pips):
        raise ContractRevert("UniswapV2Library.getAmountIn", "ds-math-mul-overflow")
    if amount_out > reserve_out:
        raise ContractRevert("UniswapV2Library.getAmountIn", "ds-math-sub-underflow", "ask for less than the reserve")
    if amount_out == reserve_out:  # Solidity's division by zero
        raise ContractRevert("UniswapV2Library.getAmountIn", "", "ask for less than the reserve")
    return numerator // ((reserve_out - amount_out) * (PIPS - fee_pips)) + 1


def quoter(reserve_in: int, reserve_out: int, fee_pips: int = 3000) -> Callable[[int], int]:
    """get_amount_out of these reserves for many amounts, base units; what depends on the reserves alone is worked out once."""

    def any_amount(amount_in: int) -> int:
        return get_amount_out(amount_in, reserve_in, reserve_out, fee_pips)

    if reserve_in <= 0 or reserve_out <= 0:
        return any_amount
    common = gcd(PIPS, fee_pips)
    kept, held, safe = (PIPS - fee_pips) // common, reserve_in * (PIPS // common), 1 << _SAFE_BITS

    def quote(amount_in: int) -> int:
        if 0 < amount_in < safe:
            amount_in *= kept
            return amount_in * reserve_out // (held + amount_in)
        return any_amount(amount_in)

    return quote


def require_pair_swaps(amount_in: int, amount_out: int, reserve_in: int, reserve_out: int) -> None:
    """The checks of UniswapV2Pair.swap that amounts from this module can still fail. Raises ContractRevert."""
    if amount_out <= 0:
        raise ContractRevert("UniswapV2Pair.swap", "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT", "trade more: this buys less than one base unit")
    if amount_out >= reserve_out:
        raise ContractRevert("UniswapV2Pair.swap", "UniswapV2: INSUFFICIENT_LIQUIDITY")
    if reserve_in + amount_in > UINT112_MAX:
        raise ContractRevert("UniswapV2Pair.swap", "UniswapV2: OVERFLOW", "trade less: a reserve is at most 2^112 - 1")


def _finer(fee_pips: int) -> int:
    """Return the ratio of millionths to the units of the deployed library: thousandths or ten-thousandths."""
    return 1000 if fee_pips % 1000 == 0 else 100 if fee_pips % 100 == 0 else 1


def _require_fits(amount_in_with_fee: int, reserve_in: int, reserve_out: int, fee_pips: int) -> None:
    """SafeMath of getAmountOut, in the contract's own scale."""
    most = UINT256_MAX * _finer(fee_pips)
    if amount_in_with_fee * reserve_out > most:
        raise ContractRevert("UniswapV2Library.getAmountOut", "ds-math-mul-overflow")
    if reserve_in * PIPS + amount_in_with_fee > most:
        raise ContractRevert("UniswapV2Library.getAmountOut", "ds-math-add-overflow")
