"""Amounts of positions: fees in the contracts' modular arithmetic, prices from outside, gifts that do not count."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.lp import positions
from agent.errors import Refused
from agent.model import LpV3Position
from tests.support.lp_worlds import TOKENS, gone, price_at, redeemable_amounts, v2, v3
from tests.support.text import raises_code

Q128 = 2**128
WRAP = 2**256
ONE = Fraction(1)
amounts = st.integers(10**6, 10**30)
ticks = st.integers(-800_000, 800_000)


def test_a_pair_pays_its_balances_by_share() -> None:
    assert positions.v2_burn(v2(10**18, 10**20, (10**22, 4 * 10**22))) == (10**20, 4 * 10**20)
    assert positions.v2_burn(v2(3, 7, (100, 1_000))) == (42, 428)
    assert positions.v2_burn(v2(), 10**17) == (10**19, 4 * 10**19)


def test_the_protocols_share_is_minted_first() -> None:
    """√k grew from 200 to 220: of 10^20 LP tokens it mints 10^20·20/(5·220 + 200)."""
    grown = v2(10**19, 10**20, (220, 220), k_last=200 * 200, has_protocol_fee=True)
    minted = 10**20 * 20 // 1300
    assert positions.v2_protocol_mint(grown) == minted
    assert positions.v2_burn(grown) == (220 * 10**19 // (10**20 + minted),) * 2


@pytest.mark.parametrize(
    "changes",
    [{"has_protocol_fee": False}, {"k_last": 0}, {"k_last": 220 * 220}, {"k_last": 300 * 300}],
    ids=["no feeTo", "feeTo since the last mint", "no growth", "shrunk"],
)
def test_no_protocol_share_is_minted_without_feeto_or_growth(changes: dict[str, object]) -> None:
    assert positions.v2_protocol_mint(v2(10**19, 10**20, (220, 220), **({"k_last": 200 * 200, "has_protocol_fee": True} | changes))) == 0


@pytest.mark.parametrize("position", [v2(0), v2(1, 10**20, (10, 10)), v2(5, 0, (0, 0)), v2(1, 10, (1, 10**9))])
def test_a_burn_that_the_pair_would_refuse_pays_nothing(position: object) -> None:
    assert redeemable_amounts(position) == (0, 0)  # type: ignore[arg-type]  # parametrize erases the type


@given(st.integers(1, 10**20), amounts, amounts)
def test_the_burn_never_pays_more_than_the_share(liquidity: int, reserve0: int, reserve1: int) -> None:
    paid = positions.v2_burn(v2(liquidity, 10**20, (reserve0, reserve1), k_last=0))
    for raw, reserve in zip(paid, (reserve0, reserve1), strict=True):
        assert raw <= Fraction(reserve * liquidity, 10**20)


def test_position__holds_both_tokens_in_range_and_one_outside() -> None:
    assert all(positions.principal(v3(tick=0)))
    below = positions.principal(v3(tick=-7_000))
    above = positions.principal(v3(tick=7_000))
    assert below[0] > 0 == below[1]
    assert above[1] > 0 == above[0]
    assert positions.principal(v3(tick=-7_000)) == positions.principal(v3(tick=-6_001)) == positions.principal(v3(tick=-6_000))


@given(ticks, ticks, ticks, st.integers(1, 2**100))
def test_two_parts__pay_the_whole_but_for_a_unit(first_tick: int, other_tick: int, tick: int, liquidity: int) -> None:
    lower = min(first_tick, other_tick)
    upper = max(first_tick, other_tick) + 60
    whole = positions.principal(v3(lower, upper, liquidity, tick))
    part = positions.principal(v3(lower, upper, liquidity, tick), liquidity // 3)
    rest = positions.principal(v3(lower, upper, liquidity, tick), liquidity - liquidity // 3)
    for raw, first, second in zip(whole, part, rest, strict=True):
        assert 0 <= raw - first - second <= 1


def fees(tick: int, **changes: object) -> LpV3Position:
    """7 and 9 units of growth per 2^128 inside since the last look, over a liquidity of 2^128 / 1000."""
    grown: dict[str, object] = {"growth_global_x128": (7_000, 9_000), "liquidity": Q128 // 1_000, "core_liquidity": Q128 // 1_000}
    return v3(-60, 60, tick=tick, **(grown | changes))


def test_growth_inside_is_all_growth_less_what_was_outside() -> None:
    outside: dict[str, object] = {"growth_outside_lower_x128": (1_000, 2_000), "growth_outside_upper_x128": (500, 250)}
    assert positions.growth_inside_x128(fees(0, **outside)) == (5_500, 6_750)
    assert positions.growth_inside_x128(fees(-61, **outside)) == (500, 1_750)
    assert positions.growth_inside_x128(fees(60, **outside)) == ((500 - 1_000) % WRAP, (250 - 2_000) % WRAP)
    assert positions.uncollected_fees(fees(0, **outside)) == (5, 6)


def test_growth_that_wrapped_around_still_counts() -> None:
    position = fees(0, growth_global_x128=(3_000, 1_000), inside_last_x128=(WRAP - 4_000, 0), core_inside_last_x128=(WRAP - 4_000, 0))
    assert positions.uncollected_fees(position) == (6, 0)


def test_fees_come_on_top_of_those_already_owed() -> None:
    assert positions.uncollected_fees(fees(0, owed=(10, 20), core_owed=(10, 20))) == (16, 28)


def test_pool__pays_no_more_than_its_range_holds() -> None:
    """Two tokens of one range share the pool's account, whose roundings add up."""
    assert positions.uncollected_fees(fees(0, owed=(10, 20), core_owed=(9, 20))) == (15, 28)


