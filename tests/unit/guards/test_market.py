"""Tests of agent/guards/market.py: every limit at its value and one unit beyond it, and every reason to refuse."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import DIRECTION_BITS, V4Pool
from agent.guards.market import quote_source_text
from agent.model import BlockedExit, LegPlace, PastPrices, Plan, Pool, PriceSource, SecondQuote, StepInput, TickMean, Verdict
from agent.reference import dollar_pegs, reference_prices
from agent.units import BPS, Token
from tests.support.builders import (
    NOW_S,
    address,
    feed_address,
    feed_round,
    history,
    raw,
    step_input,
    token,
    v2_pool,
    v3_pool,
    with_feed,
    with_limits,
    with_snapshot,
    without_feed,
)
from tests.support.decisions.plan_costs import exit_plan
from tests.support.plans import Swap, assert_refused, evidence, plan_of, sell_weth, verdict, with_leg
from tests.support.tokens import LINK, USDC, WETH

DAI = token("DAI")
FEED = PriceSource.FEED
TWAP = PriceSource.TWAP
SPOT = PriceSource.SPOT
V2 = 0
V3 = 1
"""Positions of the pools of `two_pools` in the snapshot."""
USDC_COIN = 10**6
FEED_DOLLAR = 10**8
THREE_ASSETS = {"WETH": 4_000, "LINK": 2_000, "USDC": 4_000}


def two_pools(**limits: object) -> StepInput:
    """Return a step with a V2 and a V3 pool of WETH and USDC, both at 2,000."""
    step = step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, fee_pips=3_000)])
    return with_limits(step, **limits)


def weth_sales(step: StepInput, *sales: tuple[int, int]) -> Plan:
    """Return the plan that sells (pool position, raw WETH) in order."""
    return plan_of(step, [Swap(step.snapshot.pools[pool_index], WETH.address, amount_raw) for pool_index, amount_raw in sales])


def one_weth_in(step: StepInput, *pool_indices: int) -> Plan:
    return weth_sales(step, *((pool_index, raw(1, WETH)) for pool_index in pool_indices))


def without_asset_feeds(step: StepInput, *symbols: str) -> StepInput:
    """Return the step in which these assets (default: all) have no feed in the config."""
    assets = tuple(replace(asset, feed=None) if not symbols or asset.token.symbol in symbols else asset for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


# --- price_impact


@given(pool_index=st.sampled_from([V2, V3]), limit_bps=st.integers(5, 300))
def test_price_impact_refuses_one_wei_more_than_the_limit_allows(pool_index: int, limit_bps: int) -> None:
    step = two_pools(price_impact_bps=limit_bps)
    pool = step.snapshot.pools[pool_index]
    largest_raw = pool.max_in(WETH.address, limit_bps)

    assert verdict("price_impact", step, weth_sales(step, (pool_index, largest_raw))).passed
    assert_refused(verdict("price_impact", step, weth_sales(step, (pool_index, largest_raw + 1))), f"{limit_bps + 1} bps in {pool.address}")


@pytest.mark.parametrize(
    ("sold_to_bps", "measured"),
    [
        pytest.param([(V2, 60)], "60 bps", id="one leg"),
        pytest.param([(V2, 60), (V2, 60)], "120 bps", id="legs of one pool add up"),
        pytest.param([(V2, 60), (V3, 60)], "60 bps", id="legs of two pools do not"),
        pytest.param([(V2, 30), (V3, 90)], "90 bps", id="the largest counts"),
    ],
)
def test_price_impact_adds_up_within_a_pool(sold_to_bps: list[tuple[int, int]], measured: str) -> None:
    step = two_pools(price_impact_bps=100)
    plan = weth_sales(step, *((index, step.snapshot.pools[index].max_in(WETH.address, bps)) for index, bps in sold_to_bps))

    judged = verdict("price_impact", step, plan)

    assert judged.measured_text.startswith(measured)
    assert judged.passed is (measured != "120 bps")


def test_price_impact_counts_what_a_later_leg_takes_back() -> None:
    step = two_pools(price_impact_bps=100)
    pool = step.snapshot.pools[V2]
    sale = Swap(pool, WETH.address, pool.max_in(WETH.address, 150))
    proceeds_raw = plan_of(step, [sale]).legs[0].amount_out_raw

    assert_refused(verdict("price_impact", step, plan_of(step, [sale, Swap(pool, USDC.address, proceeds_raw)])))


def test_price_impact_ignores_the_impact_that_the_plan_predicts() -> None:
    step = two_pools(price_impact_bps=10)

    assert_refused(verdict("price_impact", step, with_leg(weth_sales(step, (V2, raw(5, WETH))), 0, impact_bps=0)), "bps in")


def test_price_impact_passes_a_plan_without_swaps() -> None:
    step = two_pools(price_impact_bps=0)

    assert verdict("price_impact", step, plan_of(step, [])).measured_text == "no trade"


# --- slippage


@pytest.mark.parametrize(
    ("min_out_change_raw", "measured"),
    [
        pytest.param(0, "0 bps", id="all that the pool pays"),
        pytest.param(-1, "1 bps", id="one base unit less"),
    ],
)
def test_slippage_rounds_up_to_whole_basis_points(min_out_change_raw: int, measured: str) -> None:
    step = two_pools()
    plan = one_weth_in(step, V2)
    plan = with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw + min_out_change_raw)

    assert verdict("slippage", step, plan).measured_text == measured


@given(sold_raw=st.integers(10**15, 4 * 10**18), limit_bps=st.integers(0, 500))
def test_slippage_refuses_a_minimum_one_unit_below_the_limit(sold_raw: int, limit_bps: int) -> None:
    step = two_pools(slippage_bps=limit_bps)
    plan = weth_sales(step, (V2, sold_raw))
    lowest_raw = plan.legs[0].amount_out_raw * (BPS - limit_bps) // BPS

    at_limit = verdict("slippage", step, with_leg(plan, 0, min_out_raw=lowest_raw))
    beyond = verdict("slippage", step, with_leg(plan, 0, min_out_raw=lowest_raw - 1))

    assert at_limit.passed
    assert int(at_limit.measured_text.removesuffix(" bps")) <= limit_bps
    assert_refused(beyond)
    assert int(beyond.measured_text.removesuffix(" bps")) > limit_bps


@pytest.mark.parametrize(
    ("leg_index", "leg_fields", "reason"),
    [
        pytest.param(0, {"min_out_raw": 0}, "no minimum output", id="no minimum"),
        pytest.param(0, {"min_out_raw": -5}, "no minimum output", id="negative minimum"),
        pytest.param(0, {"min_out_raw": 10**18}, "the pool pays", id="minimum above the output"),
        pytest.param(0, {"min_out_raw": 1_900 * USDC_COIN}, " bps", id="worst leg is the first"),
        pytest.param(1, {"min_out_raw": 1_900 * USDC_COIN}, " bps", id="worst leg is the last"),
        pytest.param(0, {"amount_out_raw": 1_900 * USDC_COIN, "min_out_raw": 1_900 * USDC_COIN}, " bps", id="low prediction by the plan"),
    ],
)
def test_slippage_judges_every_leg_by_its_simulation(leg_index: int, leg_fields: dict[str, int], reason: str) -> None:
    step = two_pools()

    assert_refused(verdict("slippage", step, with_leg(one_weth_in(step, V2, V3), leg_index, **leg_fields)), reason)


# --- fair_floor


FAIR_OUT_RAW = int(2_000 * USDC_COIN * (1 - Fraction(30, BPS) - Fraction(100, BPS)) * (1 - Fraction(30, BPS)))
"""Least base units of USDC for one WETH at 2,000, less the pool's fee, impact limit and slippage limit."""


