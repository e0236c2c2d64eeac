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


def step_with_pools(pools: list[Pool] | None = None, **limits: object) -> StepInput:
    """100 WETH and 200,000 USDC over one V2 pair and two V3 pools, by default."""
    default_pools = [v2_pool(WETH, USDC, 2_000, 4_000_000), v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, 3_000)]
    return with_limits(step_input(None, {"WETH": 200_000, "USDC": 200_000}, PRICES, pools=pools or default_pools), **limits)


def wallet_output_raw(plan: Plan) -> int:
    return sum(leg.amount_out_raw for leg in plan.legs if leg.sink is LegPlace.WALLET)


def test_swap_sells_the_exact_amount_and_beats_each_pool() -> None:
    step = step_with_pools()
    plan = plan_swap(step, WETH.address, USDC.address, 50 * ONE)
    check_legs(step, plan)
    assert sum(leg.amount_in_raw for leg in plan.legs) == 50 * ONE
    singles = [pool.swap(WETH.address, 50 * ONE).amount_out_raw for pool in step.snapshot.pools]
    assert wallet_output_raw(plan) >= max(singles)
    assert mentions(plan.decision.reason, "50 WETH")
    assert plan.verdicts == ()
    shares = {weight.token: weight.low for weight in plan.decision.goal.weights}
    assert abs(shares[WETH.address] * 10_000 - weights_bps(step, plan)["WETH"]) <= 1


@pytest.mark.parametrize("coins", [1, 20, 400])
def test_quote_splits_as_well_as_a_fine_grid(coins: int) -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 10_000_000), v3_pool(WETH, USDC, 2_001, 20_000_000, 3_000)]
    amount = coins * ONE
    result = quote(step_with_pools(pools), WETH.address, USDC.address, amount)
    best = 0
    for part in range(101):
        first = amount * part // 100
        paid = pools[0].swap(WETH.address, first).amount_out_raw if first else 0
        best = max(best, paid + (pools[1].swap(WETH.address, amount - first).amount_out_raw if amount > first else 0))
    gas = Fraction(230_000 * 11 * 10**8 * 2_000 * 10**6, ONE)
    assert result.amount_out_raw >= best * (1 - Fraction(1, 10**6)) - gas


def test_swap_goes_through_a_hub_without_a_direct_pool() -> None:
    pools: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP), v2_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, PRICES, hubs=("DAI",), pools=pools)
    plan = plan_swap(step, WETH.address, USDC.address, 40 * ONE)
    check_legs(step, plan)
    assert {leg.token_out for leg in plan.legs if leg.sink is LegPlace.ROUTER} == {DAI.address}
    assert sum(leg.amount_in_raw for leg in plan.legs if leg.source is LegPlace.WALLET) == 40 * ONE


def test_swap_beyond_price_impact_says_how_much_fits() -> None:
    pool = v2_pool(WETH, USDC, 2_000, 1_000_000)
    step = step_with_pools([pool])
    with pytest.raises(Refused) as caught:
        plan_swap(step, WETH.address, USDC.address, 90 * ONE)
    assert caught.value.verdicts[0].guard == "price_impact"
    fits = pool.max_in(WETH.address, 100)
    assert str(fits)[:6] in caught.value.message.replace(".", "")
    assert wallet_output_raw(plan_swap(step, WETH.address, USDC.address, fits)) > 0


def test_swap_beyond_the_spendable_balance_is_refused() -> None:
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, reserves={"WETH": 1}, depth=DEEP)
    with raises_code(Refused, "balance", "spendable balance"):
        plan_swap(step, WETH.address, USDC.address, 101 * ONE)


def test_swap_keeps_the_floors_and_names_a_skewed_pool() -> None:
    skewed, fair = v3_pool(WETH, USDC, 1_960, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, 10_000)
    with pytest.raises(Refused) as caught:
        plan_swap(step_with_pools([skewed]), WETH.address, USDC.address, 10 * ONE)
    assert caught.value.verdicts[0].guard == "fair_floor"
    plan = plan_swap(step_with_pools([skewed, fair]), WETH.address, USDC.address, 10 * ONE)
    assert [leg.pool for leg in plan.legs] == [fair.address]
    assert plan.legs[0].min_out_raw >= fair_floor(10 * ONE, Fraction(2_000 * 10**6, ONE), Fraction(1), 10_000, 100, 30)


