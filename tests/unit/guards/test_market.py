"""Guards on pools: impact, floors, depth and second quotes are measured by simulation, at the limit and one beyond."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import DIRECTION_BITS, V4Pool
from agent.guards.market import quote_source_text
from agent.model import Evidence, Plan, SecondQuote, StepInput
from agent.units import BPS
from tests.support.builders import address, raw, step_input, token, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.plans import Swap, evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.text import mentions

WETH, USDC = token("WETH"), token("USDC")


def two_pools() -> StepInput:
    return step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, fee_pips=3000)])


def sold(step: StepInput, *parts: tuple[int, Fraction | int]) -> Plan:
    """Sells WETH in the snapshot's pools: (pool number, whole WETH) each."""
    return plan_of(step, [Swap(step.snapshot.pools[number], WETH.address, raw(whole, WETH)) for number, whole in parts])


@given(number=st.integers(0, 1), impact_bps=st.integers(5, 300))
def test_impact_at_the_limit_passes_and_one_unit_of_input_more_fails(number: int, impact_bps: int) -> None:
    step = with_limits(two_pools(), price_impact_bps=impact_bps)
    pool = step.snapshot.pools[number]
    most = pool.max_in(WETH.address, impact_bps)
    at, beyond = (plan_of(step, [Swap(pool, WETH.address, amount)]) for amount in (most, most + 1))
    assert verdict("price_impact", step, at).passed
    refused = verdict("price_impact", step, beyond)
    assert (refused.passed, refused.measured_text) == (False, f"{impact_bps + 1} bps in {pool.address}")


def test_impact_adds_up_over_the_legs_of_one_pool() -> None:
    step = with_limits(two_pools(), price_impact_bps=100)
    half = step.snapshot.pools[0].max_in(WETH.address, 60)
    once, twice = (plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, half)] * times) for times in (1, 2))
    assert verdict("price_impact", step, once).measured_text.startswith("60 bps")
    assert verdict("price_impact", step, twice).measured_text.startswith("120 bps")
    assert not verdict("price_impact", step, twice).passed


def test_impact_in_two_pools_does_not_add_up() -> None:
    step = with_limits(two_pools(), price_impact_bps=60)
    amounts = [pool.max_in(WETH.address, 60) for pool in step.snapshot.pools]
    plan = plan_of(step, [Swap(pool, WETH.address, amount) for pool, amount in zip(step.snapshot.pools, amounts, strict=True)])
    assert verdict("price_impact", step, plan).passed


def test_impact_that_a_later_leg_takes_back_still_counts() -> None:
    step = with_limits(two_pools(), price_impact_bps=100)
    pool = step.snapshot.pools[0]
    push = Swap(pool, WETH.address, pool.max_in(WETH.address, 150))
    plan = plan_of(step, [push])
    back = plan_of(step, [push, Swap(pool, USDC.address, plan.legs[0].amount_out_raw)])
    assert not verdict("price_impact", step, back).passed


def test_impact_is_not_believed_from_the_plan() -> None:
    step = with_limits(two_pools(), price_impact_bps=10)
    plan = with_leg(sold(step, (0, 5)), 0, impact_bps=0)
    assert not verdict("price_impact", step, plan).passed


@given(whole=st.fractions(Fraction(1, 1000), 4), limit_bps=st.integers(0, 500))
def test_a_floor_exactly_at_the_slippage_limit_passes_and_one_base_unit_lower_fails(whole: Fraction, limit_bps: int) -> None:
    step = with_limits(two_pools(), slippage_bps=limit_bps)
    plan = sold(step, (0, whole))
    floor = plan.legs[0].amount_out_raw * (BPS - limit_bps) // BPS
    at, beyond = with_leg(plan, 0, min_out_raw=floor), with_leg(plan, 0, min_out_raw=floor - 1)
    assert verdict("slippage", step, at).passed
    assert int(verdict("slippage", step, at).measured_text.removesuffix(" bps")) <= limit_bps
    refused = verdict("slippage", step, beyond)
    assert not refused.passed
    assert int(refused.measured_text.removesuffix(" bps")) > limit_bps


def test_slippage_is_measured_against_the_simulation_not_the_plan_s_prediction() -> None:
    step = two_pools()
    plan = sold(step, (0, 1))
    low = plan.legs[0].amount_out_raw * 99 // 100
    lied = with_leg(plan, 0, amount_out_raw=low, min_out_raw=low)
    assert verdict("slippage", step, lied).measured_text == "100 bps"
    assert not verdict("slippage", step, lied).passed