@pytest.mark.parametrize(
    ("limits", "min_out_raw"),
    [
        pytest.param({}, FAIR_OUT_RAW, id="at the floor"),
        pytest.param({"slippage_bps": None}, 1, id="slippage off"),
        pytest.param({"price_impact_bps": None}, 1, id="price_impact off"),
    ],
)
def test_fair_floor_passes_the_reference_less_fee_and_limits(limits: dict[str, None], min_out_raw: int) -> None:
    step = two_pools(**limits)

    assert verdict("fair_floor", step, with_leg(one_weth_in(step, V2), 0, min_out_raw=min_out_raw)).passed


@pytest.mark.parametrize(
    ("limits", "leg_fields", "reason"),
    [
        pytest.param({}, {"min_out_raw": FAIR_OUT_RAW - 1}, "reference requires 1968.078 USDC", id="one base unit below"),
        pytest.param({}, {"min_out_raw": FAIR_OUT_RAW - 1, "fee_pips": 3_100}, "reference requires", id="higher fee in the plan"),
        pytest.param({"slippage_bps": None}, {"min_out_raw": 0}, "reference requires", id="slippage off, no minimum"),
        pytest.param({"price_impact_bps": None}, {"min_out_raw": 0}, "reference requires", id="price_impact off, no minimum"),
        pytest.param({"slippage_bps": None, "price_impact_bps": None}, {"min_out_raw": 2_000 * USDC_COIN}, "both off", id="both off"),
    ],
)
def test_fair_floor_refuses_what_is_below_it(limits: dict[str, None], leg_fields: dict[str, int], reason: str) -> None:
    step = two_pools(**limits)

    assert_refused(verdict("fair_floor", step, with_leg(one_weth_in(step, V2), 0, **leg_fields)), reason)


