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


def weth_sales(step: StepInput, *sales: tuple[int, Fraction | int]) -> Plan:
    """Sells WETH in the snapshot's pools: (pool number, whole WETH) each."""
    return plan_of(step, [Swap(step.snapshot.pools[number], WETH.address, raw(weth_amount, WETH)) for number, weth_amount in sales])


@given(number=st.integers(0, 1), impact_bps=st.integers(5, 300))
def test_impact_at_the_limit_passes_and_one_unit_of_input_more_fails(number: int, impact_bps: int) -> None:
    step = with_limits(two_pools(), price_impact_bps=impact_bps)
    pool = step.snapshot.pools[number]
    largest_raw = pool.max_in(WETH.address, impact_bps)
    plan_at_limit, plan_beyond = (plan_of(step, [Swap(pool, WETH.address, amount)]) for amount in (largest_raw, largest_raw + 1))
    assert verdict("price_impact", step, plan_at_limit).passed
    judged = verdict("price_impact", step, plan_beyond)
    assert (judged.passed, judged.measured_text) == (False, f"{impact_bps + 1} bps in {pool.address}")


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
    push_swap = Swap(pool, WETH.address, pool.max_in(WETH.address, 150))
    plan = plan_of(step, [push_swap])
    push_and_return = plan_of(step, [push_swap, Swap(pool, USDC.address, plan.legs[0].amount_out_raw)])
    assert not verdict("price_impact", step, push_and_return).passed


def test_impact_is_not_believed_from_the_plan() -> None:
    step = with_limits(two_pools(), price_impact_bps=10)
    plan = with_leg(weth_sales(step, (0, 5)), 0, impact_bps=0)
    assert not verdict("price_impact", step, plan).passed


@given(weth_amount=st.fractions(Fraction(1, 1000), 4), limit_bps=st.integers(0, 500))
def test_a_floor_exactly_at_the_slippage_limit_passes_and_one_base_unit_lower_fails(weth_amount: Fraction, limit_bps: int) -> None:
    step = with_limits(two_pools(), slippage_bps=limit_bps)
    plan = weth_sales(step, (0, weth_amount))
    floor = plan.legs[0].amount_out_raw * (BPS - limit_bps) // BPS
    plan_at_limit, plan_beyond = with_leg(plan, 0, min_out_raw=floor), with_leg(plan, 0, min_out_raw=floor - 1)
    assert verdict("slippage", step, plan_at_limit).passed
    assert int(verdict("slippage", step, plan_at_limit).measured_text.removesuffix(" bps")) <= limit_bps
    judged = verdict("slippage", step, plan_beyond)
    assert not judged.passed
    assert int(judged.measured_text.removesuffix(" bps")) > limit_bps


def test_slippage_is_measured_against_the_simulation_not_the_plan_s_prediction() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, 1))
    low_plan = plan.legs[0].amount_out_raw * 99 // 100
    plan_with_prediction = with_leg(plan, 0, amount_out_raw=low_plan, min_out_raw=low_plan)
    assert verdict("slippage", step, plan_with_prediction).measured_text == "100 bps"
    assert not verdict("slippage", step, plan_with_prediction).passed


@pytest.mark.parametrize(("floor", "reason"), [(0, "no minimum output"), (-5, "no minimum output"), (10**18, "the pool pays")])
def test_a_floor_of_nothing_or_above_the_output_is_refused(floor: int, reason: str) -> None:
    step = two_pools()
    judged = verdict("slippage", step, with_leg(weth_sales(step, (0, 1)), 0, min_out_raw=floor))
    assert (judged.passed, reason in judged.measured_text) == (False, True)


def test_a_minimum_of_all_that_the_pool_pays_has_no_slippage() -> None:
    step = with_limits(two_pools(), slippage_bps=0)
    plan = weth_sales(step, (0, 1))
    judged = verdict("slippage", step, with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw))
    assert (judged.passed, judged.measured_text) == (True, "0 bps")


