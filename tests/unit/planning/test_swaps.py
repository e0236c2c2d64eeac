"""Swaps by hand and quotes: the whole amount or a refusal, the best split, and what one pool would pay exactly."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm import pools as amm
from agent.amm.swap_errors import BeyondKnownTicks
from agent.errors import ConfigError, Refused
from agent.model import LegPlace, Plan, Pool, StepInput
from agent.planning.planner import plan_swap, quote
from agent.reference.floors import fair_floor
from tests.support.builders import step_input, token, v2_pool, v3_pool, with_limits, with_snapshot, without_feed
from tests.support.planning_worlds import PRICES, check_legs, weights_bps
from tests.support.text import mentions, raises_code, raises_field

WETH, USDC, DAI, LINK = (token(symbol) for symbol in ("WETH", "USDC", "DAI", "LINK"))
ONE = 10**18
DEEP = 50_000_000


def world(pools: list[Pool] | None = None, **limits: object) -> StepInput:
    """100 WETH and 200,000 USDC over one V2 pair and two V3 pools, by default."""
    found = [v2_pool(WETH, USDC, 2_000, 4_000_000), v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, 3_000)]
    return with_limits(step_input(None, {"WETH": 200_000, "USDC": 200_000}, PRICES, pools=pools or found), **limits)


def out(found: Plan) -> int:
    return sum(leg.amount_out_raw for leg in found.legs if leg.sink is LegPlace.WALLET)


def test_a_swap_sells_exactly_the_amount_and_beats_every_single_pool() -> None:
    step = world()
    found = plan_swap(step, WETH.address, USDC.address, 50 * ONE)
    check_legs(step, found)
    assert sum(leg.amount_in_raw for leg in found.legs) == 50 * ONE
    singles = [pool.swap(WETH.address, 50 * ONE).amount_out_raw for pool in step.snapshot.pools]
    assert out(found) >= max(singles)
    assert mentions(found.decision.reason, "50 WETH")
    assert found.verdicts == ()
    shares = {weight.token: weight.low for weight in found.decision.goal.weights}
    assert abs(shares[WETH.address] * 10_000 - weights_bps(step, found)["WETH"]) <= 1


@pytest.mark.parametrize("coins", [1, 20, 400])
def test_the_split_is_as_good_as_a_fine_grid(coins: int) -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 10_000_000), v3_pool(WETH, USDC, 2_001, 20_000_000, 3_000)]
    amount = coins * ONE
    found = quote(world(pools), WETH.address, USDC.address, amount)
    best = 0
    for part in range(101):
        first = amount * part // 100
        paid = pools[0].swap(WETH.address, first).amount_out_raw if first else 0
        best = max(best, paid + (pools[1].swap(WETH.address, amount - first).amount_out_raw if amount > first else 0))
    gas = Fraction(230_000 * 11 * 10**8 * 2_000 * 10**6, ONE)
    assert found.amount_out_raw >= best * (1 - Fraction(1, 10**6)) - gas


def test_a_swap_goes_through_a_hub_where_no_pool_is_direct() -> None:
    pools: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP), v2_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, PRICES, hubs=("DAI",), pools=pools)
    found = plan_swap(step, WETH.address, USDC.address, 40 * ONE)
    check_legs(step, found)
    assert {leg.token_out for leg in found.legs if leg.sink is LegPlace.ROUTER} == {DAI.address}
    assert sum(leg.amount_in_raw for leg in found.legs if leg.source is LegPlace.WALLET) == 40 * ONE


def test_a_swap_beyond_the_impact_bound_refuses_and_says_how_much_fits() -> None:
    pool = v2_pool(WETH, USDC, 2_000, 1_000_000)
    step = world([pool])
    with pytest.raises(Refused) as caught:
        plan_swap(step, WETH.address, USDC.address, 90 * ONE)
    assert caught.value.verdicts[0].guard == "price_impact"
    fits = pool.max_in(WETH.address, 100)
    assert str(fits)[:6] in caught.value.message.replace(".", "")
    assert out(plan_swap(step, WETH.address, USDC.address, fits)) > 0


def test_a_swap_of_more_than_the_wallet_may_spend_refuses() -> None:
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, reserves={"WETH": 1}, depth=DEEP)
    with raises_code(Refused, "balance", "spendable balance"):
        plan_swap(step, WETH.address, USDC.address, 101 * ONE)


def test_a_swap_keeps_the_floors_and_names_a_skewed_pool() -> None:
    skewed, fair = v3_pool(WETH, USDC, 1_960, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, 10_000)
    with pytest.raises(Refused) as caught:
        plan_swap(world([skewed]), WETH.address, USDC.address, 10 * ONE)
    assert caught.value.verdicts[0].guard == "fair_floor"
    found = plan_swap(world([skewed, fair]), WETH.address, USDC.address, 10 * ONE)
    assert [leg.pool for leg in found.legs] == [fair.address]
    assert found.legs[0].min_out_raw >= fair_floor(10 * ONE, Fraction(2_000 * 10**6, ONE), Fraction(1), 10_000, 100, 30)


def test_a_small_swap_is_not_dropped_for_its_gas() -> None:
    step = with_snapshot(world(), priority_fee_wei=500 * 10**9)
    found = plan_swap(step, WETH.address, USDC.address, ONE // 1_000)
    assert len(found.legs) == 1
    assert found.cost.gas > found.turnover
    with raises_code(Refused, "route"):
        quote(step, WETH.address, USDC.address, 1_000_000)


def test_a_swap_without_a_route_or_with_wrong_tokens_is_refused_in_words() -> None:
    lonely = step_input({"WETH": 5_000, "LINK": 5_000}, {"WETH": 200_000, "LINK": 1_000}, PRICES, numeraire="USDC",
                        pools=[v3_pool(WETH, USDC, 2_000, DEEP)])  # fmt: skip
    lonely = replace(lonely, portfolio=replace(lonely.portfolio, hubs=(USDC,)))
    with raises_code(Refused, "reference"):
        plan_swap(lonely, WETH.address, LINK.address, ONE)
    with raises_code(Refused, "route"):
        quote(lonely, WETH.address, LINK.address, ONE)
    step = world()
    with raises_field("token", "asset", "hub"):
        plan_swap(step, WETH.address, DAI.address, ONE)
    with pytest.raises(ConfigError, match="the same"):
        quote(step, WETH.address, WETH.address, ONE)
    with raises_field("amount", "above zero"):
        quote(step, WETH.address, USDC.address, 0)


def test_a_hub_without_a_reference_price_cannot_be_swapped_by_hand() -> None:
    pools: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP, window_s=None)]
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, hubs=("DAI",), pools=pools)
    with raises_code(Refused, "reference_price"):
        plan_swap(step, WETH.address, DAI.address, ONE)


def test_a_quote_of_one_pool_is_exactly_what_that_pool_pays() -> None:
    step = world(slippage_bps=30)
    for pool in step.snapshot.pools:
        exact = pool.swap(WETH.address, 3 * ONE)
        found = quote(step, WETH.address, USDC.address, 3 * ONE, pool.address)
        assert (found.amount_in_raw, found.amount_out_raw) == (3 * ONE, exact.amount_out_raw)
        assert found.price_impact_bps == amm.price_move_bps(pool, exact.pool_after, WETH.address)
        assert found.fee == exact.fee_raw * Fraction(2_000 * 10**6, ONE)
        assert found.legs[0].min_out_raw == exact.amount_out_raw * 9_970 // 10_000


def test_a_quote_knows_no_impact_bound_but_the_end_of_the_ticks_read() -> None:
    pool = v3_pool(WETH, USDC, 2_000, DEEP)
    step = world([replace(pool, known_from_tick=pool.tick - 50, known_to_tick=pool.tick + 50, ticks=())])
    at = step.snapshot.pools[0].address
    with pytest.raises(BeyondKnownTicks):
        quote(step, WETH.address, USDC.address, 10_000 * ONE, at)
    with raises_code(Refused, "price_impact", "ticks read"):
        quote(step, WETH.address, USDC.address, 10_000 * ONE)
    wide = world([v2_pool(WETH, USDC, 2_000, 100_000)])
    assert quote(wide, WETH.address, USDC.address, 50 * ONE).price_impact_bps > 5_000


def test_a_quote_of_an_unknown_or_foreign_pool_is_a_usage_error() -> None:
    step = world()
    with raises_field("pool", "not a known pool"):
        quote(step, WETH.address, USDC.address, ONE, WETH.address)
    foreign = with_snapshot(step, pools=(*step.snapshot.pools, v3_pool(DAI, LINK, 1, DEEP)))
    with raises_field("pool", "not trade"):
        quote(foreign, WETH.address, USDC.address, ONE, foreign.snapshot.pools[-1].address)


def test_a_quote_needs_no_feed() -> None:
    step = without_feed(world(), "WETH")
    assert quote(step, WETH.address, USDC.address, ONE).amount_out_raw > 1_990 * 10**6