@pytest.mark.parametrize("limit", ["slippage_bps", "price_impact_bps"])
def test_fair_floor_passes_a_usual_plan_with_one_limit_off(limit: str) -> None:
    step = two_pools(**{limit: None})

    assert verdict("fair_floor", step, one_weth_in(step, V2)).passed


@pytest.mark.parametrize(
    ("sold", "sold_coins", "bought", "bought_coins", "fee_pips"),
    [
        pytest.param(WETH, 1, USDC, 2_000, 3_000, id="WETH, free of the protocol fee"),
        pytest.param(USDC, 2_000, WETH, 1, 3_997, id="USDC, 0.1 % protocol fee"),
    ],
)
def test_fair_floor_takes_the_fee_of_the_direction(sold: Token, sold_coins: int, bought: Token, bought_coins: int, fee_pips: int) -> None:
    pool = v3_pool(WETH, USDC, 2_000, fee_pips=3_000)
    fields_of_pool = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    protocol_fee = 1_000 << (DIRECTION_BITS if pool.token1 == USDC.address else 0)
    step = step_input(pools=[V4Pool(**fields_of_pool, manager=address("manager"), protocol_fee=protocol_fee)])
    plan = plan_of(step, [Swap(step.snapshot.pools[0], sold.address, raw(sold_coins, sold))])
    fee = Fraction(fee_pips, 10**6)
    floor_raw = int(raw(bought_coins, bought) * (1 - fee - Fraction(100, BPS)) * (1 - Fraction(30, BPS)))

    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=floor_raw)).passed
    assert_refused(verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=floor_raw - 1)), "reference requires")


def test_fair_floor_does_not_follow_a_skewed_pool() -> None:
    step = step_input(pools=[v2_pool(WETH, USDC, 1_900)])
    plan = sell_weth(step, Fraction(1, 10))
    plan = with_leg(plan, 0, min_out_raw=plan.legs[0].amount_out_raw * 9_970 // BPS)

    assert verdict("slippage", step, plan).passed
    assert_refused(verdict("fair_floor", step, plan), "reference requires")


def test_fair_floor_takes_the_dearest_price_of_what_is_sold() -> None:
    step = twap_at(2_020, FEED, TWAP)
    step = replace(step, reference=replace(step.reference, uses_worse_source=True))
    lowest_raw = FAIR_OUT_RAW * 2_020 // 2_000
    plan = one_weth_in(step, V2)

    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=lowest_raw + USDC_COIN)).passed
    assert_refused(verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=lowest_raw - USDC_COIN)))


def test_fair_floor_takes_the_cheapest_price_of_what_is_bought() -> None:
    step = twap_at(1_980, FEED, TWAP)
    step = replace(step, reference=replace(step.reference, uses_worse_source=True))
    plan = plan_of(step, [Swap(step.snapshot.pools[0], USDC.address, 2_000 * USDC_COIN)])
    lowest_raw = raw(1, WETH) * FAIR_OUT_RAW // (2_000 * USDC_COIN) * 2_000 // 1_980

    assert verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=lowest_raw + 10**15)).passed
    assert_refused(verdict("fair_floor", step, with_leg(plan, 0, min_out_raw=lowest_raw - 10**15)), "reference requires")


# --- pool_min_value


