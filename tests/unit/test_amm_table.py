"""Sums over stops against the same swap step by step: every amount, fee, price, tick and liquidity, whatever is crossed."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.pools import BeyondKnownTicks, ContractRevert
from agent.amm.v3.math import MAX_SQRT_RATIO, MIN_SQRT_RATIO, Q96, get_sqrt_ratio_at_tick, price_limit
from agent.amm.v3.pool_swap import swap
from agent.amm.v3.tick_bitmap import tick_table
from tests.unit.amm_pools import TOKEN0, TOKEN1, flat, v3_pool
from tests.unit.v3_by_steps import Ended, by_steps, by_table, draw_amount, draw_limit, some_pools, swap_by_steps


@given(some_pools, st.booleans(), st.booleans(), st.data())
def test_a_swap_by_sums_ends_as_the_same_swap_by_steps(state, down, exact_in, data):
    assume(state.sqrt_price_x96 != price_limit(down))
    limit = draw_limit(data, state, down)
    for _ in range(3):  # the first makes the table, the others use and extend it
        amount = draw_amount(data, state, down, exact_in, limit)
        assert by_table(state, down, amount, limit) == by_steps(state, down, amount, limit)


def test_a_swap_that_is_used_up_before_a_gap_does_not_cross_it_for_nothing():
    state = v3_pool([(-120, 60, 10**18), (-120, 120, 10**18), (6000, 6060, 10**18)], Q96, 0)
    onto = swap_by_steps(state, False, 2**200, get_sqrt_ratio_at_tick(120))
    cost = 2**200 - onto.remaining
    for amount, tick in ((cost, 120), (-onto.calculated, 120), (cost + 1, 6000)):
        assert by_table(state, False, amount, price_limit(False)) == by_steps(state, False, amount, price_limit(False))
        assert state.quoter(TOKEN1)(cost) == onto.calculated
        assert swap(state, False, amount, price_limit(False)).end_tick() == tick


@given(some_pools, st.data())
def test_one_table_serves_the_states_before_and_after_a_swap(state, data):
    for _ in range(6):
        down, exact_in = data.draw(st.booleans()), data.draw(st.booleans())
        if state.sqrt_price_x96 in (MIN_SQRT_RATIO, MIN_SQRT_RATIO + 1, MAX_SQRT_RATIO - 1):
            return
        limit = draw_limit(data, state, down)
        amount = draw_amount(data, state, down, exact_in, limit)
        end = by_steps(state, down, amount, limit)
        assert by_table(state, down, amount, limit) == end
        if isinstance(end, Ended):
            state = replace(state, sqrt_price_x96=end.price, tick=end.tick, liquidity=end.liquidity)
    assert not state.ticks or len(tick_table(state.ticks).stops) <= 2  # one a direction; pools without ticks share theirs


def test_a_tick_whose_crossing_reverts_bounds_what_the_pool_takes():
    state = flat(liquidity=10**18, ticks=flat(liquidity=2 * 10**18).ticks)  # more is to be taken off at -6000 than there is
    most = state.max_in(TOKEN0, 9_999)
    assert state.swap(TOKEN0, most).after.tick == -6000
    with pytest.raises(ContractRevert):
        state.swap(TOKEN0, most + 1)


def test_a_table_is_replaced_and_never_changed_so_that_threads_may_share_it():
    state = v3_pool([(-60 * i, 60 * i, 10**15) for i in range(1, 90)], Q96, 0)
    state.swap(TOKEN0, 10**15)
    [table] = tick_table(state.ticks).stops.values()
    before, copied = table.sums, tuple(tuple(part) if isinstance(part, tuple) else part for part in table.sums)
    state.swap(TOKEN0, 10**17)
    assert tuple(before) == copied
    assert len(table.sums.keys) > len(before.keys)
    assert table.sums.keys[: len(before.keys)] == before.keys
    assert table.sums.rows[: len(before.rows)] == before.rows
    longer = table.sums
    table.sums = before  # as a slower thread would leave it
    assert table.reach(longer) is longer
    assert table.reach(before, cost=longer.end_cost - 1).rows[: len(before.rows)] == before.rows


def test_threads_that_share_a_pool_all_get_the_exact_swap():
    state = v3_pool([(-60 * i, 60 * i, 10**15) for i in range(1, 90)], Q96, 0)
    cases = [(down, 10**13 * part) for down in (True, False) for part in range(1, 900, 9)]
    right = [by_steps(state, down, amount, price_limit(down)) for down, amount in cases]

    def all_cases(shift: int) -> list[Ended | str]:
        order = cases[shift:] + cases[:shift]
        done = [by_table(state, down, amount, price_limit(down)) for down, amount in order]
        return done[-shift:] + done[:-shift]

    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(5):
                tick_table(state.ticks).stops.clear()
                assert all(done == right for done in threads.map(all_cases, range(1, 80, 10)))
    finally:
        sys.setswitchinterval(patience)


def test_a_table_that_starts_at_one_state_is_found_from_states_on_either_side():
    state = v3_pool([(-60 * i, 60 * i, 10**15) for i in range(1, 90)], Q96, 0)
    low = state.swap(TOKEN0, 8 * 10**15).after
    high = state.swap(TOKEN1, 8 * 10**15).after
    tick_table(state.ticks).stops.clear()
    for pool in (state, low, high, state, low):
        for down in (True, False):
            for amount in (10**14, -(10**14)):
                assert by_table(pool, down, amount, price_limit(down)) == by_steps(pool, down, amount, price_limit(down))
    assert len(tick_table(state.ticks).stops) == 2


def test_states_that_share_ticks_and_disagree_on_liquidity_or_fee_have_their_own_sums_in_bounded_number():
    ticks = v3_pool([(-60, 60, 10**15), (-120, 120, 10**15)], Q96, 0).ticks
    for fee_pips in range(3000, 3030):
        for liquidity in (10**16, 10**16 + 1):
            state = flat(ticks=ticks, liquidity=liquidity, fee_pips=fee_pips)
            assert by_table(state, True, 10**15, price_limit(True)) == by_steps(state, True, 10**15, price_limit(True))
    assert 0 < len(tick_table(ticks).stops) <= 16


def test_a_price_that_has_just_crossed_the_first_known_tick_can_come_back():
    state = v3_pool([(-60, 60, 10**18), (-6000, 6000, 10**18)], Q96, 0, window=(-60, 6000))
    low = state.swap(TOKEN0, 10**18, get_sqrt_ratio_at_tick(-60)).after
    assert low.tick == -61
    amount, limit = 10**16, price_limit(False)
    assert by_table(low, False, amount, limit) == by_steps(low, False, amount, limit)
    assert low.swap(TOKEN1, amount).after.tick > 0
    with pytest.raises(BeyondKnownTicks):
        low.swap(TOKEN0, 1)


@pytest.mark.parametrize(("window", "token_in"), [((1, 6000), TOKEN0), ((-6000, 0), TOKEN1)])
def test_a_price_past_the_last_known_tick_is_not_quoted_further(window, token_in):
    whole = flat(sqrt_price_x96=Q96 + 10)
    state = replace(whole, ticks=(), known_from_tick=window[0], known_to_tick=window[1])
    for amount in (1, 10**18):
        for call in (state.swap, state.swap_exact_out, state.quote):
            with pytest.raises(BeyondKnownTicks):
                call(token_in, amount)
    back = pools.token_out(state, token_in)
    assert state.quote(back, 10**9) == whole.quote(back, 10**9)


def test_the_price_limit_may_be_the_last_known_price():
    state = flat(known_from_tick=-100, known_to_tick=100, ticks=())
    for down, tick in ((True, -100), (False, 100)):
        limit = get_sqrt_ratio_at_tick(tick)
        for amount in (10**18, -(10**18)):
            end = by_table(state, down, amount, limit)
            assert end == by_steps(state, down, amount, limit)
            assert end.price == limit