def skewed_step(factor: Fraction) -> StepInput:
    """The pool pays `by` of the reference price: skewed before the snapshot (T1)."""
    return step_input(pools=[v2_pool(WETH, USDC, 2_000 * factor)])


def test_the_fair_floor_does_not_follow_a_skewed_pool() -> None:
    step = skewed_step(Fraction(95, 100))
    plan = weth_sales(step, (0, Fraction(1, 10)))
    low_plan = with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw * 9_970 // BPS)
    assert verdict("slippage", step, low_plan).passed
    assert not verdict("fair_floor", step, low_plan).passed
    assert "reference requires" in verdict("fair_floor", step, low_plan).measured_text


def test_a_minimum_exactly_at_the_fair_floor_passes_and_one_base_unit_lower_fails() -> None:
    step = two_pools()
    amount = raw(1, WETH)
    fair_raw = 2_000 * 10**6 * (1 - Fraction(3, 1000) - Fraction(100, BPS)) * (1 - Fraction(30, BPS))
    floor = fair_raw.numerator // fair_raw.denominator
    plan = plan_of(step, [Swap(step.snapshot.pools[0], WETH.address, amount)])
    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=floor)).passed
    assert not verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=floor - 1)).passed


@pytest.mark.parametrize("limit_name", ["slippage_bps", "price_impact_bps"])
def test_with_a_limit_off_a_minimum_of_one_is_all_that_the_fair_floor_asks(limit_name: str) -> None:
    step = with_limits(two_pools(), **{limit_name: None})
    plan = weth_sales(step, (0, 1))
    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=1)).passed
    assert not verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=0)).passed


def test_the_fee_of_the_floor_is_the_pool_s_not_the_plan_s() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, 1))
    plan_with_prediction = with_leg(plan, 0, fee_pips=500_000, min_out_raw=900 * 10**6)
    assert not verdict("fair_floor", step, plan_with_prediction).passed


def test_the_fee_of_the_floor_is_that_of_the_swap_s_direction() -> None:
    """The protocol takes 0.1 % of USDC and nothing of WETH."""
    plain = v3_pool(WETH, USDC, 2_000, fee_pips=3000)
    state = {field.name: getattr(plain, field.name) for field in fields(V3Pool)}
    protocol_fee = 1_000 << (DIRECTION_BITS if plain.token1 == USDC.address else 0)
    step = step_input(pools=[V4Pool(**state, manager=address("manager"), protocol_fee=protocol_fee)])
    for sold_token, amount, fee_pips in ((WETH, 1, 3_000), (USDC, 2_000, 3_997)):
        plan = plan_of(step, [Swap(step.snapshot.pools[0], sold_token.address, raw(amount, sold_token))])
        bought = USDC if sold_token == WETH else WETH
        fair_raw = (
            raw(2_000 if bought == USDC else 1, bought) * (1 - Fraction(fee_pips, 10**6) - Fraction(100, BPS)) * (1 - Fraction(30, BPS))
        )
        assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=int(fair_raw))).passed
        assert not verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=int(fair_raw) - 1)).passed


def test_pool_value_at_the_limit_passes_and_below_it_fails() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, Fraction(1, 10)))
    value = Fraction(2_000_000 * 10**6)
    assert verdict("pool_min_value", with_limits(step, pool_min_value=value), plan).passed
    assert not verdict("pool_min_value", with_limits(step, pool_min_value=value + Fraction(1, 10)), plan).passed


def test_the_shallowest_pool_decides_and_liquidity_far_from_the_price_does_not_count() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, Fraction(1, 10)), (1, Fraction(1, 10)))
    judged = verdict("pool_min_value", step, plan)
    assert judged.passed is False  # a full-range position of two million holds some 20,000 within two percent
    assert step.snapshot.pools[1].address in judged.measured_text