@pytest.mark.parametrize(
    ("pool_indices", "limit_usdc", "passed"),
    [
        pytest.param([V2], Fraction(2_000_000), True, id="at the limit"),
        pytest.param([V2], 2_000_000 + Fraction(1, USDC_COIN), False, id="one base unit above the depth"),
        # A full-range position of two million holds some 20,000 within two percent.
        pytest.param([V2, V3], Fraction(50_000), False, id="the shallowest pool counts, by liquidity near the price"),
    ],
)
def test_pool_min_value_measures_the_shallowest_pool(pool_indices: list[int], limit_usdc: Fraction, passed: bool) -> None:
    step = two_pools(pool_min_value=limit_usdc * USDC_COIN)
    plan = weth_sales(step, *((pool_index, 10**17) for pool_index in pool_indices))

    judged = verdict("pool_min_value", step, plan)

    assert judged.passed is passed
    assert step.snapshot.pools[pool_indices[-1]].address in judged.measured_text


# --- second_quote_deviation


@given(limit_bps=st.integers(0, 300), sign=st.sampled_from([-1, 1]))
def test_second_quote_refuses_one_unit_beyond_the_limit(limit_bps: int, sign: int) -> None:
    step = two_pools(second_quote_deviation_bps=limit_bps)
    plan = one_weth_in(step, V2)
    out_raw = plan.legs[0].amount_out_raw
    largest_raw = out_raw * limit_bps // BPS

    def judged(deviation_raw: int) -> Verdict:
        quotes = (SecondQuote(0, out_raw + sign * deviation_raw),)
        return verdict("second_quote_deviation", step, plan, evidence(step, plan, second_quotes=quotes))

    assert judged(largest_raw).passed
    assert_refused(judged(largest_raw + 1))


@pytest.mark.parametrize(
    ("second_quotes", "reasons"),
    [
        pytest.param([(98, ""), (100, "")], ["200"], id="worst leg is the first"),
        pytest.param([(100, ""), (98, "")], ["200"], id="worst leg is the last"),
        pytest.param([(100, "")], ["unknown", "leg 2"], id="no quote of a leg"),
        pytest.param([(100, ""), (None, "silent")], ["unknown", "leg 2", "silent"], id="quoter gave no amount"),
    ],
)
def test_second_quote_needs_every_leg(second_quotes: list[tuple[int | None, str]], reasons: list[str]) -> None:
    step = two_pools()
    plan = one_weth_in(step, V2, V3)
    quotes = tuple(
        SecondQuote(leg_index, None if percent is None else plan.legs[leg_index].amount_out_raw * percent // 100, error)
        for leg_index, (percent, error) in enumerate(second_quotes)
    )

    assert_refused(verdict("second_quote_deviation", step, plan, evidence(step, plan, second_quotes=quotes)), *reasons)


@pytest.mark.parametrize(
    ("sources_by_leg", "text"),
    [
        pytest.param([("a", "b"), ("a", "b")], "a and b", id="both quoted all"),
        pytest.param([("a", "b"), ("a",), ("a",)], "a and b (1 of 3 swaps)", id="one quoted a part"),
        pytest.param([("a",)], "a", id="one source"),
        pytest.param([(), ()], "", id="no source"),
        pytest.param([], "", id="no quote"),
    ],
)
def test_quote_source_text_counts_the_swaps_of_each_source(sources_by_leg: list[tuple[str, ...]], text: str) -> None:
    assert quote_source_text([SecondQuote(leg_index, 1, sources=sources) for leg_index, sources in enumerate(sources_by_leg)]) == text


# --- oracle_deviation


@given(deviation_bps=st.integers(-200, 200).filter(bool))
def test_oracle_deviation_compares_spot_with_the_reference(deviation_bps: int) -> None:
    step = step_input(pools=[v2_pool(WETH, USDC, 2_000 * (1 + Fraction(deviation_bps, BPS)))])
    plan = sell_weth(step, Fraction(1, 10))

    assert verdict("oracle_deviation", with_limits(step, oracle_deviation_bps=abs(deviation_bps) + 1), plan).passed
    assert_refused(verdict("oracle_deviation", with_limits(step, oracle_deviation_bps=abs(deviation_bps) - 1), plan))


@pytest.mark.parametrize(
    ("usdc_answer", "measured", "passed"),
    [
        pytest.param(FEED_DOLLAR, "150 bps (spot of WETH)", True, id="at the limit"),
        pytest.param(FEED_DOLLAR + 1, "150.01 bps (spot of WETH)", False, id="one unit of the feed beyond"),
    ],
)
def test_oracle_deviation_passes_exactly_at_the_limit(usdc_answer: int, measured: str, passed: bool) -> None:
    step = with_limits(step_input(pools=[v2_pool(WETH, USDC, 2_030, depth=2_030_000)]), oracle_deviation_bps=150)

    judged = verdict("oracle_deviation", with_feed(step, "USDC", answer=usdc_answer), sell_weth(step))

    assert (judged.measured_text, judged.passed) == (measured, passed)


def test_oracle_deviation_sees_a_skewed_pool_beside_a_deep_one() -> None:
    deep_pool = v2_pool(WETH, USDC, 2_000, depth=100_000_000)
    skewed_pool = v2_pool(WETH, USDC, 2_060, depth=206_000, name="small")
    step = step_input(pools=[deep_pool, skewed_pool])

    assert verdict("oracle_deviation", step, weth_sales(step, (0, 10**16))).passed
    assert_refused(verdict("oracle_deviation", step, weth_sales(step, (1, 10**16))), f"300 bps (pool {skewed_pool.address})")


@pytest.mark.parametrize(
    ("link_pools", "reasons"),
    [
        pytest.param([v2_pool(LINK, USDC, Fraction(9, 10))], ["spot", "LINK"], id="spot off"),
        pytest.param([], ["unknown", "spot", "LINK"], id="no pool"),
    ],
)
def test_oracle_deviation_judges_assets_that_are_not_traded(link_pools: list[Pool], reasons: list[str]) -> None:
    step = step_input(THREE_ASSETS, pools=[v2_pool(WETH, USDC, 2_000), *link_pools])

    assert_refused(verdict("oracle_deviation", step, sell_weth(step)), *reasons)


def test_oracle_deviation_of_an_exit_judges_only_what_it_trades() -> None:
    step = step_input(THREE_ASSETS, pools=[v2_pool(WETH, USDC, 2_000)])
    skewed_step = with_snapshot(step, pools=(v2_pool(WETH, USDC, 2_060),))

    assert verdict("oracle_deviation", step, exit_plan(sell_weth(step))).passed
    assert_refused(verdict("oracle_deviation", skewed_step, exit_plan(sell_weth(skewed_step))), "spot of WETH")


def test_oracle_deviation_leaves_out_the_spot_of_a_blocked_exit() -> None:
    step = step_input(THREE_ASSETS, pools=[v2_pool(WETH, USDC, 2_000)])
    step = replace(step, blocked_exits=(BlockedExit(LINK.address, "a stop fired", "no pool"),))

    assert verdict("oracle_deviation", step, sell_weth(step)).passed


def twap_at(price: int, *sources: PriceSource) -> StepInput:
    """Return a step with spot and feed at 2,000 and this TWAP."""
    return step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, twap_price=price)], kinds=sources)


