"""Sums over stops against the same swap step by step: every amount, fee, price, tick and liquidity, whatever is crossed."""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.errors import BeyondKnownTicks, Reverts
from agent.amm.v3_math.quoter import WIDEST_SPACING
from agent.amm.v3_math.swap import INT256_MAX, swap
from agent.amm.v3_math.tick_bitmap import tick_table
from agent.amm.v3_math.tick_math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    Q96,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
)
from agent.errors import Refused
from agent.model import TickLiquidity, V2Pool, V3Pool
from tests import world
from tests.unit import amm_pools as given_pools
from tests.unit.amm_pools import POOL, TOKEN0, TOKEN1, flat, v3_pool
from tests.unit.v3_by_steps import Ended, LeftKnownTicks, swap_by_steps

some_pools = st.one_of(given_pools.v3_pools(), given_pools.v3_pools(windowed=True), given_pools.v3_pools(moderate=True))


def by_table(state: V3Pool, down: bool, amount: int, limit: int) -> Ended | str:
    """The swap of the library, in the terms of the one by steps; the reason where the contract reverts, "?" beyond known ticks."""
    try:
        end = swap(state, down, amount, limit)
    except Reverts as refusal:
        return refusal.reason
    if end.left_known_ticks:
        return "?"
    counts = end.ticks_crossed, end.stops
    return Ended(end.amount_remaining, end.amount_calculated, end.fee, end.sqrt_price_x96, end.end_tick(), end.liquidity, *counts)


def by_steps(state: V3Pool, down: bool, amount: int, limit: int) -> Ended | str:
    try:
        return swap_by_steps(state, down, amount, limit)
    except Reverts as refusal:
        return refusal.reason
    except LeftKnownTicks:
        return "?"


