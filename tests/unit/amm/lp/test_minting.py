"""Minting in exact integers: ranges on the spacing, amounts never above what was offered, and accounts that add up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.lp import minting, position_changes, positions
from agent.amm.v3.math import MAX_TICK, MIN_TICK
from agent.units import BPS
from tests.support.lp_worlds import price_at, v2, v3

spacings = st.sampled_from([1, 10, 60, 200])
ticks = st.integers(-800_000, 800_000)
amounts = st.integers(0, 10**30)


@given(ticks, st.integers(10, 100_000), spacings)
def test_range__holds_the_price_and_ends_on_the_spacing(tick: int, width_bps: int, spacing: int) -> None:
    ratio = price_at(tick)
    lower, upper = minting.range_around(ratio, width_bps, spacing)
    assert lower % spacing == upper % spacing == 0
    assert MIN_TICK <= lower < upper <= MAX_TICK
    low, high = minting.sqrt_price_range((lower, upper))
    assert low <= positions.sqrt_price_x96(ratio) < high
    wide = 1 + Fraction(width_bps, BPS)
    if lower - spacing >= MIN_TICK and upper + spacing <= MAX_TICK:
        assert low <= positions.sqrt_price_x96(ratio / wide)
        assert high >= positions.sqrt_price_x96(ratio * wide)
        assert minting.sqrt_price_range((lower + spacing, upper))[0] > positions.sqrt_price_x96(ratio / wide), (
            "no spacing wider than it has to be"
        )


@pytest.mark.parametrize("tick", [MIN_TICK, MAX_TICK - 1])
@pytest.mark.parametrize("spacing", [1, 60, 200])
def test_a_range_at_the_end_of_all_prices_stays_within_them(tick: int, spacing: int) -> None:
    lower, upper = minting.range_around(price_at(tick), 100_000, spacing)
    assert MIN_TICK <= lower < upper <= MAX_TICK
    assert lower % spacing == upper % spacing == 0


@given(ticks, st.integers(-5_000, 5_000), st.integers(1, 3_000), amounts, amounts)
def test_a_mint_never_takes_more_than_was_offered(tick: int, away: int, width: int, raw0: int, raw1: int) -> None:
    within = minting.sqrt_price_range((tick + away, tick + away + width))
    liquidity, taken = minting.provided_liquidity(None, positions.sqrt_price_x96(price_at(tick)), within, (raw0, raw1))
    assert taken[0] <= raw0
    assert taken[1] <= raw1
    assert liquidity >= 0


@given(ticks, st.integers(1, 3_000), st.integers(1, 10**30))
def test_what_was_minted_never_pays_more_than_it_took(tick: int, width: int, liquidity: int) -> None:
    lower = tick - width
    upper = tick + width
    taken = minting.mint_amounts(positions.sqrt_price_x96(price_at(tick)), minting.sqrt_price_range((lower, upper)), liquidity)
    paid = positions.principal(v3(lower, upper, liquidity, tick))
    assert all(0 <= more - less <= 1 for more, less in zip(taken, paid, strict=True))


def test_a_pair_takes_its_own_mix() -> None:
    pair = v2(0, 10**20, (10**22, 4 * 10**22), k_last=0)
    assert minting.provided_liquidity(pair, 0, None, (10**18, 10**20)) == (10**16, (10**18, 4 * 10**18))
    assert minting.provided_liquidity(pair, 0, None, (10**20, 4 * 10**18)) == (10**16, (10**18, 4 * 10**18))
    assert minting.provided_liquidity(None, 0, None, (1, 1)) == (0, (0, 0))


def test_a_pair_without_reserves_or_tokens_gives_nothing() -> None:
    assert minting.v2_mint_amounts((0, 5), (7, 7)) == (0, 0)
    assert minting.v2_liquidity(v2(0, 0, (5, 5), k_last=0), (5, 5)) == 0
    assert minting.v2_liquidity(v2(0, 10, (0, 5), k_last=0), (5, 5)) == 0


def test_more_than_the_contracts_can_hold_is_nothing() -> None:
    narrow = minting.sqrt_price_range((0, 1))
    assert minting.provided_liquidity(None, positions.sqrt_price_x96(price_at(0)), narrow, (2**120, 2**120)) == (0, (0, 0))
    fits, _ = minting.provided_liquidity(None, positions.sqrt_price_x96(price_at(0)), narrow, (2**112, 2**112))
    assert 0 < fits < 2**128
    assert minting.provided_liquidity(v2(0, 10**20, (2**111, 2**111), k_last=0), 0, None, (2**111, 2**111)) == (0, (0, 0))
    assert minting.provided_liquidity(v2(0, 10**20, (2**111, 2**111), k_last=0), 0, None, (2**111 - 1, 2**111 - 1))[0] > 0


def test_gifts_to_a_pair_go_to_whoever_mints_next() -> None:
    given_away = v2(0, 10**18, (10**18, 10**18), balances=(10**18 + 500, 10**18 + 500), k_last=0)
    assert minting.v2_liquidity(given_away, (1_000, 1_000)) == 1_500


def test_the_protocols_share_is_minted_before_ours() -> None:
    grown = v2(10**10, 10**10, (2 * 10**10, 2 * 10**10), k_last=10**20, has_protocol_fee=True)
    supply = 10**10 + positions.v2_protocol_mint(grown)
    assert minting.v2_liquidity(grown, (10**10, 10**10)) == supply // 2
    after = position_changes.after_provision(grown, supply // 2, (10**10, 10**10))
    assert (after.total_supply, after.k_last) == (supply + supply // 2, 9 * 10**20)  # type: ignore[union-attr]  # a pair stays a pair


@given(st.integers(1, 10**18), st.integers(10**6, 10**24), st.integers(10**6, 10**24))
def test_a_pair_that_is_left_holds_what_it_did_not_pay(liquidity: int, reserve0: int, reserve1: int) -> None:
    before = v2(10**18, 10**19, (reserve0, reserve1), k_last=0)
    paid = positions.v2_burn(before, liquidity)
    after = position_changes.after_withdrawal(before, liquidity)
    assert (after.liquidity, after.total_supply) == (10**18 - liquidity, 10**19 - liquidity)  # type: ignore[union-attr]  # a pair stays a pair
    assert after.balances == (reserve0 - paid[0], reserve1 - paid[1])  # type: ignore[union-attr]  # a pair stays a pair


def earned() -> dict[str, object]:
    """Growth of 7,000 and 9,000 per 2^128, of which the range has all."""
    grown = (7_000, 9_000)
    return {"growth_global_x128": grown, "liquidity": 2**128 // 1_000, "core_liquidity": 2**128 // 500}


def test_collected_fees__are_not_collected_again() -> None:
    before = v3(**earned())
    after = position_changes.after_collect(before)
    assert positions.uncollected_fees(before) == (6, 8)
    assert positions.uncollected_fees(after) == (0, 0)
    assert after.liquidity == before.liquidity
    assert position_changes.after_collect(after) == after


def test_taking_out_a_part_leaves_the_rest_without_fees() -> None:
    before = v3(**earned())
    after = position_changes.after_withdrawal(before, before.liquidity // 4)
    assert after.liquidity == before.liquidity - before.liquidity // 4
    assert positions.uncollected_fees(after) == (0, 0)


def test_putting_more_in_keeps_the_fees_earned_before() -> None:
    before = v3(**earned())
    after = position_changes.after_provision(before, 10**20, (1, 1))
    assert after.liquidity == before.liquidity + 10**20
    assert positions.uncollected_fees(after) == positions.uncollected_fees(before)
