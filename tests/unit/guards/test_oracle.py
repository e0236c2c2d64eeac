"""Guards on prices: spot, mean, feed and peg, each at the limit and one beyond, and what is missing refuses."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import BlockedExit, Goal, PastPrices, PriceSource, Rebalance, StepInput
from agent.reference import dollar_pegs, reference_prices
from agent.units import BPS
from tests.support.builders import (
    NOW_S,
    feed_address,
    feed_round,
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
from tests.support.plans import Swap, plan_of, sell_weth, verdict
from tests.support.text import mentions

WETH, USDC, DAI, LINK = token("WETH"), token("USDC"), token("DAI"), token("LINK")
FEED, TWAP, SPOT = PriceSource.FEED, PriceSource.TWAP, PriceSource.SPOT
DOLLAR = 10**8
"""One dollar as a feed of eight decimals says it."""


def spot_at(price: Fraction | int) -> StepInput:
    return step_input(pools=[v2_pool(WETH, USDC, price)])


@given(off_bps=st.integers(-200, 200))
def test_spot_is_held_against_the_reference_either_way(off_bps: int) -> None:
    step = with_limits(spot_at(2_000 * (1 + Fraction(off_bps, BPS))), oracle_deviation_bps=abs(off_bps) + 1)
    assert verdict("oracle_deviation", step, sell_weth(step, Fraction(1, 10))).passed
    if off_bps:
        tight_step = with_limits(step, oracle_deviation_bps=abs(off_bps) - 1)
        assert not verdict("oracle_deviation", tight_step, sell_weth(step, Fraction(1, 10))).passed


def test_a_deviation_exactly_at_the_limit_passes() -> None:
    step = with_limits(step_input(pools=[v2_pool(WETH, USDC, 2_030, depth=2_030_000)]), oracle_deviation_bps=150)
    assert verdict("oracle_deviation", step, sell_weth(step)).measured_text.startswith("150 bps")
    assert verdict("oracle_deviation", step, sell_weth(step)).passed
    step_beyond = with_feed(step, "USDC", answer=DOLLAR + 1)
    assert not verdict("oracle_deviation", step_beyond, sell_weth(step)).passed


def test_a_skewed_pool_that_the_plan_uses_is_seen_though_a_deep_one_hides_it_in_the_mean() -> None:
    deep, skewed = v2_pool(WETH, USDC, 2_000, depth=100_000_000), v2_pool(WETH, USDC, 2_060, depth=206_000, name="small")
    step = step_input(pools=[deep, skewed])
    plan_in_deep, plan_in_skewed = (plan_of(step, [Swap(pool, WETH.address, raw(Fraction(1, 100), WETH))]) for pool in (deep, skewed))
    assert verdict("oracle_deviation", step, plan_in_deep).passed
    judged = verdict("oracle_deviation", step, plan_in_skewed)
    assert (judged.passed, judged.measured_text) == (False, f"300 bps (pool {skewed.address})")


def test_an_asset_that_the_plan_does_not_touch_is_compared_too() -> None:
    step = step_input(
        {"WETH": 4_000, "LINK": 2_000, "USDC": 4_000}, pools=[v2_pool(WETH, USDC, 2_000), v2_pool(LINK, USDC, Fraction(9, 10))]
    )
    judged = verdict("oracle_deviation", step, sell_weth(step))
    assert (judged.passed, mentions(judged.measured_text, "spot", "LINK")) == (False, True)


def test_an_asset_whose_spot_price_no_pool_tells_refuses() -> None:
    step = step_input({"WETH": 4_000, "LINK": 2_000, "USDC": 4_000}, pools=[v2_pool(WETH, USDC, 2_000)])
    assert mentions(verdict("oracle_deviation", step, sell_weth(step)).measured_text, "unknown", "spot", "LINK")


def test_the_spot_of_what_an_exit_does_not_trade_holds_no_exit_back() -> None:
    step = step_input({"WETH": 4_000, "LINK": 2_000, "USDC": 4_000}, pools=[v2_pool(WETH, USDC, 2_000)])
    plan = sell_weth(step)
    exit_of_plan = replace(plan, decision=Rebalance("a stop fired", Goal(()), is_exit=True))
    assert not verdict("oracle_deviation", step, plan).passed
    assert verdict("oracle_deviation", step, exit_of_plan).passed
    skewed = with_snapshot(step, pools=(v2_pool(WETH, USDC, 2_060),))
    assert not verdict("oracle_deviation", skewed, replace(sell_weth(skewed), decision=exit_of_plan.decision)).passed


def test_the_spot_of_a_blocked_exit_is_not_asked_for() -> None:
    step = step_input({"WETH": 4_000, "LINK": 2_000, "USDC": 4_000}, pools=[v2_pool(WETH, USDC, 2_000)])
    blocked_step = replace(step, blocked_exits=(BlockedExit(LINK.address, "a stop fired", "no pool"),))
    assert verdict("oracle_deviation", blocked_step, sell_weth(blocked_step)).passed


def twap_at(price: Fraction | int, *sources: PriceSource) -> StepInput:
    """Spot and feed at 2,000, the mean of the last half hour elsewhere."""
    return step_input(pools=[v2_pool(WETH, USDC, 2_000), v3_pool(WETH, USDC, 2_000, twap_price=price)], kinds=sources)


def test_a_mean_off_its_feed_refuses_where_both_are_sources() -> None:
    judged = verdict("oracle_deviation", twap_at(2_040, FEED, TWAP), sell_weth(twap_at(2_040)))
    assert (judged.passed, mentions(judged.measured_text, "TWAP", "WETH")) == (False, True)
    assert verdict("oracle_deviation", twap_at(2_020, FEED, TWAP), sell_weth(twap_at(2_020))).passed


@pytest.mark.parametrize(("spot_before", "passed"), [(2_000, True), (2_100, False)], ids=["agreed", "pushed in this block"])
def test_an_exit_passes_a_late_mean_only_if_spot_and_feed_agreed_a_block_before(spot_before: int, passed: bool) -> None:
    step = twap_at(2_100, FEED, TWAP)
    head = step.snapshot.head
    past_prices = PastPrices(replace(head, number=head.number - 1), step.snapshot.feeds, (v2_pool(WETH, USDC, spot_before),))
    step = with_snapshot(step, past_prices=(past_prices,))
    assert verdict("oracle_deviation", step, exit_plan(sell_weth(step))).passed is passed


@pytest.mark.parametrize("sources", [(FEED,), (FEED, SPOT)])
def test_a_mean_that_is_no_source_does_not_hold_back_the_feed(sources: tuple[PriceSource, ...]) -> None:
    step = twap_at(2_100, *sources)
    assert verdict("oracle_deviation", step, sell_weth(step)).passed


def test_with_a_stale_feed_the_mean_is_the_reference_and_the_feed_s_age_refuses() -> None:
    step = with_feed(twap_at(2_000, FEED, TWAP), "WETH", updated_at_s=NOW_S - 3_601)
    plan = sell_weth(step)
    assert verdict("oracle_deviation", step, plan).passed
    assert not verdict("feed_health", step, plan).passed


@pytest.mark.parametrize(("age_s", "passed"), [(0, True), (3_600, True), (3_601, False)])
def test_a_feed_at_its_greatest_age_passes_and_one_second_older_fails(age_s: int, passed: bool) -> None:
    step = with_feed(step_input(), "WETH", updated_at_s=NOW_S - age_s)
    judged = verdict("feed_health", step, sell_weth(step_input()))
    assert (judged.passed, judged.limit) == (passed, "3600 s")
    if age_s > 60:
        assert judged.measured_text == f"{age_s} s (WETH)"


@pytest.mark.parametrize(
    ("round_fields", "reason"),
    [
        ({"answer": 0}, "returned 0"),
        ({"answer": -5}, "returned -5"),
        ({"updated_at_s": 0}, "unfinished round"),
        ({"answered_in_round": 6}, "unfinished round"),
        ({"updated_at_s": NOW_S + 1}, "dated after the block"),
    ],
)
def test_a_round_that_does_not_count_refuses(round_fields: dict[str, int], reason: str) -> None:
    judged = verdict("feed_health", with_feed(step_input(), "WETH", **round_fields), sell_weth(step_input()))
    assert (judged.passed, reason in judged.measured_text) == (False, True)


def test_a_feed_that_was_not_read_refuses_and_no_feed_in_use_passes() -> None:
    plan = sell_weth(step_input())
    assert mentions(verdict("feed_health", without_feed(step_input(), "WETH"), plan).measured_text, "unknown", "feed", "WETH")
    spot_step = without_feed(step_input(kinds=[SPOT]), "WETH")
    assert verdict("feed_health", spot_step, plan).passed
    plain_step = step_input()
    assets = tuple(replace(asset, feed=None) for asset in plain_step.portfolio.assets)
    assert verdict("feed_health", replace(plain_step, portfolio=replace(plain_step.portfolio, assets=assets)), plan).passed


def weth_as_hub(age_s: int | None) -> StepInput:
    """WETH as a hub with a feed of that age (None: not read), and LINK beside USDC as assets."""
    step = step_input({"LINK": 5_000, "USDC": 5_000}, hubs=["WETH"])
    rounds = [] if age_s is None else [feed_round("WETH", 2_000, NOW_S - age_s)]
    step = with_snapshot(step, feeds=(*step.snapshot.feeds, *rounds))
    return replace(step, portfolio=replace(step.portfolio, hub_feeds=((WETH.address, feed_address("WETH")),)))


@pytest.mark.parametrize("is_exit", [False, True], ids=["rebalance", "exit"])
@pytest.mark.parametrize(
    ("age_s", "passed", "measured"),
    [(3_600, True, "3600 s (WETH)"), (3_601, False, "3601 s (WETH)"), (None, False, "unknown: feed of WETH was not read")],
)
def test_feed_health__feed_of_the_native_coin_as_a_hub__counts(age_s: int | None, passed: bool, measured: str, is_exit: bool) -> None:
    step = weth_as_hub(age_s)
    plan = plan_of(step, [Swap(step.snapshot.pools[0], LINK.address, raw(1, LINK))])
    judged = verdict("feed_health", step, exit_plan(plan) if is_exit else plan)
    assert (judged.passed, judged.measured_text) == (passed, measured)


def test_feed_health__feed_of_another_hub__counts_where_the_plan_trades_it() -> None:
    step = weth_as_hub(3_601)
    step = replace(step, portfolio=replace(step.portfolio, wrapped_native=token("WBTC").address))
    direct = plan_of(step, [Swap(step.snapshot.pools[0], LINK.address, raw(1, LINK))])
    through_hub = replace(direct, legs=(replace(direct.legs[0], token_out=WETH.address),))
    assert verdict("feed_health", step, direct).passed
    assert verdict("feed_health", step, exit_plan(direct)).passed
    assert not verdict("feed_health", step, through_hub).passed
    assert not verdict("feed_health", step, exit_plan(through_hub)).passed


def test_feeds_are_watched_even_by_an_oracle_limit_of_zero() -> None:
    step = with_limits(with_feed(step_input(), "WETH", answer=0), oracle_deviation_bps=0)
    assert verdict("feed_health", step, sell_weth(step_input())).limit == "3600 s"


@pytest.mark.parametrize(("answer", "passed"), [(98_000_000, True), (97_999_999, False), (102_000_000, True), (102_000_001, False)])
def test_a_numeraire_at_the_edge_of_its_peg_passes_and_one_tick_beyond_fails(answer: int, passed: bool) -> None:
    step = with_feed(step_input(), "USDC", answer=answer)
    assert verdict("depeg", step, sell_weth(step_input())).passed is passed


@pytest.mark.parametrize(
    ("symbol", "is_dollar"), [("DAI", True), ("USDT", True), ("crvUSD", True), ("gho", True), ("LINK", False), ("EURC", False)]
)
def test_dollars_are_known_by_their_symbol(symbol: str, is_dollar: bool) -> None:
    step = step_input({"WETH": 4_000, symbol: 2_000, "USDC": 4_000}, prices={symbol: Fraction(1, 2), "WETH": 2_000, "USDC": 1})
    assert verdict("depeg", step, sell_weth(step)).passed is not is_dollar


def test_a_savings_dollar_above_its_peg_is_none_however_it_is_called() -> None:
    for price, passed in ((Fraction(121, 100), True), (Fraction(6, 5), False)):
        step = step_input({"WETH": 4_000, "sUSDe": 2_000, "USDC": 4_000}, prices={"sUSDe": price, "WETH": 2_000, "USDC": 1})
        assert verdict("depeg", step, sell_weth(step)).passed is passed


def test_a_dollar_without_a_feed_is_priced_through_the_numeraire() -> None:
    step = step_input({"WETH": 4_000, "DAI": 2_000, "USDC": 4_000}, kinds=[FEED, SPOT])
    assets = tuple(replace(asset, feed=None) if asset.token == DAI else asset for asset in step.portfolio.assets)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert verdict("depeg", step, sell_weth(step)).passed
    pools = (step.snapshot.pools[0], v2_pool(DAI, USDC, Fraction(97, 100)))
    fallen_step = with_snapshot(step, pools=pools)
    assert verdict("depeg", fallen_step, sell_weth(fallen_step)).measured_text == "300 bps (DAI)"


def test_a_dollar_priced_through_the_numeraire_falls_with_it() -> None:
    step = step_input({"WETH": 4_000, "DAI": 2_000, "USDC": 4_000}, kinds=[FEED, SPOT])
    assets = tuple(replace(asset, feed=None) if asset.token == DAI else asset for asset in step.portfolio.assets)
    step = with_feed(replace(step, portfolio=replace(step.portfolio, assets=assets)), "USDC", answer=97 * DOLLAR // 100)
    step = with_snapshot(step, pools=(step.snapshot.pools[0], v2_pool(DAI, USDC, 1)))
    (peg,) = dollar_pegs(step, reference_prices(step), 200, {DAI.address})
    assert peg.price_usd == Fraction(97, 100)


def test_a_dollar_that_nothing_prices_in_dollars_refuses() -> None:
    step = step_input(kinds=[SPOT])
    assets = tuple(replace(asset, feed=None) for asset in step.portfolio.assets)
    blind_step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    assert mentions(verdict("depeg", blind_step, sell_weth(step)).measured_text, "unknown", "USD feed", "USDC")


@pytest.mark.parametrize("round_fields", [{"updated_at_s": NOW_S - 3_601}, {"answer": 0}])
def test_a_dollar_whose_feed_does_not_count_refuses(round_fields: dict[str, int]) -> None:
    step = with_feed(step_input(), "USDC", **round_fields)
    judged = verdict("depeg", step, sell_weth(step_input()))
    assert (judged.passed, mentions(judged.measured_text, "unknown", "feed", "USDC")) == (False, True)


def test_a_portfolio_without_dollars_has_no_peg_to_lose() -> None:
    step = step_input({"WETH": 5_000, "LINK": 5_000}, numeraire="WETH", prices={"WETH": 1, "LINK": 1})
    plan = plan_of(step, [Swap(step.snapshot.pools[0], LINK.address, raw(1, LINK))])
    assert mentions(verdict("depeg", step, plan).measured_text, "dollar")