@pytest.mark.parametrize(
    ("twap", "sources"),
    [
        pytest.param(2_020, (FEED, TWAP), id="within the limit"),
        pytest.param(2_100, (FEED,), id="not a source"),
        pytest.param(2_100, (FEED, SPOT), id="not a source beside spot"),
    ],
)
def test_oracle_deviation_passes_a_twap_near_its_feed_or_unused(twap: int, sources: tuple[PriceSource, ...]) -> None:
    step = twap_at(twap, *sources)

    assert verdict("oracle_deviation", step, sell_weth(step)).passed


def test_oracle_deviation_refuses_a_twap_off_its_feed() -> None:
    step = twap_at(2_040, FEED, TWAP)

    assert_refused(verdict("oracle_deviation", step, sell_weth(step)), "TWAP of WETH against its feed")


def late_twap_step(earlier_spot: int) -> StepInput:
    """Return a step with spot and feed at 2,000, a TWAP at 2,100, and this spot price a block before."""
    step = twap_at(2_100, FEED, TWAP)
    earlier_head = replace(step.snapshot.head, number=step.snapshot.head.number - 1)
    past_prices = PastPrices(earlier_head, step.snapshot.feeds, (v2_pool(WETH, USDC, earlier_spot),))
    return with_snapshot(step, past_prices=(past_prices,))


@pytest.mark.parametrize(
    ("earlier_spot", "is_exit", "passed"),
    [
        pytest.param(2_000, True, True, id="an exit, agreed a block before"),
        pytest.param(2_100, True, False, id="an exit, pushed in this block"),
        pytest.param(2_000, False, False, id="a rebalance"),
    ],
)
def test_oracle_deviation_of_a_late_twap_holds_no_exit_back(earlier_spot: int, is_exit: bool, passed: bool) -> None:
    step = late_twap_step(earlier_spot)
    plan = sell_weth(step)

    assert verdict("oracle_deviation", step, exit_plan(plan) if is_exit else plan).passed is passed


