"""Properties that every pool keeps: no free money, monotone, consistent both ways, reverts by their names."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.swap_errors import ContractRevert
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import MAX_SQRT_RATIO, MIN_SQRT_RATIO, MIN_TICK, Q96, get_sqrt_ratio_at_tick
from agent.errors import ConfigError, Refused
from agent.units import PIPS
from tests.support import amm_pools
from tests.support.amm_pools import POOL, TOKEN0, TOKEN1, flat, swap_result, v3_pool
from tests.support.text import raises_code


@given(amm_pools.pools, amm_pools.tokens, amm_pools.amounts, amm_pools.amounts)
def test_more_in_never_pays_less_nor_moves_the_price_less(state, token_in, a, b):
    small = swap_result(state, token_in, min(a, b))
    large = swap_result(state, token_in, max(a, b))
    assume(small and large)
    assert small.amount_out_raw <= large.amount_out_raw
    assert pools.price_move_bps(state, small.pool_after, token_in) <= pools.price_move_bps(state, large.pool_after, token_in)


@given(amm_pools.pools, amm_pools.tokens, amm_pools.amounts)
def test_there_and_back_never_ends_with_more(state, token_in, amount):
    there = swap_result(state, token_in, amount)
    assume(there and there.amount_out_raw)
    back = swap_result(there.pool_after, pools.token_out(state, token_in), there.amount_out_raw)
    assert back is None or back.amount_out_raw <= there.amount_in_raw


@given(amm_pools.pools, amm_pools.tokens, amm_pools.amounts, amm_pools.amounts)
def test_two_swaps_never_pay_more_than_one_by_more_than_rounding(state, token_in, a, b):
    whole = swap_result(state, token_in, a + b)
    first = swap_result(state, token_in, a)
    assume(whole and first)
    second = swap_result(first.pool_after, token_in, b)
    assume(second)
    assert first.amount_out_raw + second.amount_out_raw <= whole.amount_out_raw + whole.stop_count + 1


@given(amm_pools.pools, amm_pools.tokens, amm_pools.amounts)
def test_the_quote_without_a_state_is_the_swaps_output(state, token_in, amount):
    done = swap_result(state, token_in, amount)
    assume(done)
    assert state.quote(token_in, amount) == done.amount_out_raw


@given(amm_pools.pools, amm_pools.tokens, amm_pools.amounts)
def test_no_swap_pays_better_than_the_marginal_price_after_fee(state, token_in, amount):
    done = swap_result(state, token_in, amount)
    assume(done)
    after_fee = pools.marginal_price(state, token_in) * Fraction(PIPS - state.fee_pips, PIPS)
    assert done.amount_out_raw <= done.amount_in_raw * after_fee
    assert done.fee_raw * PIPS >= (done.amount_in_raw - done.stop_count) * state.fee_pips - PIPS


@given(amm_pools.v3_pools(), amm_pools.tokens, amm_pools.amounts, st.integers(1, 2**64))
def test_price_limit__is_never_passed_and_the_rest_stops_there(state, token_in, amount, distance):
    down = token_in == TOKEN0
    limit = state.sqrt_price_x96 - distance if down else state.sqrt_price_x96 + distance
    assume(MIN_SQRT_RATIO < limit < MAX_SQRT_RATIO)
    done = state.swap(token_in, amount, limit)
    filled = done.amount_in_raw
    reached = done.pool_after.sqrt_price_x96
    assert reached >= limit if down else reached <= limit
    assert filled == amount or (filled < amount and reached == limit)


@given(amm_pools.v3_pools(), amm_pools.tokens, amm_pools.amounts)
def test_tick_after_a_swap__is_its_price_s_or_one_below_a_crossed(state, token_in, amount):
    done = swap_result(state, token_in, amount)
    assume(done)
    tick = done.pool_after.tick
    price = done.pool_after.sqrt_price_x96
    at_border = price == get_sqrt_ratio_at_tick(tick + 1)
    assert at_border or get_sqrt_ratio_at_tick(tick) <= price < get_sqrt_ratio_at_tick(tick + 1)
    in_range = sum(t.liquidity_net for t in state.ticks if t.index <= tick)
    assert done.pool_after.liquidity == in_range


def test_a_swap_rounds_at_the_border_of_every_bitmap_word():
    stepped = flat(liquidity=10**9, tick_spacing=1, fee_pips=100)
    done = stepped.swap(TOKEN1, 10**7)
    assert (done.ticks_crossed, done.stop_count) == (0, 1)
    done = stepped.swap(TOKEN1, 10**8)
    assert done.ticks_crossed == 0
    assert done.stop_count == 1 + (done.pool_after.tick + 1) // 256
    assert done.fee_raw > -(-(10**8) * 100 // 10**6), "every step rounds its own fee up"


def test_a_gap_without_liquidity_is_crossed_for_nothing():
    state = v3_pool([(-120, 60, 10**18), (6000, 6060, 10**18)], Q96, 0)
    done = state.swap(TOKEN1, 5 * 10**15)
    assert done.pool_after.tick >= 6000
    assert done.ticks_crossed == 2
    assert done.pool_after.liquidity == 10**18


def test_emptying_swap__fills_in_part_at_the_range_s_end():
    done = flat().swap(TOKEN0, 10**30)
    assert done.amount_in_raw < 10**19
    assert (done.pool_after.sqrt_price_x96, done.pool_after.tick, done.pool_after.liquidity) == (MIN_SQRT_RATIO + 1, MIN_TICK, 0)
    done = flat().swap(TOKEN1, 10**60)
    assert done.amount_out_raw < 10**18
    assert (done.pool_after.sqrt_price_x96, done.pool_after.liquidity) == (MAX_SQRT_RATIO - 1, 0)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        pytest.param(lambda: flat().swap(TOKEN0, 0), "AS", id="nothing"),
        pytest.param(lambda: flat().swap(TOKEN0, -1), "AS", id="less than nothing"),
        pytest.param(lambda: flat().swap(TOKEN0, 2**255), "", id="beyond int256"),
        pytest.param(lambda: flat().swap(TOKEN0, 1, Q96), "SPL", id="limit at the price"),
        pytest.param(lambda: flat().swap(TOKEN0, 1, Q96 + 1), "SPL", id="limit above a sale's price"),
        pytest.param(lambda: flat().swap(TOKEN0, 1, MIN_SQRT_RATIO), "SPL", id="limit at the least price"),
        pytest.param(lambda: flat().swap(TOKEN1, 1, Q96 - 1), "SPL", id="limit below a purchase's price"),
        pytest.param(lambda: flat().swap(TOKEN1, 1, MAX_SQRT_RATIO), "SPL", id="limit at the greatest price"),
        pytest.param(
            lambda: flat(liquidity=2**127, ticks=flat(liquidity=2**127 + 10**6).ticks).swap(TOKEN0, 2**130), "LS", id="liquidity below zero"
        ),
        pytest.param(
            lambda: V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10).swap(TOKEN0, 1),
            "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT",
            id="output of nothing",
        ),
        pytest.param(
            lambda: V2Pool(POOL, "v2", TOKEN0, TOKEN1, 2**111, 2**111).swap(TOKEN0, 2**111),
            "UniswapV2: OVERFLOW",
            id="reserve beyond uint112",
        ),
        pytest.param(lambda: flat(ticks=flat(liquidity=-(2**128)).ticks).swap(TOKEN1, 2**130), "LA", id="liquidity of a tick beyond"),
    ],
)
def test_what_the_pools_refuse_is_refused_with_their_reason(call, reason):
    with pytest.raises(ContractRevert) as refusal:
        call()
    assert refusal.value.reason == reason


def test_a_foreign_token_is_refused_by_name():
    with pytest.raises(ConfigError, match="in pool"):
        pools.token_out(flat(), POOL)


def test_move__is_rounded_up_so_only_an_unmoved_pool_is_zero():
    state = flat()
    assert pools.price_move_bps(state, state, TOKEN0) == 0
    moved = state.swap(TOKEN0, 10).pool_after
    assert moved.sqrt_price_x96 < state.sqrt_price_x96
    assert pools.price_move_bps(state, moved, TOKEN0) == pools.price_move_bps(state, moved, TOKEN1) == 1


def test_the_time_weighted_price_is_the_ratio_at_the_mean_tick():
    state = flat(twap_tick=-100)
    assert state.mean_price(TOKEN0) == Fraction(get_sqrt_ratio_at_tick(-100) ** 2, 2**192)
    assert state.mean_price(TOKEN0) * state.mean_price(TOKEN1) == 1
    assert state.mean_price(TOKEN0) < 1
    with raises_code(Refused, "twap"):
        flat().mean_price(TOKEN0)