@pytest.mark.parametrize(("floor", "says"), [(0, "no minimum output"), (-5, "no minimum output"), (10**18, "the pool pays")])
def test_a_floor_of_nothing_or_above_the_output_is_refused(floor: int, says: str) -> None:
    step = two_pools()
    found = verdict("slippage", step, with_leg(sold(step, (0, 1)), 0, min_out_raw=floor))
    assert (found.passed, says in found.measured_text) == (False, True)


def test_a_minimum_of_all_that_the_pool_pays_has_no_slippage() -> None:
    step = with_limits(two_pools(), slippage_bps=0)
    plan = sold(step, (0, 1))
    found = verdict("slippage", step, with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw))
    assert (found.passed, found.measured_text) == (True, "0 bps")


def skewed(by: Fraction) -> StepInput:
    """The pool pays `by` of the reference price: skewed before the snapshot (T1)."""
    return step_input(pools=[v2_pool(WETH, USDC, 2_000 * by)])


def test_the_fair_floor_does_not_follow_a_skewed_pool() -> None:
    step = skewed(Fraction(95, 100))
    plan = sold(step, (0, Fraction(1, 10)))
    low = with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw * 9_970 // BPS)
    assert verdict("slippage", step, low).passed
    assert not verdict("fair_floor", step, low).passed
    assert "reference requires" in verdict("fair_floor", step, low).measured_text


def test_a_minimum_exactly_at_the_fair_floor_passes_and_one_base_unit_lower_fails() -> None:
    step = two_pools()
    amount = raw(1, WETH)
    fair = 2_000 * 10**6 * (1 - Fraction(3, 1000) - Fraction(100, BPS)) * (1 - Fraction(30, BPS))
    floor = fair.numerator // fair.denominator
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, amount)])
    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=floor)).passed
    assert not verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=floor - 1)).passed


@pytest.mark.parametrize("off", ["slippage_bps", "price_impact_bps"])
def test_with_a_limit_off_a_minimum_of_one_is_all_that_the_fair_floor_asks(off: str) -> None:
    step = with_limits(two_pools(), **{off: None})
    plan = sold(step, (0, 1))
    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=1)).passed
    assert not verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=0)).passed


def test_the_fee_of_the_floor_is_the_pool_s_not_the_plan_s() -> None:
    step = two_pools()
    plan = sold(step, (0, 1))
    lied = with_leg(plan, 0, fee_pips=500_000, min_out_raw=900 * 10**6)
    assert not verdict("fair_floor", step, lied).passed


def test_the_fee_of_the_floor_is_that_of_the_swap_s_direction() -> None:
    """The protocol takes 0.1 % of USDC and nothing of WETH."""
    plain = v3_pool(WETH, USDC, 2_000, fee_pips=3000)
    state = {field.name: getattr(plain, field.name) for field in fields(V3Pool)}
    protocol_fee = 1_000 << (DIRECTION_BITS if plain.token1 == USDC.address else 0)
    step = step_input(pools=[V4Pool(**state, manager=address("manager"), protocol_fee=protocol_fee)])
    for sold_token, amount, fee_pips in ((WETH, 1, 3_000), (USDC, 2_000, 3_997)):
        plan = plan_of(step, [Swap(step.snapshot.pools[0], sold_token.address, raw(amount, sold_token))])
        bought = USDC if sold_token == WETH else WETH
        fair = raw(2_000 if bought == USDC else 1, bought) * (1 - Fraction(fee_pips, 10**6) - Fraction(100, BPS)) * (1 - Fraction(30, BPS))
        assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=int(fair))).passed
        assert not verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=int(fair) - 1)).passed


def test_pool_value_at_the_limit_passes_and_below_it_fails() -> None:
    step = two_pools()
    plan = sold(step, (0, Fraction(1, 10)))
    value = Fraction(2_000_000 * 10**6)
    assert verdict("pool_min_value", with_limits(step, pool_min_value=value), plan).passed
    assert not verdict("pool_min_value", with_limits(step, pool_min_value=value + Fraction(1, 10)), plan).passed


def test_the_shallowest_pool_decides_and_liquidity_far_from_the_price_does_not_count() -> None:
    step = two_pools()
    plan = sold(step, (0, Fraction(1, 10)), (1, Fraction(1, 10)))
    found = verdict("pool_min_value", step, plan)
    assert found.passed is False  # a full-range position of two million holds some 20,000 within two percent
    assert step.snapshot.pools[1].address in found.measured_text