def short_mean_step(*symbols: str) -> StepInput:
    """Return a step in which the short means of these tokens are 2 % off their reference prices, and WETH and LINK trade with USDC."""
    pools = [v3_pool(WETH, USDC, 2_000), v3_pool(LINK, USDC, 1)]
    short_means = [
        TickMean(300, (pool.twap_tick or 0) + 198, pool.liquidity) if traded.symbol in symbols else None
        for pool, traded in zip(pools, (WETH, LINK), strict=True)
    ]
    pools = [replace(pool, short_mean=short_mean) for pool, short_mean in zip(pools, short_means, strict=True)]
    step = step_input(THREE_ASSETS, pools=pools)
    return replace(step, reference=replace(step.reference, uses_worse_source=True, short_window_s=300))


@pytest.mark.parametrize(
    ("symbol", "is_exit", "passed"),
    [
        pytest.param("WETH", False, False, id="of a token of the plan"),
        pytest.param("LINK", False, True, id="of another token"),
        pytest.param("WETH", True, True, id="of an exit"),
    ],
)
def test_oracle_deviation_compares_short_means_of_the_plan(symbol: str, is_exit: bool, passed: bool) -> None:
    step = short_mean_step(symbol)
    plan = sell_weth(step)

    assert verdict("oracle_deviation", step, exit_plan(plan) if is_exit else plan).passed is passed


# --- feed_health


@pytest.mark.parametrize(
    ("age_s", "measured"),
    [
        pytest.param(0, "60 s (USDC)", id="of this block"),
        pytest.param(3_600, "3600 s (WETH)", id="at the maximum age"),
    ],
)
def test_feed_health_passes_the_age_of_the_oldest_feed(age_s: int, measured: str) -> None:
    judged = verdict("feed_health", with_feed(step_input(), "WETH", updated_at_s=NOW_S - age_s), sell_weth(step_input()))

    assert judged.passed
    assert judged.limit == "3600 s"
    assert judged.measured_text == measured


@pytest.mark.parametrize(
    ("weth_round", "reason"),
    [
        pytest.param({"updated_at_s": NOW_S - 3_601}, "3601 s (WETH)", id="one second too old"),
        pytest.param({"answer": 0}, "returned 0", id="answer zero"),
        pytest.param({"answer": -5}, "returned -5", id="answer negative"),
        pytest.param({"updated_at_s": 0}, "unfinished round", id="round not finished"),
        pytest.param({"answered_in_round": 6}, "unfinished round", id="answer of an earlier round"),
        pytest.param({"updated_at_s": NOW_S + 1}, "dated after the block", id="one second in the future"),
        pytest.param({"min_answer": 2_000 * FEED_DOLLAR}, "minimum answer", id="at its minimum"),
        pytest.param({"max_answer": 2_000 * FEED_DOLLAR}, "maximum answer", id="at its maximum"),
    ],
)
def test_feed_health_refuses_a_round_that_does_not_count(weth_round: dict[str, int], reason: str) -> None:
    assert_refused(verdict("feed_health", with_feed(step_input(), "WETH", **weth_round), sell_weth(step_input())), reason)


def test_feed_health_refuses_a_round_that_fell() -> None:
    step = step_input()
    earlier_head = replace(step.snapshot.head, number=step.snapshot.head.number - 1)
    step = with_snapshot(step, past_prices=(PastPrices(earlier_head, (feed_round("WETH", 2_000, round_id=8),), ()),))

    assert_refused(verdict("feed_health", step, sell_weth(step)), "fell from round 8", "to round 7")


@pytest.mark.parametrize(
    ("step", "reasons"),
    [
        pytest.param(without_feed(step_input(), "WETH"), ["unknown", "feed of WETH was not read"], id="round not read"),
        pytest.param(
            with_limits(with_feed(step_input(), "WETH", answer=0), oracle_deviation_bps=0), ["returned 0"], id="oracle_deviation of zero"
        ),
    ],
)
def test_feed_health_needs_every_configured_feed(step: StepInput, reasons: list[str]) -> None:
    assert_refused(verdict("feed_health", step, sell_weth(step_input())), *reasons)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(without_feed(step_input(kinds=[SPOT]), "WETH"), id="feeds are not a source"),
        pytest.param(without_asset_feeds(step_input()), id="no asset has a feed"),
        pytest.param(with_limits(without_feed(step_input(), "WETH"), oracle_deviation_bps=None), id="oracle_deviation off"),
    ],
)
def test_feed_health_passes_where_no_feed_is_in_use(step: StepInput) -> None:
    assert verdict("feed_health", step, sell_weth(step_input())).passed