def test_small_swap_is_not_dropped_for_its_gas() -> None:
    step = with_snapshot(step_with_pools(), priority_fee_wei=500 * 10**9)
    plan = plan_swap(step, WETH.address, USDC.address, ONE // 1_000)
    assert len(plan.legs) == 1
    assert plan.cost.gas > plan.turnover
    with raises_code(Refused, "route"):
        quote(step, WETH.address, USDC.address, 1_000_000)


def test_swap_without_route_or_with_wrong_tokens_is_refused() -> None:
    step_without_route = step_input({"WETH": 5_000, "LINK": 5_000}, {"WETH": 200_000, "LINK": 1_000}, PRICES, numeraire="USDC",
                        pools=[v3_pool(WETH, USDC, 2_000, DEEP)])  # fmt: skip
    step_without_route = replace(step_without_route, portfolio=replace(step_without_route.portfolio, hubs=(USDC,)))
    with raises_code(Refused, "reference"):
        plan_swap(step_without_route, WETH.address, LINK.address, ONE)
    with raises_code(Refused, "route"):
        quote(step_without_route, WETH.address, LINK.address, ONE)
    step = step_with_pools()
    with raises_field("token", "asset", "hub"):
        plan_swap(step, WETH.address, DAI.address, ONE)
    with pytest.raises(ConfigError, match="the same"):
        quote(step, WETH.address, WETH.address, ONE)
    with raises_field("amount", "above zero"):
        quote(step, WETH.address, USDC.address, 0)


def test_swap_needs_a_reference_price_of_a_hub() -> None:
    pools: list[Pool] = [v3_pool(WETH, DAI, 2_000, DEEP, window_s=None)]
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, hubs=("DAI",), pools=pools)
    with raises_code(Refused, "reference_price"):
        plan_swap(step, WETH.address, DAI.address, ONE)


def test_quote_of_a_pool_is_exactly_what_it_pays() -> None:
    step = step_with_pools(slippage_bps=30)
    for pool in step.snapshot.pools:
        exact = pool.swap(WETH.address, 3 * ONE)
        result = quote(step, WETH.address, USDC.address, 3 * ONE, pool.address)
        assert (result.amount_in_raw, result.amount_out_raw) == (3 * ONE, exact.amount_out_raw)
        assert result.price_impact_bps == amm.price_move_bps(pool, exact.pool_after, WETH.address)
        assert result.fee == exact.fee_raw * Fraction(2_000 * 10**6, ONE)
        assert result.legs[0].min_out_raw == exact.amount_out_raw * 9_970 // 10_000


def test_quote_ends_at_known_ticks_and_not_at_price_impact() -> None:
    pool = v3_pool(WETH, USDC, 2_000, DEEP)
    step = step_with_pools([replace(pool, known_from_tick=pool.tick - 50, known_to_tick=pool.tick + 50, ticks=())])
    at = step.snapshot.pools[0].address
    with pytest.raises(BeyondKnownTicks):
        quote(step, WETH.address, USDC.address, 10_000 * ONE, at)
    with raises_code(Refused, "price_impact", "ticks read"):
        quote(step, WETH.address, USDC.address, 10_000 * ONE)
    wide = step_with_pools([v2_pool(WETH, USDC, 2_000, 100_000)])
    assert quote(wide, WETH.address, USDC.address, 50 * ONE).price_impact_bps > 5_000


def test_quote_of_an_unknown_or_foreign_pool_is_refused() -> None:
    step = step_with_pools()
    with raises_field("pool", "not a known pool"):
        quote(step, WETH.address, USDC.address, ONE, WETH.address)
    foreign = with_snapshot(step, pools=(*step.snapshot.pools, v3_pool(DAI, LINK, 1, DEEP)))
    with raises_field("pool", "not trade"):
        quote(foreign, WETH.address, USDC.address, ONE, foreign.snapshot.pools[-1].address)


def test_quote_needs_no_feed() -> None:
    step = without_feed(step_with_pools(), "WETH")
    assert quote(step, WETH.address, USDC.address, ONE).amount_out_raw > 1_990 * 10**6
