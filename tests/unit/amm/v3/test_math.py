"""The V3 building blocks on known vectors, at the ends of their ranges, and against their definitions."""

from bisect import bisect_right
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.swap_errors import ContractRevert
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    Q96,
    compute_swap_step,
    get_amount0_delta,
    get_amount1_delta,
    get_next_sqrt_price_from_amount0_rounding_up,
    get_next_sqrt_price_from_amount1_rounding_down,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
)
from agent.amm.v3.tick_bitmap import TickLiquidity, next_initialized_tick_within_one_word

COIN = 10**18
ticks = st.integers(MIN_TICK, MAX_TICK)
prices = st.one_of(st.integers(MIN_SQRT_RATIO, MAX_SQRT_RATIO - 1), st.integers(MIN_TICK, MAX_TICK - 1).map(get_sqrt_ratio_at_tick))
liquidities = st.integers(0, 127).flatmap(lambda bits: st.integers(1, (2 << bits) - 1))


# TickMath.spec.ts of v3-core.
@pytest.mark.parametrize(
    ("tick", "ratio"),
    [
        (MIN_TICK, MIN_SQRT_RATIO),
        (MIN_TICK + 1, 4295343490),
        (MAX_TICK - 1, 1461373636630004318706518188784493106690254656249),
        (MAX_TICK, MAX_SQRT_RATIO),
        (0, Q96),
        (50, 79426470787362580746886972461),
        (-50, 79030349367926598376800521322),
        (100, 79625275426524748796330556128),
        (-100, 78833030112140176575862854579),
        (250, 80224679980005306637834519095),
        (-250, 78244023372248365697264290337),
        (500, 81233731461783161732293370115),
        (1000, 83290069058676223003182343270),
        (3000, 92049301871182272007977902845),
        (50000, 965075977353221155028623082916),
        (-50000, 6504256538020985011912221507),
        (150000, 143194173941309278083010301478497),
        (-150000, 43836292794701720435367485),
        (250000, 21246587762933397357449903968194344),
        (500000, 5697689776495288729098254600827762987878),
        (738203, 847134979253254120489401328389043031315994541),
        (-738203, 7409801140451),
    ],
)
def test_ratios_are_those_of_the_contracts_own_tests(tick, ratio):
    assert get_sqrt_ratio_at_tick(tick) == ratio


@given(prices)
def test_the_tick_of_a_price_is_the_greatest_one_not_above_it(price):
    tick = get_tick_at_sqrt_ratio(price)
    assert get_sqrt_ratio_at_tick(tick) <= price < get_sqrt_ratio_at_tick(tick + 1)


@given(st.integers(MIN_TICK, MAX_TICK - 1))
def test_a_tick_survives_the_way_to_its_price_and_back(tick):
    ratio = get_sqrt_ratio_at_tick(tick)
    assert get_tick_at_sqrt_ratio(ratio) == tick
    if tick > MIN_TICK:
        assert get_tick_at_sqrt_ratio(ratio - 1) == tick - 1


def test_ticks_and_prices_outside_the_range_revert():
    for tick in (MIN_TICK - 1, MAX_TICK + 1):
        with pytest.raises(ContractRevert, match="'T'"):
            get_sqrt_ratio_at_tick(tick)
    for price in (0, MIN_SQRT_RATIO - 1, MAX_SQRT_RATIO):
        with pytest.raises(ContractRevert, match="'R'"):
            get_tick_at_sqrt_ratio(price)
    assert get_tick_at_sqrt_ratio(MIN_SQRT_RATIO) == MIN_TICK
    assert get_tick_at_sqrt_ratio(MAX_SQRT_RATIO - 1) == MAX_TICK - 1


def encode_price_sqrt(reserve1: int, reserve0: int) -> int:
    """Floor of sqrt(reserve1 / reserve0) in Q96."""
    from math import isqrt

    return isqrt((reserve1 << 192) // reserve0)


# SqrtPriceMath.spec.ts of v3-core.
def test_deltas_and_next_prices__are_the_contract_s_own_tests():
    encoded_price = encode_price_sqrt(1, 1)
    other = encode_price_sqrt(121, 100)
    assert get_amount0_delta(encoded_price, other, COIN, True) == 90909090909090910
    assert get_amount0_delta(encoded_price, other, COIN, False) == 90909090909090909
    assert get_amount1_delta(encoded_price, other, COIN, True) == 100000000000000000
    assert get_amount1_delta(encoded_price, other, COIN, False) == 99999999999999999
    assert get_next_sqrt_price_from_amount1_rounding_down(encoded_price, COIN, COIN // 10) == 87150978765690771352898345369
    assert get_next_sqrt_price_from_amount0_rounding_up(encoded_price, COIN, COIN // 10) == 72025602285694852357767227579
    assert get_next_sqrt_price_from_amount0_rounding_up(encoded_price, 10 * COIN, 2**100) == 624999999995069620
    assert get_next_sqrt_price_from_amount0_rounding_up(encoded_price, 1, 2**255) == 1


# SwapMath.spec.ts of v3-core: price, target, liquidity, amount, fee -> next price, in, out, fee.
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            (encode_price_sqrt(1, 1), encode_price_sqrt(101, 100), 2 * COIN, COIN, 600),
            (encode_price_sqrt(101, 100), 9975124224178055, 9925619580021728, 5988667735148),
        ),
        ((2, 1, 1, 3915081100057732413702495386755767, 1), (1, 39614081257132168796771975168, 0, 39614120871253040049813)),
        ((2413, 79887613182836312, 1985041575832132834610021537970, 10, 1872), (2413, 0, 0, 10)),
    ],
)
def test_steps_are_those_of_the_contracts_own_tests(arguments, expected):
    assert compute_swap_step(*arguments) == expected