def test_feed_health_refuses_a_stale_feed_despite_a_twap() -> None:
    step = with_feed(twap_at(2_000, FEED, TWAP), "WETH", updated_at_s=NOW_S - 3_601)

    assert verdict("oracle_deviation", step, sell_weth(step)).passed
    assert_refused(verdict("feed_health", step, sell_weth(step)), "3601 s (WETH)")


@pytest.mark.parametrize(("age_s", "passed"), [(3_600, True), (3_601, False)])
def test_feed_health_goes_by_the_feed_nearest_to_its_own_limit(age_s: int, passed: bool) -> None:
    """The feed of WETH is older, and may be."""
    step = with_feed(with_feed(step_input(), "WETH", updated_at_s=NOW_S - 3_700), "USDC", updated_at_s=NOW_S - age_s)
    step = replace(step, reference=replace(step.reference, max_age_s_by_feed=((feed_address("WETH"), 7_200),)))

    judged = verdict("feed_health", step, sell_weth(step_input()))

    assert (judged.measured_text, judged.passed) == (f"{age_s} s (USDC)", passed)


def weth_as_hub(age_s: int | None) -> StepInput:
    """Return a step with WETH as a hub, its feed of that age (None: not read), and LINK and USDC as assets."""
    step = step_input({"LINK": 5_000, "USDC": 5_000}, hubs=["WETH"])
    rounds = [] if age_s is None else [feed_round("WETH", 2_000, NOW_S - age_s)]
    step = with_snapshot(step, feeds=(*step.snapshot.feeds, *rounds))
    return replace(step, portfolio=replace(step.portfolio, hub_feeds=((WETH.address, feed_address("WETH")),)))


def link_sale(step: StepInput) -> Plan:
    return plan_of(step, [Swap(step.snapshot.pools[0], LINK.address, raw(1, LINK))])


@pytest.mark.parametrize("is_exit", [False, True], ids=["rebalance", "exit"])
@pytest.mark.parametrize(
    ("age_s", "measured", "passed"),
    [
        pytest.param(3_600, "3600 s (WETH)", True, id="at the maximum age"),
        pytest.param(3_601, "3601 s (WETH)", False, id="one second too old"),
        pytest.param(None, "unknown: feed of WETH was not read", False, id="not read"),
    ],
)
def test_feed_health_counts_the_native_coin_as_a_hub(age_s: int | None, measured: str, passed: bool, is_exit: bool) -> None:
    step = weth_as_hub(age_s)
    plan = link_sale(step)

    judged = verdict("feed_health", step, exit_plan(plan) if is_exit else plan)

    assert (judged.measured_text, judged.passed) == (measured, passed)


@pytest.mark.parametrize("is_exit", [False, True], ids=["rebalance", "exit"])
def test_feed_health_counts_another_hub_where_the_plan_trades_it(is_exit: bool) -> None:
    step = weth_as_hub(3_601)
    step = replace(step, portfolio=replace(step.portfolio, wrapped_native=token("WBTC").address))
    link_and_weth = v2_pool(LINK, WETH, Fraction(1, 2_000), depth=500)
    step = with_snapshot(step, pools=(*step.snapshot.pools, link_and_weth))
    direct_plan = link_sale(step)
    sale = Swap(link_and_weth, LINK.address, raw(1, LINK), sink=LegPlace.ROUTER)
    hub_plan = plan_of(step, [sale, Swap(step.snapshot.pools[1], WETH.address, source=LegPlace.ROUTER)])

    assert verdict("feed_health", step, exit_plan(direct_plan) if is_exit else direct_plan).passed
    assert_refused(verdict("feed_health", step, exit_plan(hub_plan) if is_exit else hub_plan), "3601 s (WETH)")


# --- sequencer


def sequencer_step(answer: int, since_s: int) -> StepInput:
    """Return a step whose sequencer has had this answer (0: up) for so many seconds; the grace period is an hour."""
    step = step_input()
    uptime_round = replace(feed_round("uptime", 0), feed=address("uptime"), answer=answer, started_at_s=NOW_S - since_s)
    step = replace(step, reference=replace(step.reference, sequencer_feed=uptime_round.feed, sequencer_grace_s=3_600))
    return with_snapshot(step, feeds=(*step.snapshot.feeds, uptime_round))


