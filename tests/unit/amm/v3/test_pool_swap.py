"""Swaps against the same swap step by step: every amount, fee, price, tick and liquidity, whatever is crossed."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.amm.v3.math import MAX_SQRT_RATIO, MIN_SQRT_RATIO, Q96, get_sqrt_ratio_at_tick, price_limit
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.pool_swap import swap
from tests.support.amm_pools import TOKEN0, TOKEN1, flat, v3_pool
from tests.support.v3_by_steps import SwapEnd, by_steps, draw_amount, draw_limit, some_pools, swap_by_steps


def by_swap(state: V3Pool, down: bool, amount: int, limit: int) -> SwapEnd | str:
    """The swap of the library, in the terms of the one by steps; the reason where the contract reverts, "?" beyond known ticks."""
    try:
        end = swap(state, down, amount, limit)
    except ContractRevert as refusal:
        return refusal.reason
    if end.left_known_ticks:
        return "?"
    counts = end.ticks_crossed, end.stops
    return SwapEnd(end.amount_remaining, end.amount_out, end.fee, end.sqrt_price_x96, end.tick, end.liquidity, *counts)


@given(some_pools, st.booleans(), st.data())
def test_a_swap_ends_as_the_same_swap_by_steps(state, down, data):
    assume(state.sqrt_price_x96 != price_limit(down))
    limit = draw_limit(data, state, down)
    for _ in range(3):
        amount = draw_amount(data, state, down, limit)
        assert by_swap(state, down, amount, limit) == by_steps(state, down, amount, limit)


def test_swap_used_up_before_a_gap__does_not_cross_it():
    state = v3_pool([(-120, 60, 10**18), (-120, 120, 10**18), (6000, 6060, 10**18)], Q96, 0)
    onto = swap_by_steps(state, False, 2**200, get_sqrt_ratio_at_tick(120))
    cost = 2**200 - onto.remaining
    for amount, tick in ((cost, 120), (cost + 1, 6000)):
        assert by_swap(state, False, amount, price_limit(False)) == by_steps(state, False, amount, price_limit(False))
        assert state.quoter(TOKEN1)(cost) == onto.calculated
        assert swap(state, False, amount, price_limit(False)).tick == tick


@given(some_pools, st.data())
def test_swaps_one_after_another_end_as_the_same_swaps_by_steps(state, data):
    for _ in range(6):
        down = data.draw(st.booleans())
        if state.sqrt_price_x96 in (MIN_SQRT_RATIO, MIN_SQRT_RATIO + 1, MAX_SQRT_RATIO - 1):
            return
        limit = draw_limit(data, state, down)
        amount = draw_amount(data, state, down, limit)
        end = by_steps(state, down, amount, limit)
        assert by_swap(state, down, amount, limit) == end
        if isinstance(end, SwapEnd):
            state = replace(state, sqrt_price_x96=end.price, tick=end.tick, liquidity=end.liquidity)


def test_tick_whose_crossing_reverts__bounds_the_pool():
    state = flat(liquidity=10**18, ticks=flat(liquidity=2 * 10**18).ticks)  # more is to be taken off at -6000 than there is
    most = state.max_in(TOKEN0, 9_999)
    assert state.swap(TOKEN0, most).pool_after.tick == -6000
    with pytest.raises(ContractRevert):
        state.swap(TOKEN0, most + 1)


def test_price_just_over_the_first_tick__can_come_back():
    state = v3_pool([(-60, 60, 10**18), (-6000, 6000, 10**18)], Q96, 0, window=(-60, 6000))
    low = state.swap(TOKEN0, 10**18, get_sqrt_ratio_at_tick(-60)).pool_after
    assert low.tick == -61
    amount = 10**16
    limit = price_limit(False)
    assert by_swap(low, False, amount, limit) == by_steps(low, False, amount, limit)
    assert low.swap(TOKEN1, amount).pool_after.tick > 0
    with pytest.raises(BeyondKnownTicks):
        low.swap(TOKEN0, 1)


@pytest.mark.parametrize(("window", "token_in"), [((1, 6000), TOKEN0), ((-6000, 0), TOKEN1)])
def test_a_price_past_the_last_known_tick_is_not_quoted_further(window, token_in):
    whole = flat(sqrt_price_x96=Q96 + 10)
    state = replace(whole, ticks=(), known_from_tick=window[0], known_to_tick=window[1])
    for amount in (1, 10**18):
        for call in (state.swap, state.quote):
            with pytest.raises(BeyondKnownTicks):
                call(token_in, amount)
    back = pools.token_out(state, token_in)
    assert state.quote(back, 10**9) == whole.quote(back, 10**9)


def test_the_price_limit_may_be_the_last_known_price():
    state = flat(known_from_tick=-100, known_to_tick=100, ticks=())
    for down, tick in ((True, -100), (False, 100)):
        limit = get_sqrt_ratio_at_tick(tick)
        end = by_swap(state, down, 10**18, limit)
        assert end == by_steps(state, down, 10**18, limit)
        assert end.price == limit
