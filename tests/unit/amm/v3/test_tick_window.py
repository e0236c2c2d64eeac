"""Where the ticks read end: said exactly where knowing more would let a pool take more, and deepened only by the same pool."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v3.math import MAX_TICK, MIN_TICK
from agent.amm.v3.pool import V3Pool
from agent.chain.lens import PAGE_BYTES, CallStatus, V3Answer
from agent.chain.pools.reading import MAX_TICK as LENS_MAX_TICK
from agent.chain.pools.reading import PoolRef, V3Reader, deep_pool_item, with_deeper_ticks
from agent.errors import Retryable
from agent.model import Leg, LegPlace
from agent.planning.rounding import pools_out_of_ticks
from agent.reference.floors import UNBOUNDED_BPS
from tests.support.amm_pools import POOL, TOKEN0, TOKEN1, tokens, v3_pools
from tests.support.text import raises_code

impacts = st.sampled_from([1, 50, 200, 1_000, 5_000, UNBOUNDED_BPS])


def narrowed(whole: V3Pool, below: int, above: int) -> V3Pool:
    low = max(MIN_TICK, whole.tick - below)
    high = min(MAX_TICK, whole.tick + above)
    ticks = tuple(tick for tick in whole.ticks if low <= tick.index <= high)
    return replace(whole, ticks=ticks, known_from_tick=low, known_to_tick=high)


@given(v3_pools(moderate=True), st.integers(0, 20_000), st.integers(0, 20_000), tokens, impacts)
def test_where_the_ticks_do_not_end_more_of_them_change_nothing(whole: V3Pool, below: int, above: int, token: str, impact_bps: int) -> None:
    pool = narrowed(whole, below, above)
    assert not whole.exceeds_known_ticks(token, impact_bps)
    if not pool.exceeds_known_ticks(token, impact_bps):
        assert pool.max_in(token, impact_bps) == whole.max_in(token, impact_bps)


def leg(token_in: str, amount_raw: int) -> Leg:
    token_out = TOKEN1 if token_in == TOKEN0 else TOKEN0
    return Leg(POOL, "uniswap_v3", token_in, token_out, 3_000, amount_raw, 1, 1, 0, 0, LegPlace.WALLET, LegPlace.WALLET)


@given(v3_pools(moderate=True), tokens, impacts)
def test_legs_are_at_the_end_only_where_they_fill_what_is_known(whole: V3Pool, token: str, impact_bps: int) -> None:
    pool = narrowed(whole, 300, 300)
    most = pool.max_in(token, impact_bps)
    if most > 10_000 and pool.exceeds_known_ticks(token, impact_bps):
        halves = [leg(token, most // 2), leg(token, most - most // 2)]
        assert pools_out_of_ticks({POOL: pool}, halves, impact_bps) == (POOL,)
        assert pools_out_of_ticks({POOL: pool}, halves[:1], impact_bps) == ()
    assert pools_out_of_ticks({POOL: whole}, [leg(token, most)], impact_bps) == ()
    assert pools_out_of_ticks({}, [leg(token, most)], impact_bps) == ()


def answer(pool: V3Pool) -> V3Answer:
    ticks = tuple((tick.index, tick.liquidity_net) for tick in pool.ticks)
    return V3Answer(pool.sqrt_price_x96, pool.tick, pool.liquidity, pool.known_from_tick, pool.known_to_tick, ticks, None)


@given(v3_pools(moderate=True), st.integers(0, 5_000))
def test_a_pool_is_deepened_to_what_was_read_at_its_block(whole: V3Pool, window: int) -> None:
    narrow = narrowed(whole, window, window)
    assert with_deeper_ticks(narrow, answer(whole)) == whole
    assert with_deeper_ticks(whole, answer(narrow)) == whole
    assert with_deeper_ticks(narrow, CallStatus.UNREAD) == narrow


def test_a_pool_that_is_another_at_its_own_block_is_refused() -> None:
    whole = V3Pool(POOL, "uniswap_v3", TOKEN0, TOKEN1, 3_000, 60, 2**96, 0, 10**18, (), MIN_TICK, MAX_TICK)
    narrow = narrowed(whole, 100, 100)
    for other in ({"sqrt_price_x96": 2**96 + 1}, {"liquidity": 1}, {"tick": 1}, {"ticks": ((60, 5),)}):
        with raises_code(Retryable, "block_changed"):
            with_deeper_ticks(narrow, replace(answer(whole), **other))  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [1, 10, 60, 200, 16_383])
def test_what_is_asked_for_fits_one_answer_of_a_call(spacing: int) -> None:
    item = deep_pool_item(PoolRef(POOL, "uniswap_v3", V3Reader(), TOKEN0, TOKEN1, 500, spacing))
    assert item.max_bytes() <= PAGE_BYTES - 64
    assert item.likely_gas < 16_000_000
    assert item.window_ticks >= (2 * LENS_MAX_TICK if spacing >= 14 else 92_108), "a fall of the price to a ten-thousandth"