def quoted(step: StepInput, plan: Plan, *outs: int | None) -> Evidence:
    return evidence(step, plan, second_quotes=tuple(SecondQuote(number, out, "" if out else "silent") for number, out in enumerate(outs)))


@given(limit_bps=st.integers(0, 300), sign=st.sampled_from([-1, 1]))
def test_a_second_quote_at_the_limit_passes_either_way_and_one_unit_beyond_fails(limit_bps: int, sign: int) -> None:
    step = with_limits(two_pools(), second_quote_deviation_bps=limit_bps)
    plan = sold(step, (0, 1))
    out = plan.legs[0].amount_out_raw
    off = out * limit_bps // BPS
    assert verdict("second_quote_deviation", step, plan, quoted(step, plan, out + sign * off)).passed
    assert not verdict("second_quote_deviation", step, plan, quoted(step, plan, out + sign * (off + 1))).passed


def test_the_worst_leg_decides_the_second_quote() -> None:
    step = two_pools()
    plan = sold(step, (0, 1), (1, 1))
    outs = [leg.amount_out_raw for leg in plan.legs]
    found = verdict("second_quote_deviation", step, plan, quoted(step, plan, outs[0], outs[1] * 98 // 100))
    assert (found.passed, found.measured_text[:3]) == (False, "200")


def test_a_leg_without_a_second_quote_is_refused_with_the_reason() -> None:
    step = two_pools()
    plan = sold(step, (0, 1), (1, 1))
    none = verdict("second_quote_deviation", step, plan, quoted(step, plan, plan.legs[0].amount_out_raw))
    assert not none.passed
    assert mentions(none.measured_text, "unknown", "leg 1")
    silent = verdict("second_quote_deviation", step, plan, quoted(step, plan, plan.legs[0].amount_out_raw, None))
    assert not silent.passed
    assert mentions(silent.measured_text, "unknown", "leg 1", "silent")


def test_a_pool_that_cannot_run_the_leg_is_named_with_its_reason() -> None:
    step = two_pools()
    plan = sold(step, (0, 1), (1, 1))
    known = replace(step.snapshot.pools[1], known_from_tick=-1, known_to_tick=1, ticks=())
    blind = with_snapshot(step, pools=(step.snapshot.pools[0], known))
    assert "leg 1: pool" in verdict("price_impact", blind, plan).measured_text
    empty = replace(step.snapshot.pools[0], reserve0=0, reserve1=0)
    assert (
        "INSUFFICIENT_LIQUIDITY" in verdict("price_impact", with_snapshot(step, pools=(empty, step.snapshot.pools[1])), plan).measured_text
    )


def test_legs_that_name_foreign_tokens_or_spend_nothing_cannot_be_simulated() -> None:
    step = two_pools()
    plan = sell_weth(step)
    foreign = with_leg(plan, 0, token_out=token("DAI").address)
    assert "not trade" in verdict("price_impact", step, foreign).measured_text
    for amount in (0, -1):
        assert "to spend" in verdict("price_impact", step, with_leg(plan, 0, amount_in_raw=amount)).measured_text


def test_a_pool_that_takes_only_a_part_or_pays_nothing_cannot_be_simulated() -> None:
    step = two_pools()
    all_known = replace(step.snapshot.pools[1], known_from_tick=-887_272, known_to_tick=887_272)
    step = with_snapshot(step, pools=(step.snapshot.pools[0], all_known))
    whole = with_leg(sold(step, (1, 1)), 0, amount_in_raw=10**40)
    assert "accepts only" in verdict("price_impact", step, whole).measured_text
    dust = with_leg(sold(step, (1, 1)), 0, amount_in_raw=1)
    assert "pays nothing" in verdict("price_impact", step, dust).measured_text


@pytest.mark.parametrize(
    ("sources", "text"),
    [
        ([("a", "b"), ("a", "b")], "a and b"),
        ([("a", "b"), ("a",), ("a",)], "a and b (1 of 3 swaps)"),
        ([("a",)], "a"),
        ([(), ()], ""),
        ([], ""),
    ],
)
def test_second_quote__names_who_quoted_how_many_swaps(sources: list[tuple[str, ...]], text: str) -> None:
    assert quote_source_text([SecondQuote(number, 1, sources=names) for number, names in enumerate(sources)]) == text