def draw_limit(data: st.DataObject, state: V3Pool, down: bool) -> int:
    """No limit, one at the price of a stop or one beside it, or one anywhere."""
    last = price_limit(down)
    if data.draw(st.booleans()):
        return last
    word = 256 * state.tick_spacing
    border = (state.tick // word + data.draw(st.integers(-3, 3))) * word - (0 if down else state.tick_spacing)
    ticks = [tick for tick in (border, *(tick.index for tick in state.ticks)) if MIN_TICK < tick < MAX_TICK]
    nearby = st.integers(state.sqrt_price_x96 // 2, state.sqrt_price_x96 * 2)
    at_stops = st.sampled_from(ticks).map(get_sqrt_ratio_at_tick) if ticks else nearby
    limit = data.draw(st.one_of(at_stops, nearby)) + data.draw(st.sampled_from((-1, 0, 0, 1)))
    allowed = MIN_SQRT_RATIO < limit < state.sqrt_price_x96 if down else state.sqrt_price_x96 < limit < MAX_SQRT_RATIO
    return limit if allowed else last


def draw_amount(data: st.DataObject, state: V3Pool, down: bool, exact_in: bool, limit: int) -> int:
    """Any amount, or what leads exactly onto a price, and one beside it; negative for an output."""
    amount = data.draw(given_pools.amounts)
    goal = draw_limit(data, state, down)
    if data.draw(st.booleans()) and goal != price_limit(down):
        there = by_steps(state, down, 2**200, goal)
        if isinstance(there, Ended):
            amount = (2**200 - there.remaining if exact_in else there.calculated) + data.draw(st.sampled_from((-1, 0, 0, 1)))
    return max(amount, 1) if exact_in else -max(amount, 1)


@settings(max_examples=200)
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
        assert pools.quoter(state, TOKEN1)(cost) == onto.calculated
        assert swap(state, False, amount, price_limit(False)).end_tick() == tick


@settings(max_examples=100)
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


@settings(max_examples=200)
@given(some_pools, given_pools.tokens, st.data())
def test_a_quoter_says_what_the_swap_by_steps_pays_for_every_amount(state, token_in, data):
    down = token_in == TOKEN0
    assume(state.sqrt_price_x96 != price_limit(down))
    quote = pools.quoter(state, token_in)
    for _ in range(5):
        amount = draw_amount(data, state, down, True, price_limit(down))
        end = by_steps(state, down, amount, price_limit(down))
        if isinstance(end, Ended):
            assert quote(amount) == end.calculated
            continue
        with pytest.raises(BeyondKnownTicks if end == "?" else Reverts):
            quote(amount)


@given(given_pools.v2_pools(), given_pools.tokens, st.lists(st.one_of(given_pools.amounts, st.integers(0, 2**256)), max_size=5))
def test_a_quoter_of_a_pair_says_what_the_library_pays_and_refuses_what_it_refuses(state, token_in, amounts):
    quote = pools.quoter(state, token_in)
    for amount in amounts:
        try:
            paid = pools.quote_exact_in(state, token_in, amount)
        except Reverts as refusal:
            with pytest.raises(Reverts) as raised:
                quote(amount)
            assert str(raised.value) == str(refusal)
        else:
            assert quote(amount) == paid


def refusal_of(call) -> str:
    with pytest.raises(Refused) as refusal:
        call()
    return str(refusal.value)


@pytest.mark.parametrize("token_in", [TOKEN0, TOKEN1])
@pytest.mark.parametrize(
    ("state", "amount"),
    [
        (flat(), 0),
        (flat(), -1),
        (flat(), 2**255),
        (flat(known_from_tick=100, known_to_tick=200, ticks=()), 1),
        (flat(known_from_tick=-100, known_to_tick=100, ticks=()), 10**18),
        (flat(liquidity=5, ticks=flat(liquidity=6).ticks), 2**130),
    ],
)
def test_a_quoter_refuses_what_a_swap_refuses_in_the_same_words(state, amount, token_in):
    quote = pools.quoter(state, token_in)
    assert refusal_of(lambda: quote(amount)) == refusal_of(lambda: pools.swap_exact_in(state, token_in, amount))


@pytest.mark.parametrize(("price", "token_in"), [(MIN_SQRT_RATIO + 1, TOKEN0), (MAX_SQRT_RATIO - 1, TOKEN1)])
def test_a_quoter_at_the_end_of_the_price_range_refuses_what_a_swap_refuses(price, token_in):
    state = flat(sqrt_price_x96=price, tick=get_tick_at_sqrt_ratio(price), liquidity=0)
    assert "'SPL'" in refusal_of(lambda: pools.quoter(state, token_in)(1))


def test_a_quoter_of_an_empty_pair_refuses_as_the_library():
    quote = pools.quoter(V2Pool(POOL, "v2", TOKEN0, TOKEN1, 0, 5), TOKEN0)
    assert "INSUFFICIENT_LIQUIDITY" in refusal_of(lambda: quote(1))
    quote = pools.quoter(V2Pool(POOL, "v2", TOKEN0, TOKEN1, 5, 5), TOKEN0)
    assert "INSUFFICIENT_INPUT_AMOUNT" in refusal_of(lambda: quote(0))


def test_what_a_pool_takes_only_in_part_is_quoted_as_what_it_pays_for_that_part():
    quote = pools.quoter(flat(), TOKEN0)
    assert quote(10**30) == pools.swap_exact_in(flat(), TOKEN0, INT256_MAX).amount_out_raw == quote(10**40)


def test_a_tick_whose_crossing_reverts_bounds_what_the_pool_takes():
    state = flat(liquidity=10**18, ticks=flat(liquidity=2 * 10**18).ticks)  # more is to be taken off at -6000 than there is
    most = pools.max_in(state, TOKEN0, 9_999)
    assert pools.swap_exact_in(state, TOKEN0, most).after.tick == -6000
    with pytest.raises(Reverts):
        pools.swap_exact_in(state, TOKEN0, most + 1)


def test_in_the_widest_word_that_is_quoted_fast_the_contract_keeps_its_precise_formula():
    for spacing, precise in ((WIDEST_SPACING, True), (1735, False)):
        word = 256 * spacing
        high, low = get_sqrt_ratio_at_tick(word // 2), get_sqrt_ratio_at_tick(-word // 2)
        most_in = ((2**128 - 1 << 96) * (high - low)) // high // low  # getAmount0Delta over the whole word, full of liquidity
        assert ((2**128 - 1 << 96) + most_in * high < 2**256) is precise


def test_a_table_is_replaced_and_never_changed_so_that_threads_may_share_it():
    state = v3_pool([(-60 * i, 60 * i, 10**15) for i in range(1, 90)], Q96, 0)
    pools.swap_exact_in(state, TOKEN0, 10**15)
    [table] = tick_table(state.ticks).stops.values()
    before, copied = table.sums, tuple(tuple(part) if isinstance(part, tuple) else part for part in table.sums)
    pools.swap_exact_in(state, TOKEN0, 10**17)
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
    low = pools.swap_exact_in(state, TOKEN0, 8 * 10**15).after
    high = pools.swap_exact_in(state, TOKEN1, 8 * 10**15).after
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


def mainnet_pool() -> V3Pool:
    recorded = world.recorded_pool()
    ticks = tuple(TickLiquidity(index, net) for index, net in recorded.net_by_tick.items())
    state = flat(fee_pips=recorded.fee_pips, tick_spacing=recorded.tick_spacing, ticks=ticks)
    return replace(state, sqrt_price_x96=recorded.sqrt_price_x96, tick=recorded.tick, liquidity=recorded.liquidity)


def test_on_the_real_wbtc_weth_pool_every_quote_is_that_of_the_steps_and_without_word_borders_hundreds_are_wrong():
    """Even steps up to where the price has moved ten-thousandfold: near the price ticks lie so close that borders are ticks too."""
    state = mainnet_pool()
    without_borders = replace(state, tick_spacing=10**6)  # one word holds every tick
    wrong = asked = 0
    for token_in in (TOKEN0, TOKEN1):
        quote, down = pools.quoter(state, token_in), token_in == TOKEN0
        most = pools.max_in(state, token_in, 9_999)
        for part in range(1, 400):
            amount = most * part // 400 - part
            paid = swap_by_steps(state, down, amount, price_limit(down)).calculated
            assert quote(amount) == pools.swap_exact_in(state, token_in, amount).amount_out_raw == paid
            asked += 1
            wrong += swap_by_steps(without_borders, down, amount, price_limit(down)).calculated != paid
    assert (asked, wrong) == (798, 558)
