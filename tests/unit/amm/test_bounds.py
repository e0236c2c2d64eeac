"""How much a pool can take: max_in, best_response, depth and the known ticks, exact to one base unit."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.amm import pools
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.amm.v2_pool import V2Pool
from agent.amm.v3 import pool_swap
from agent.amm.v3.math import MAX_TICK, MIN_SQRT_RATIO, MIN_TICK, Q96, get_sqrt_ratio_at_tick
from agent.errors import Refused
from agent.units import PIPS
from tests.support import amm_pools
from tests.support.amm_pools import POOL, TOKEN0, TOKEN1, flat, swap_result, v3_pool

impacts = st.one_of(st.integers(0, 500), st.integers(0, 10_000))


@given(st.integers(1, 2**128), st.integers(1, 2**128))
@example(1, 1)
@example(1, 4)
@example(9, 1)
@example(1, 2**192)
@example(1, 2**193)
def test_bounds_of_a_price_are_the_nearest_roots_on_their_side(numerator, denominator):
    """Squares in units of 2^-192: the least root at or above the price, the greatest at or below it."""
    price = numerator << 192
    least = pool_swap.min_sqrt_price_x96(numerator, denominator)
    greatest = pool_swap.max_sqrt_price_x96(numerator, denominator)
    assert (least - 1) ** 2 * denominator < price <= least**2 * denominator
    assert greatest**2 * denominator <= price < (greatest + 1) ** 2 * denominator


@given(amm_pools.pools, amm_pools.tokens, impacts)
def test_max_in_is_the_last_input_within_the_impact_bound(state, token_in, impact_bps):
    most = state.max_in(token_in, impact_bps)
    assert most >= 0
    if most and (done := swap_result(state, token_in, most)):
        assert done.amount_in_raw == most
        assert pools.price_move_bps(state, done.pool_after, token_in) <= impact_bps
    more = swap_result(state, token_in, most + 1)
    if more:
        assert more.amount_in_raw <= most or pools.price_move_bps(state, more.pool_after, token_in) > impact_bps


@given(amm_pools.v3_pools(windowed=True), amm_pools.tokens, impacts)
def test_max_in_stays_within_the_known_ticks(state, token_in, impact_bps):
    most = state.max_in(token_in, impact_bps)
    if most:
        done = state.swap(token_in, most)
        assert done.amount_in_raw == most
        assert pools.price_move_bps(state, done.pool_after, token_in) <= impact_bps
    try:
        more = state.swap(token_in, most + 1)
    except Refused:
        return
    assert more.amount_in_raw <= most or pools.price_move_bps(state, more.pool_after, token_in) > impact_bps


def last_unit_rate(state, token_in, amount) -> Fraction:
    """What the pool pays for the next vanishing unit after `amount`, fee taken off."""
    after_fee = Fraction(PIPS - state.fee_pips, PIPS)
    if isinstance(state, V2Pool):
        r_in, r_out = (state.reserve0, state.reserve1) if token_in == TOKEN0 else (state.reserve1, state.reserve0)
        return after_fee * r_in * r_out / (r_in + after_fee * amount) ** 2
    after = state.swap(token_in, amount).pool_after if amount else state
    return after_fee * pools.marginal_price(after, token_in)


@given(amm_pools.pools, amm_pools.tokens, impacts, st.fractions(Fraction(1, 2), Fraction(11, 10), max_denominator=10**6))
def test_best_response__is_the_last_input_that_pays_the_price(state, token_in, impact_bps, share):
    price = pools.marginal_price(state, token_in) * share
    best = state.best_amount_in(token_in, price, impact_bps)
    most = state.max_in(token_in, impact_bps)
    assert 0 <= best <= most
    if best:
        assert last_unit_rate(state, token_in, best) >= price
    if best < most:
        assert last_unit_rate(state, token_in, best + 1) < price
    if share > Fraction(PIPS - state.fee_pips, PIPS):
        assert best == 0


@given(
    st.one_of(amm_pools.v2_pools(), amm_pools.v3_pools(moderate=True)),
    amm_pools.tokens,
    st.fractions(Fraction(8, 10), 1, max_denominator=10**4),
    amm_pools.amounts,
)
def test_input_within_the_bound__gains_no_more_but_for_rounding(state, token_in, share, other):
    price = pools.marginal_price(state, token_in) * share
    best = state.best_amount_in(token_in, price, 3000)
    most = state.max_in(token_in, 3000)
    assume(0 < other <= most)

    def gain_and_steps(amount: int) -> tuple[Fraction, int]:
        done = swap_result(state, token_in, amount) if amount else None
        return (done.amount_out_raw - price * done.amount_in_raw, done.stop_count) if done else (Fraction(0), 0)

    best_gain, best_steps = gain_and_steps(best)
    other_gain, other_steps = gain_and_steps(other)
    assert other_gain <= best_gain + (best_steps + other_steps + 1) * (2 + 2 * price)


@given(amm_pools.v3_pools(), amm_pools.tokens, amm_pools.amounts, st.data())
def test_quote_beyond_known_ticks__refuses_with_the_largest(full, token_in, amount, data):
    reach = st.integers(0, 500 * full.tick_spacing)
    window = (max(MIN_TICK, full.tick - data.draw(reach)), min(MAX_TICK, full.tick + data.draw(reach)))
    known = tuple(t for t in full.ticks if window[0] <= t.index <= window[1])
    state = replace(full, ticks=known, known_from_tick=window[0], known_to_tick=window[1])
    try:
        whole = full.swap(token_in, amount)
    except ContractRevert:
        return
    try:
        assert state.swap(token_in, amount).amount_out_raw == whole.amount_out_raw
        return
    except BeyondKnownTicks as refusal:
        largest = refusal.largest_raw
        assert refusal.verdicts[0].passed is False
    assert largest < amount
    if largest:
        quoted = state.swap(token_in, largest)
        truth = full.swap(token_in, largest)
        assert replace(truth, pool_after=quoted.pool_after) == quoted
        assert (quoted.pool_after.sqrt_price_x96, quoted.pool_after.tick) == (truth.pool_after.sqrt_price_x96, truth.pool_after.tick)
    with pytest.raises(BeyondKnownTicks):
        state.swap(token_in, largest + 1)


def test_bounds__hold_where_the_contract_leaves_its_formula():
    """A fall by a factor of 2^32 within one range takes products of more than 256 bits."""
    spacing = 16_383
    high = get_sqrt_ratio_at_tick(52 * spacing)
    state = v3_pool([(-50 * spacing, 54 * spacing, 2**120)], high, 52 * spacing, 50, spacing)
    goal = get_sqrt_ratio_at_tick(1)
    most = pool_swap.largest_in(state, True, goal)
    assert state.swap(TOKEN0, most).pool_after.sqrt_price_x96 >= goal
    assert state.swap(TOKEN0, most + 1).pool_after.sqrt_price_x96 < goal


def test_a_pool_past_its_known_ticks_quotes_nothing():
    outside = flat(known_from_tick=100, known_to_tick=200, ticks=())
    for token in (TOKEN0, TOKEN1):
        assert outside.max_in(token, 100) == 0
        assert outside.depth(token) == 0
        with pytest.raises(BeyondKnownTicks) as refusal:
            outside.swap(token, 1)
        assert refusal.value.largest_raw == 0


def test_a_free_price_is_answered_up_to_the_impact_bound():
    for state in (flat(), V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10**18)):
        assert state.best_amount_in(TOKEN0, Fraction(0), 50) == state.max_in(TOKEN0, 50) > 0


def test_unbounded_pool__takes_what_its_contract_can_hold():
    pair = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10**18)
    assert pair.max_in(TOKEN0, 10_000) == 2**112 - 1 - 10**18
    for impact_bps in (50, 10_000):
        assert replace(pair, reserve1=0).max_in(TOKEN0, impact_bps) == 0
        assert replace(pair, reserve0=0).max_in(TOKEN0, impact_bps) == 0
    assert replace(pair, reserve0=2**112 - 11).max_in(TOKEN0, 1) == 10
    assert flat().max_in(TOKEN1, 10_000) == flat().swap(TOKEN1, 2**200).amount_in_raw


def test_depth__is_a_pair_s_reserve_or_two_percent_of_v3():
    pair = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 7, 9)
    assert (pair.depth(TOKEN0), pair.depth(TOKEN1)) == (7, 9)
    state = flat()
    assert abs(state.depth(TOKEN1) / 10**18 - (1 - 0.98**0.5)) < 1e-12
    assert abs(state.depth(TOKEN0) / 10**18 - (1 - 1.02**-0.5)) < 1e-12
    empty = flat(sqrt_price_x96=MIN_SQRT_RATIO + 1, tick=MIN_TICK, liquidity=0)
    assert (empty.depth(TOKEN0), empty.depth(TOKEN1)) == (0, 0)
    narrow = v3_pool([(-60, 60, 10**18)], Q96, 0)
    assert narrow.depth(TOKEN0) == narrow.swap(TOKEN1, 10**60).amount_out_raw


@pytest.mark.parametrize(
    ("known", "impact_bps", "ends"),
    [
        pytest.param((-100, 100), 99, False, id="a tick before the bound"),
        pytest.param((-100, 100), 100, True, id="at the bound"),
        pytest.param((MIN_TICK, MAX_TICK), 9_999, False, id="whole range"),
    ],
)
def test_ticks_read__end_where_the_impact_bound_is_beyond_them(known, impact_bps, ends):
    """1.0001 ** 100 is 1.01005: the price of what is sold falls by 99.5 bps until there, whichever way."""
    state = flat(known_from_tick=known[0], known_to_tick=known[1], ticks=())
    assert [state.exceeds_known_ticks(token, impact_bps) for token in (TOKEN0, TOKEN1)] == [ends, ends]