def test_short_step__spends_all_and_takes_the_rest_as_fee():
    price = encode_price_sqrt(1, 1)
    target = encode_price_sqrt(1000, 100)
    reached, amount_in, amount_out, fee = compute_swap_step(price, target, 2 * COIN, COIN, 600)
    assert (amount_in, amount_out, fee) == (999400000000000000, 666399946655997866, 600000000000000)
    assert amount_in + fee == COIN
    assert reached == get_next_sqrt_price_from_amount1_rounding_down(price, 2 * COIN, COIN - fee)


@given(
    prices,
    prices,
    st.one_of(st.just(0), liquidities),
    st.integers(1, 2**200),
    st.sampled_from((100, 500, 3000, 10000)),
)
def test_a_step_keeps_to_the_definitions_of_its_amounts(current, target, liquidity, amount, fee_pips):
    reached, amount_in, amount_out, fee = compute_swap_step(current, target, liquidity, amount, fee_pips)
    down = current >= target
    assert min(current, target) <= reached <= max(current, target)
    delta_in, delta_out = (get_amount0_delta, get_amount1_delta) if down else (get_amount1_delta, get_amount0_delta)
    assert amount_in == delta_in(current, reached, liquidity, True)
    assert amount_out == delta_out(current, reached, liquidity, False)
    assert amount_in + fee <= amount
    assert reached == target or amount_in + fee == amount
    assert Fraction(fee) >= Fraction(amount_in * fee_pips, 10**6 - fee_pips) or reached != target


@given(prices, prices, liquidities)
def test_deltas_are_the_real_amounts_rounded_to_the_side_asked(a, b, liquidity):
    low = min(a, b)
    high = max(a, b)
    real0 = Fraction(liquidity * Q96 * (high - low), low * high)
    real1 = Fraction(liquidity * (high - low), Q96)
    assert get_amount0_delta(a, b, liquidity, False) <= real0 <= get_amount0_delta(a, b, liquidity, True) < real0 + 2
    assert get_amount1_delta(a, b, liquidity, False) <= real1 <= get_amount1_delta(a, b, liquidity, True) < real1 + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: get_amount0_delta(0, 5, 1, True),
        lambda: get_next_sqrt_price_from_amount1_rounding_down(2**160 - 1, 1024, 1024),
    ],
)
def test_prices_that_the_contract_cannot_reach_revert(call):
    with pytest.raises(ContractRevert):
        call()


def bitmap_search(initialised: set[int], tick: int, spacing: int, lte: bool) -> tuple[int, bool]:
    """TickBitmap read as a real bitmap, bit by bit."""
    compressed = tick // spacing
    if lte:
        for bit in range(compressed & 255, -1, -1):
            at = (compressed >> 8 << 8) + bit
            if at * spacing in initialised:
                return at * spacing, True
        return (compressed >> 8 << 8) * spacing, False
    compressed += 1
    for bit in range(compressed & 255, 256):
        at = (compressed >> 8 << 8) + bit
        if at * spacing in initialised:
            return at * spacing, True
    return ((compressed >> 8 << 8) + 255) * spacing, False


@given(
    st.sets(st.integers(-1200, 1200), max_size=30), st.sampled_from((1, 10, 60, 200)), st.integers(-1300, 1300), st.data(), st.booleans()
)
def test_stops_are_those_of_a_bitmap_read_bit_by_bit(compressed, spacing, near, data, lte):
    initialised = {index * spacing for index in compressed}
    tick = near * spacing + data.draw(st.integers(-spacing, spacing))
    indices = sorted(initialised)
    known = [TickLiquidity(index, 1) for index in indices]
    next_tick = next_initialized_tick_within_one_word(known, bisect_right(indices, tick), tick, spacing, lte)
    assert next_tick == bitmap_search(initialised, tick, spacing, lte)