@pytest.mark.parametrize(
    ("answer", "since_s", "passed"),
    [
        pytest.param(0, 3_600, True, id="up for the grace period"),
        pytest.param(0, 3_599, False, id="one second less"),
        pytest.param(1, 9_999, False, id="down"),
    ],
)
def test_sequencer_must_be_up_for_the_grace_period(answer: int, since_s: int, passed: bool) -> None:
    judged = verdict("sequencer", sequencer_step(answer, since_s), sell_weth(step_input()))

    assert judged.passed is passed
    assert judged.limit == "up for 3600 s"


# --- depeg


@pytest.mark.parametrize(
    ("usdc_answer", "passed"),
    [
        pytest.param(98_000_000, True, id="at the lower edge"),
        pytest.param(97_999_999, False, id="one unit below"),
        pytest.param(102_000_000, True, id="at the upper edge"),
        pytest.param(102_000_001, False, id="one unit above"),
    ],
)
def test_depeg_judges_a_numeraire_off_its_peg(usdc_answer: int, passed: bool) -> None:
    assert verdict("depeg", with_feed(step_input(), "USDC", answer=usdc_answer), sell_weth(step_input())).passed is passed


@pytest.mark.parametrize("usdc_round", [{"updated_at_s": NOW_S - 3_601}, {"answer": 0}], ids=["stale", "no answer"])
def test_depeg_refuses_a_numeraire_whose_feed_does_not_count(usdc_round: dict[str, int]) -> None:
    assert_refused(verdict("depeg", with_feed(step_input(), "USDC", **usdc_round), sell_weth(step_input())), "unknown", "feed", "USDC")


def dai_without_feed(dai_spot: Fraction | int) -> StepInput:
    """Return a step in which DAI has no feed and this spot price in USDC."""
    step = without_asset_feeds(step_input({"WETH": 4_000, "DAI": 2_000, "USDC": 4_000}, kinds=[FEED, SPOT]), "DAI")
    return with_snapshot(step, pools=(step.snapshot.pools[0], v2_pool(DAI, USDC, dai_spot)))


@pytest.mark.parametrize(
    ("dai_spot", "measured", "passed"),
    [
        pytest.param(1, "0 bps", True, id="at its peg"),
        pytest.param(Fraction(97, 100), "300 bps (DAI)", False, id="3 % below"),
    ],
)
def test_depeg_prices_a_dollar_without_feed_by_its_spot(dai_spot: Fraction | int, measured: str, passed: bool) -> None:
    step = dai_without_feed(dai_spot)

    judged = verdict("depeg", step, sell_weth(step))

    assert judged.measured_text.startswith(measured)
    assert judged.passed is passed


def test_depeg_refuses_a_dollar_not_back_beside_one_farther_off() -> None:
    """DAI left and is 1.2 % off, beyond half of the limit; USDC never left and is 1.5 % off, within all of it."""
    step = step_input({"WETH": 4_000, "DAI": 3_000, "USDC": 3_000}, past=history(depegged_tokens=(DAI.address,)))
    step = with_feed(with_feed(step, "USDC", answer=98_500_000), "DAI", answer=98_800_000)

    assert_refused(verdict("depeg", step, sell_weth(step)), "DAI", "left its peg")


def test_depeg_prices_a_dollar_without_feed_by_the_numeraire() -> None:
    step = with_feed(dai_without_feed(1), "USDC", answer=97 * FEED_DOLLAR // 100)

    (peg,) = dollar_pegs(step, reference_prices(step), 200, {DAI.address})

    assert peg.price_usd == Fraction(97, 100)


def test_depeg_refuses_a_dollar_that_nothing_prices() -> None:
    step = without_asset_feeds(step_input(kinds=[SPOT]))

    assert_refused(verdict("depeg", step, sell_weth(step)), "unknown", "USD feed", "USDC")


def test_depeg_passes_a_portfolio_without_dollars() -> None:
    step = step_input({"WETH": 5_000, "LINK": 5_000}, numeraire="WETH", prices={"WETH": 1, "LINK": 1})

    judged = verdict("depeg", step, link_sale(step))

    assert judged.passed
    assert judged.measured_text == "no dollar token"