def evidence_of_quotes(step: StepInput, plan: Plan, *amounts_out_raw: int | None) -> Evidence:
    return evidence(
        step,
        plan,
        second_quotes=tuple(
            SecondQuote(number, amount_out_raw, "" if amount_out_raw else "silent") for number, amount_out_raw in enumerate(amounts_out_raw)
        ),
    )


@given(limit_bps=st.integers(0, 300), sign=st.sampled_from([-1, 1]))
def test_a_second_quote_at_the_limit_passes_either_way_and_one_unit_beyond_fails(limit_bps: int, sign: int) -> None:
    step = with_limits(two_pools(), second_quote_deviation_bps=limit_bps)
    plan = weth_sales(step, (0, 1))
    amount_out_raw = plan.legs[0].amount_out_raw
    limit_name = amount_out_raw * limit_bps // BPS
    assert verdict("second_quote_deviation", step, plan, evidence_of_quotes(step, plan, amount_out_raw + sign * limit_name)).passed
    assert not verdict(
        "second_quote_deviation", step, plan, evidence_of_quotes(step, plan, amount_out_raw + sign * (limit_name + 1))
    ).passed


def test_the_worst_leg_decides_the_second_quote() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, 1), (1, 1))
    amounts_out_raw = [leg.amount_out_raw for leg in plan.legs]
    judged = verdict(
        "second_quote_deviation", step, plan, evidence_of_quotes(step, plan, amounts_out_raw[0], amounts_out_raw[1] * 98 // 100)
    )
    assert (judged.passed, judged.measured_text[:3]) == (False, "200")


def test_a_leg_without_a_second_quote_is_refused_with_the_reason() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, 1), (1, 1))
    missing = verdict("second_quote_deviation", step, plan, evidence_of_quotes(step, plan, plan.legs[0].amount_out_raw))
    assert not missing.passed
    assert mentions(missing.measured_text, "unknown", "leg 1")
    refused_quote = verdict("second_quote_deviation", step, plan, evidence_of_quotes(step, plan, plan.legs[0].amount_out_raw, None))
    assert not refused_quote.passed
    assert mentions(refused_quote.measured_text, "unknown", "leg 1", "silent")


def test_a_pool_that_cannot_run_the_leg_is_named_with_its_reason() -> None:
    step = two_pools()
    plan = weth_sales(step, (0, 1), (1, 1))
    blind_pool = replace(step.snapshot.pools[1], known_from_tick=-1, known_to_tick=1, ticks=())
    blind_step = with_snapshot(step, pools=(step.snapshot.pools[0], blind_pool))
    assert "leg 1: pool" in verdict("price_impact", blind_step, plan).measured_text
    empty_pool = replace(step.snapshot.pools[0], reserve0=0, reserve1=0)
    assert (
        "INSUFFICIENT_LIQUIDITY"
        in verdict("price_impact", with_snapshot(step, pools=(empty_pool, step.snapshot.pools[1])), plan).measured_text
    )


def test_legs_that_name_foreign_tokens_or_spend_nothing_cannot_be_simulated() -> None:
    step = two_pools()
    plan = sell_weth(step)
    foreign_leg_plan = with_leg(plan, 0, token_out=token("DAI").address)
    assert "not trade" in verdict("price_impact", step, foreign_leg_plan).measured_text
    for amount in (0, -1):
        assert "to spend" in verdict("price_impact", step, with_leg(plan, 0, amount_in_raw=amount)).measured_text


def test_a_pool_that_takes_only_a_part_or_pays_nothing_cannot_be_simulated() -> None:
    step = two_pools()
    all_known = replace(step.snapshot.pools[1], known_from_tick=-887_272, known_to_tick=887_272)
    step = with_snapshot(step, pools=(step.snapshot.pools[0], all_known))
    weth_amount = with_leg(weth_sales(step, (1, 1)), 0, amount_in_raw=10**40)
    assert "accepts only" in verdict("price_impact", step, weth_amount).measured_text
    dust = with_leg(weth_sales(step, (1, 1)), 0, amount_in_raw=1)
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
