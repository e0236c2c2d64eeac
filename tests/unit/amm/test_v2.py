"""The V2 formulas on known vectors and at their edges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.swap_errors import ContractRevert
from agent.amm.v2 import UINT112_MAX, get_amount_out, require_pair_swaps
from agent.amm.v2_pool import V2Pool

reserves = st.integers(1, UINT112_MAX)


# Vectors of v2-core's own test suite (UniswapV2Pair.spec.ts): swap amount, reserve in, reserve out, output.
@pytest.mark.parametrize(
    ("amount_in", "reserve_in", "reserve_out", "amount_out"),
    [
        pytest.param(1, 5, 10, 1662497915624478906, id="one of five to ten"),
        pytest.param(1, 10, 5, 453305446940074565, id="one of ten to five"),
        pytest.param(2, 5, 10, 2851015155847869602, id="two of five to ten"),
        pytest.param(2, 10, 5, 831248957812239453, id="two of ten to five"),
        pytest.param(1, 10, 10, 906610893880149131, id="even tens"),
        pytest.param(1, 100, 100, 987158034397061298, id="even hundreds"),
        pytest.param(1, 1000, 1000, 996006981039903216, id="even thousands"),
    ],
)
def test_amounts_out_are_those_of_the_contracts_own_tests(amount_in, reserve_in, reserve_out, amount_out):
    coin = 10**18
    assert get_amount_out(amount_in * coin, reserve_in * coin, reserve_out * coin) == amount_out


def test_the_formula_is_the_librarys_in_thousandths():
    for amount, r_in, r_out in [(1, 1, 1), (7, 10**3, 10**9), (123456789, 987654321, 10**30), (10**30, 10**33, 5)]:
        fee = amount * 997
        assert get_amount_out(amount, r_in, r_out) == fee * r_out // (r_in * 1000 + fee)


@given(st.integers(1, 2**112), reserves, reserves)
def test_the_product_of_the_reserves_never_falls(amount_in, r_in, r_out):
    out = get_amount_out(amount_in, r_in, r_out)
    assert out < r_out
    assert (r_in + amount_in) * (r_out - out) >= r_in * r_out


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: get_amount_out(0, 1, 1), "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT"),
        (lambda: get_amount_out(1, 0, 1), "UniswapV2Library: INSUFFICIENT_LIQUIDITY"),
        (lambda: get_amount_out(1, 1, 0), "UniswapV2Library: INSUFFICIENT_LIQUIDITY"),
        (lambda: get_amount_out(2**256 - 1, 1, 1), "ds-math-mul-overflow"),
        (lambda: get_amount_out((2**256 - 1) // 997, 2**112 - 1, 1), "ds-math-add-overflow"),
        (lambda: require_pair_swaps(1, 0, 10, 10), "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT"),
        (lambda: require_pair_swaps(1, 10, 10, 10), "UniswapV2: INSUFFICIENT_LIQUIDITY"),
        (lambda: require_pair_swaps(UINT112_MAX, 1, 1, 10), "UniswapV2: OVERFLOW"),
    ],
)
def test_what_the_contracts_refuse_is_refused_with_their_reason(call, reason):
    with pytest.raises(ContractRevert) as refusal:
        call()
    assert refusal.value.reason == reason


@pytest.mark.parametrize(("reserve_out", "largest"), [(1, (2**256 - 1 - 1000) // 997), (2, (2**256 - 1) // 997 // 2)])
def test_overflow_is_judged_in_the_scale_of_the_deployed_library(reserve_out, largest):
    assert get_amount_out(largest, 1, reserve_out) == reserve_out - 1
    with pytest.raises(ContractRevert):
        get_amount_out(largest + 1, 1, reserve_out)


def test_reserve__may_be_the_pair_s_largest_number_at_most():
    """UniswapV2Pair._update: balance <= uint112(-1)."""
    amount = 10**30
    pool = V2Pool("pair", "uniswap_v2", "0x01", "0x02", 2**112 - 1 - amount, 10**33)
    full = pool.swap("0x01", amount).pool_after
    assert full.reserve0 == 2**112 - 1
    assert full.max_in("0x01", 10_000) == 0
    with pytest.raises(ContractRevert, match="UniswapV2: OVERFLOW"):
        pool.swap("0x01", amount + 1)
