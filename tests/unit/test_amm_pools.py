"""Properties that every pool keeps: no free money, monotone, consistent both ways, bounds exact to one base unit."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.amm import pools, twap
from agent.amm.errors import BeyondKnownTicks, Reverts
from agent.amm.v3_math import bounds
from agent.amm.v3_math.tick_math import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, MIN_TICK, Q96, get_sqrt_ratio_at_tick
from agent.errors import ConfigError, Refused
from agent.model import V2Pool, V3Pool
from agent.units import PIPS
from tests.unit import amm_pools as given_pools
from tests.unit.amm_pools import POOL, TOKEN0, TOKEN1, v3_pool

impacts = st.one_of(st.integers(0, 500), st.integers(0, 10_000))


def swapped(state, token_in, amount):
    """The swap, or None where the contract reverts."""
    try:
        return pools.swap_exact_in(state, token_in, amount)
    except Reverts:
        return None


@given(given_pools.pools, given_pools.tokens, given_pools.amounts, given_pools.amounts)
def test_more_in_never_pays_less_nor_moves_the_price_less(state, token_in, a, b):
    small, large = swapped(state, token_in, min(a, b)), swapped(state, token_in, max(a, b))
    assume(small and large)
    assert small.amount_out_raw <= large.amount_out_raw
    assert pools.move_bps(state, small.after, token_in) <= pools.move_bps(state, large.after, token_in)


@given(given_pools.pools, given_pools.tokens, given_pools.amounts)
def test_there_and_back_never_ends_with_more(state, token_in, amount):
    there = swapped(state, token_in, amount)
    assume(there and there.amount_out_raw)
    back = swapped(there.after, pools.token_out(state, token_in), there.amount_out_raw)
    assert back is None or back.amount_out_raw <= there.amount_in_raw


@given(given_pools.pools, given_pools.tokens, given_pools.amounts, given_pools.amounts)
def test_two_swaps_never_pay_more_than_one_by_more_than_rounding(state, token_in, a, b):
    whole = swapped(state, token_in, a + b)
    first = swapped(state, token_in, a)
    assume(whole and first)
    second = swapped(first.after, token_in, b)
    assume(second)
    assert first.amount_out_raw + second.amount_out_raw <= whole.amount_out_raw + whole.steps + 1


@given(given_pools.pools, given_pools.tokens, given_pools.amounts)
def test_an_exact_output_gives_that_output_for_an_input_that_buys_it(state, token_in, amount_out):
    try:
        asked = pools.swap_exact_out(state, token_in, amount_out)
    except Reverts:
        return
    assert asked.amount_out_raw <= amount_out
    assume(asked.amount_out_raw == amount_out)
    given_in = swapped(state, token_in, asked.amount_in_raw)
    assert given_in.amount_out_raw >= amount_out
    assert given_in.amount_in_raw <= asked.amount_in_raw


@given(given_pools.pools, given_pools.tokens, given_pools.amounts)
def test_the_quote_without_a_state_is_the_swaps_output(state, token_in, amount):
    done = swapped(state, token_in, amount)
    assume(done)
    assert pools.quote_exact_in(state, token_in, amount) == done.amount_out_raw


@given(given_pools.pools, given_pools.tokens, given_pools.amounts)
def test_no_swap_pays_better_than_the_marginal_price_after_fee(state, token_in, amount):
    done = swapped(state, token_in, amount)
    assume(done)
    after_fee = pools.marginal_price(state, token_in) * Fraction(PIPS - pools.fee_pips(state), PIPS)
    assert done.amount_out_raw <= done.amount_in_raw * after_fee
    assert done.fee_raw * PIPS >= (done.amount_in_raw - done.steps) * pools.fee_pips(state) - PIPS


@given(given_pools.v3_pools(), given_pools.tokens, given_pools.amounts, st.booleans(), st.integers(1, 2**64))
def test_a_price_limit_is_never_passed_and_what_is_not_filled_stops_at_it(state, token_in, amount, exact_in, distance):
    down = token_in == TOKEN0
    limit = state.sqrt_price_x96 - distance if down else state.sqrt_price_x96 + distance
    assume(MIN_SQRT_RATIO < limit < MAX_SQRT_RATIO)
    done = (pools.swap_exact_in if exact_in else pools.swap_exact_out)(state, token_in, amount, limit)
    filled = done.amount_in_raw if exact_in else done.amount_out_raw
    reached = done.after.sqrt_price_x96
    assert reached >= limit if down else reached <= limit
    assert filled == amount or (filled < amount and reached == limit)


@given(given_pools.v3_pools(), given_pools.tokens, given_pools.amounts)
def test_the_tick_after_a_swap_is_that_of_its_price_or_one_below_a_crossed_one(state, token_in, amount):
    done = swapped(state, token_in, amount)
    assume(done)
    tick, price = done.after.tick, done.after.sqrt_price_x96
    at_border = price == get_sqrt_ratio_at_tick(tick + 1)
    assert at_border or get_sqrt_ratio_at_tick(tick) <= price < get_sqrt_ratio_at_tick(tick + 1)
    in_range = sum(t.liquidity_net for t in state.ticks if t.index <= tick)
    assert done.after.liquidity == in_range


@given(given_pools.pools, given_pools.tokens, impacts)
def test_max_in_is_the_last_input_within_the_impact_bound(state, token_in, impact_bps):
    most = pools.max_in(state, token_in, impact_bps)
    assert most >= 0
    if most and (done := swapped(state, token_in, most)):
        assert done.amount_in_raw == most
        assert pools.move_bps(state, done.after, token_in) <= impact_bps
    more = swapped(state, token_in, most + 1)
    if more:
        assert more.amount_in_raw <= most or pools.move_bps(state, more.after, token_in) > impact_bps


@given(given_pools.v3_pools(windowed=True), given_pools.tokens, impacts)
def test_max_in_stays_within_the_known_ticks(state, token_in, impact_bps):
    most = pools.max_in(state, token_in, impact_bps)
    if most:
        done = pools.swap_exact_in(state, token_in, most)
        assert done.amount_in_raw == most
        assert pools.move_bps(state, done.after, token_in) <= impact_bps
    try:
        more = pools.swap_exact_in(state, token_in, most + 1)
    except Refused:
        return
    assert more.amount_in_raw <= most or pools.move_bps(state, more.after, token_in) > impact_bps


def last_unit_rate(state, token_in, amount) -> Fraction:
    """What the pool pays for the next vanishing unit after `amount`, fee taken off."""
    kept = Fraction(PIPS - pools.fee_pips(state), PIPS)
    if isinstance(state, V2Pool):
        r_in, r_out = (state.reserve0, state.reserve1) if token_in == TOKEN0 else (state.reserve1, state.reserve0)
        return kept * r_in * r_out / (r_in + kept * amount) ** 2
    after = pools.swap_exact_in(state, token_in, amount).after if amount else state
    return kept * pools.marginal_price(after, token_in)


@given(given_pools.pools, given_pools.tokens, impacts, st.fractions(Fraction(1, 2), Fraction(11, 10), max_denominator=10**6))
def test_best_response_is_the_last_input_that_still_pays_the_price(state, token_in, impact_bps, share):
    price = pools.marginal_price(state, token_in) * share
    best, most = pools.best_response(state, token_in, price, impact_bps), pools.max_in(state, token_in, impact_bps)
    assert 0 <= best <= most
    if best:
        assert last_unit_rate(state, token_in, best) >= price
    if best < most:
        assert last_unit_rate(state, token_in, best + 1) < price
    if share > Fraction(PIPS - pools.fee_pips(state), PIPS):
        assert best == 0


@given(
    st.one_of(given_pools.v2_pools(), given_pools.v3_pools(moderate=True)),
    given_pools.tokens,
    st.fractions(Fraction(8, 10), 1, max_denominator=10**4),
    given_pools.amounts,
)
def test_no_other_input_within_the_bound_gains_more_at_that_price_but_for_rounding(state, token_in, share, other):
    price = pools.marginal_price(state, token_in) * share
    best, most = pools.best_response(state, token_in, price, 3000), pools.max_in(state, token_in, 3000)
    assume(0 < other <= most)

    def gain_and_steps(amount: int) -> tuple[Fraction, int]:
        done = swapped(state, token_in, amount) if amount else None
        return (done.amount_out_raw - price * done.amount_in_raw, done.steps) if done else (Fraction(0), 0)

    (best_gain, best_steps), (other_gain, other_steps) = gain_and_steps(best), gain_and_steps(other)
    assert other_gain <= best_gain + (best_steps + other_steps + 1) * (2 + 2 * price)


@given(given_pools.v3_pools(), given_pools.tokens, given_pools.amounts, st.data())
def test_a_quote_beyond_the_known_ticks_refuses_with_the_largest_that_it_can_quote(full, token_in, amount, data):
    reach = st.integers(0, 500 * full.tick_spacing)
    window = (max(MIN_TICK, full.tick - data.draw(reach)), min(MAX_TICK, full.tick + data.draw(reach)))
    known = tuple(t for t in full.ticks if window[0] <= t.index <= window[1])
    state = replace(full, ticks=known, known_from_tick=window[0], known_to_tick=window[1])
    for swap in (pools.swap_exact_in, pools.swap_exact_out):
        try:
            whole = swap(full, token_in, amount)
        except Reverts:
            continue
        try:
            assert swap(state, token_in, amount).amount_out_raw == whole.amount_out_raw
            continue
        except BeyondKnownTicks as refusal:
            largest, side = refusal.largest_raw, refusal.side
            assert refusal.verdicts[0].passed is False
        assert largest < amount
        assert side == ("in" if swap is pools.swap_exact_in else "out")
        if largest:
            quoted, truth = swap(state, token_in, largest), swap(full, token_in, largest)
            assert replace(truth, after=quoted.after) == quoted
            assert (quoted.after.sqrt_price_x96, quoted.after.tick) == (truth.after.sqrt_price_x96, truth.after.tick)
        with pytest.raises(BeyondKnownTicks):
            swap(state, token_in, largest + 1)


def flat(liquidity: int = 10**18, **changes) -> V3Pool:
    """One position over ±6,000 ticks at price 1."""
    return replace(v3_pool([(-6000, 6000, liquidity)], Q96, 0), **changes)


def test_a_swap_rounds_at_the_border_of_every_bitmap_word():
    stepped = flat(liquidity=10**9, tick_spacing=1, fee_pips=100)
    done = pools.swap_exact_in(stepped, TOKEN1, 10**7)
    assert (done.ticks_crossed, done.steps) == (0, 1)
    done = pools.swap_exact_in(stepped, TOKEN1, 10**8)
    assert done.ticks_crossed == 0
    assert done.steps == 1 + (done.after.tick + 1) // 256
    assert done.fee_raw > -(-(10**8) * 100 // 10**6), "every step rounds its own fee up"


def test_bounds_hold_where_the_contract_leaves_its_precise_formula():
    """A fall by a factor of 2^32 within one range takes products of more than 256 bits."""
    spacing = 16_383
    high = get_sqrt_ratio_at_tick(52 * spacing)
    state = v3_pool([(-50 * spacing, 54 * spacing, 2**120)], high, 52 * spacing, 50, spacing)
    goal = get_sqrt_ratio_at_tick(1)
    most = bounds.largest_in(state, True, goal)
    assert pools.swap_exact_in(state, TOKEN0, most).after.sqrt_price_x96 >= goal
    assert pools.swap_exact_in(state, TOKEN0, most + 1).after.sqrt_price_x96 < goal


def test_a_gap_without_liquidity_is_crossed_for_nothing():
    state = v3_pool([(-120, 60, 10**18), (6000, 6060, 10**18)], Q96, 0)
    done = pools.swap_exact_in(state, TOKEN1, 5 * 10**15)
    assert done.after.tick >= 6000
    assert done.ticks_crossed == 2
    assert done.after.liquidity == 10**18


def test_a_swap_that_empties_the_pool_fills_in_part_at_the_end_of_the_price_range():
    done = pools.swap_exact_in(flat(), TOKEN0, 10**30)
    assert done.amount_in_raw < 10**19
    assert (done.after.sqrt_price_x96, done.after.tick, done.after.liquidity) == (MIN_SQRT_RATIO + 1, MIN_TICK, 0)
    done = pools.swap_exact_out(flat(), TOKEN1, 10**30)
    assert done.amount_out_raw < 10**18
    assert (done.after.sqrt_price_x96, done.after.liquidity) == (MAX_SQRT_RATIO - 1, 0)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: pools.swap_exact_in(flat(), TOKEN0, 0), "AS"),
        (lambda: pools.swap_exact_in(flat(), TOKEN0, 2**255), ""),
        (lambda: pools.swap_exact_in(flat(), TOKEN0, 1, Q96), "SPL"),
        (lambda: pools.swap_exact_in(flat(), TOKEN0, 1, Q96 + 1), "SPL"),
        (lambda: pools.swap_exact_in(flat(), TOKEN0, 1, MIN_SQRT_RATIO), "SPL"),
        (lambda: pools.swap_exact_out(flat(), TOKEN1, 1, Q96 - 1), "SPL"),
        (lambda: pools.swap_exact_out(flat(), TOKEN1, 1, MAX_SQRT_RATIO), "SPL"),
        (lambda: pools.swap_exact_in(flat(liquidity=2**127, ticks=flat(liquidity=2**127 + 10**6).ticks), TOKEN0, 2**130), "LS"),
        (lambda: pools.swap_exact_in(V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10), TOKEN0, 1), "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT"),
        (lambda: pools.swap_exact_in(V2Pool(POOL, "v2", TOKEN0, TOKEN1, 2**111, 2**111), TOKEN0, 2**111), "UniswapV2: OVERFLOW"),
    ],
)
def test_what_the_pools_refuse_is_refused_with_their_reason(call, reason):
    with pytest.raises(Reverts) as refusal:
        call()
    assert refusal.value.reason == reason


def test_ticks_that_overflow_the_liquidity_revert():
    state = flat(liquidity=10**18, ticks=flat(liquidity=-(2**128)).ticks)
    with pytest.raises(Reverts, match="LA"):
        pools.swap_exact_in(state, TOKEN1, 2**130)


def test_a_pool_past_its_known_ticks_quotes_nothing():
    outside = flat(known_from_tick=100, known_to_tick=200, ticks=())
    for token in (TOKEN0, TOKEN1):
        assert pools.max_in(outside, token, 100) == 0
        assert pools.depth(outside, token) == 0
        for swap in (pools.swap_exact_in, pools.swap_exact_out):
            with pytest.raises(BeyondKnownTicks) as refusal:
                swap(outside, token, 1)
            assert refusal.value.largest_raw == 0


def test_a_foreign_token_is_refused_by_name():
    with pytest.raises(ConfigError, match="is not in pool"):
        pools.token_out(flat(), POOL)


def test_a_v2_pair_takes_no_price_limit():
    pair = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10**18)
    for swap in (pools.swap_exact_in, pools.swap_exact_out):
        with pytest.raises(ValueError, match="no price limit"):
            swap(pair, TOKEN0, 10**10, Q96)


def test_a_free_price_is_answered_up_to_the_impact_bound():
    for state in (flat(), V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10**18)):
        assert pools.best_response(state, TOKEN0, Fraction(0), 50) == pools.max_in(state, TOKEN0, 50) > 0


def test_without_an_impact_bound_a_pool_takes_what_its_contract_can_hold():
    pair = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 10**18, 10**18)
    assert pools.max_in(pair, TOKEN0, 10_000) == 2**112 - 1 - 10**18
    assert pools.max_in(replace(pair, reserve1=0), TOKEN0, 10_000) == 0
    assert pools.max_in(flat(), TOKEN1, 10_000) == pools.swap_exact_in(flat(), TOKEN1, 2**200).amount_in_raw


def test_depth_is_the_reserve_of_a_pair_and_what_a_v3_pool_holds_within_two_percent():
    pair = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 7, 9)
    assert (pools.depth(pair, TOKEN0), pools.depth(pair, TOKEN1)) == (7, 9)
    state = flat()
    assert abs(pools.depth(state, TOKEN1) / 10**18 - (1 - 0.98**0.5)) < 1e-12
    assert abs(pools.depth(state, TOKEN0) / 10**18 - (1 - 1.02**-0.5)) < 1e-12
    narrow = v3_pool([(-60, 60, 10**18)], Q96, 0)
    assert pools.depth(narrow, TOKEN0) == pools.swap_exact_out(narrow, TOKEN1, 10**30).amount_out_raw


def test_a_move_is_rounded_up_so_that_only_an_unmoved_pool_reads_zero():
    state = flat()
    assert pools.move_bps(state, state, TOKEN0) == 0
    moved = pools.swap_exact_in(state, TOKEN0, 10).after
    assert moved.sqrt_price_x96 < state.sqrt_price_x96
    assert pools.move_bps(state, moved, TOKEN0) == pools.move_bps(state, moved, TOKEN1) == 1


def test_the_time_weighted_price_is_the_ratio_at_the_mean_tick():
    state = flat(twap_tick=-100)
    assert twap.price(state, TOKEN0) == Fraction(get_sqrt_ratio_at_tick(-100) ** 2, 2**192)
    assert twap.price(state, TOKEN0) * twap.price(state, TOKEN1) == 1
    assert twap.price(state, TOKEN0) < 1
    with pytest.raises(Refused, match="time-weighted"):
        twap.price(flat(), TOKEN0)