def test_without_liquidity_only_what_is_owed_is_left() -> None:
    spent = fees(0, liquidity=0, owed=(11, 0), core_owed=(11, 5), core_liquidity=Q128 // 1_000)
    assert redeemable_amounts(spent) == (11, 0)
    assert positions.principal(spent) == (0, 0)
    assert redeemable_amounts(gone()) == (0, 0)


@given(ticks, st.integers(-6_500, 6_500), st.integers(10**10, 10**30))
def test_reference__changes_nothing_at_the_pool_s_own_price(pushed: int, tick: int, liquidity: int) -> None:
    here = v3(liquidity=liquidity, tick=tick)
    there = v3(liquidity=liquidity, tick=pushed)
    assert positions.amounts_at_reference(here, price_at(tick), ONE) == positions.principal(here)
    assert positions.amounts_at_reference(there, price_at(tick), ONE) == positions.principal(here)


@given(st.integers(10**9, 10**14), st.fractions(Fraction(1, 100), 100))
def test_a_pushed_pair_stands_for_what_it_stood_for_before(root: int, push: Fraction) -> None:
    """Reserves (r·m², r·n²) of one product, whatever the push: at the reference the share holds r·m·n of both."""
    m = push.numerator
    n = push.denominator
    pair = v2(10**20, 10**20, (root * m * m, root * n * n), k_last=0)
    assert positions.amounts_at_reference(pair, ONE, ONE) == (root * m * n,) * 2
    assert positions.principal(pair) == (root * m * m, root * n * n)


def test_tokens_sent_to_a_pair__are_burnable_but_do_not_count() -> None:
    plain = v2(10**19)
    gifted = v2(10**19, balances=(2 * 10**22, 9 * 10**22))
    assert positions.principal(gifted) == (2 * 10**21, 9 * 10**21)
    assert positions.owned_amounts(gifted, ONE, ONE) == positions.owned_amounts(plain, ONE, ONE) == (isqrt(4 * 10**42),) * 2


def test_a_pair_that_lost_tokens_counts_what_is_left() -> None:
    assert positions.owned_amounts(v2(10**20, 10**20, (10**22, 10**22), balances=(10**20, 10**22)), ONE, ONE) == (10**21,) * 2


def test_positions_add_up_by_token() -> None:
    prices = dict.fromkeys(TOKENS, ONE)
    look_through = positions.look_through([v2(10**20, 10**20, (50, 50)), v3(tick=0), gone()], prices)
    assert look_through == {token: 50 + raw for token, raw in zip(TOKENS, positions.principal(v3(tick=0)), strict=True)}
    assert positions.look_through([], {}) == {}


@pytest.mark.parametrize("price", [Fraction(0), Fraction(-1)])
def test_a_price_that_is_not_positive_is_refused_by_name(price: Fraction) -> None:
    for position in (v2(), v3()):
        with raises_code(Refused, "reference_price", position.name):
            positions.owned_amounts(position, price, ONE)


def test_a_missing_price_is_refused_by_name() -> None:
    with raises_code(Refused, "reference_price", "uniswap_v3 #42"):
        positions.look_through([v3()], {TOKENS[0]: ONE})


@pytest.mark.parametrize("ratio", [Fraction(1, 10**60), Fraction(10**60)])
def test_a_price_beyond_all_ticks_leaves_one_token(ratio: Fraction) -> None:
    amounts = positions.amounts_at_reference(v3(), ratio, ONE)
    assert sorted(raw > 0 for raw in amounts) == [False, True]
