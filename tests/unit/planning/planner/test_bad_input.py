"""Input that nobody would wish for: every plan keeps to its bounds and says what it left, or refuses and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm.v2_pool import V2Pool
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.errors import Refused
from agent.model import Plan, Pool, StepInput
from agent.planning.planner import plan
from agent.units import Token
from tests.support.builders import GWEI, step_input, token, v2_pool, v3_pool, with_feed, with_limits, with_snapshot
from tests.support.planning_worlds import DEEP, PRICES, USDC, WETH, check_legs, rebalance_to_targets, two, weights_bps, without_gas
from tests.support.text import mentions, raises_code


def made(step: StepInput) -> Plan:
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert found.gap_bps is not None
    return found


def reasons(found: Plan) -> dict[str, str]:
    return {item.subject: item.why for item in found.skipped}


def with_ticks(pool: V3Pool, net: Sequence[tuple[int, int]], known: tuple[int, int] | None = None) -> V3Pool:
    """The pool with these liquidity changes; what is active now follows from them."""
    ticks = tuple(TickLiquidity(index, change) for index, change in sorted(net))
    active = sum(tick.liquidity_net for tick in ticks if tick.index <= pool.tick)
    low, high = known or (pool.known_from_tick, pool.known_to_tick)
    return replace(pool, ticks=ticks, liquidity=active, known_from_tick=low, known_to_tick=high, twap_liquidity=max(active, 1))


# targets that the bounds forbid


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"price_impact_bps": 5}, "price_impact of 5 bps"),
        ({"turnover_bps": 100}, "limits.turnover"),
        ({"plan_cost_bps": 31, "turnover_bps": None}, "plan_cost"),
    ],
)
def test_targets_that_the_bounds_forbid_are_approached_and_the_rest_explained(limits: dict[str, object], said: str) -> None:
    step = with_limits(without_gas(two(9_000, 1_000, [v2_pool(WETH, USDC, 2_000, 2_000_000)])), **limits)
    found = made(step)
    assert 5_000 < weights_bps(step, found)["WETH"] < 9_000
    assert said in reasons(found)["WETH"]
    assert said in reasons(found)["USDC"]
    assert found.gap_bps is not None
    assert found.gap_bps < Fraction(1, 100), "what the bounds forbid is no part of the gap"


# contradictory limits


def test_limits_that_contradict_each_other_refuse_with_both_names() -> None:
    """Nothing may move less than 500, and nothing more than 100."""
    step = with_limits(two(5_800, 4_200), min_trade=Fraction(500 * 10**6), turnover_bps=100)
    with raises_code(Refused, "turnover") as refusal:
        plan(step, rebalance_to_targets(step))
    assert mentions(str(refusal.value), "limits.turnover", "limits.min_trade")


def test_a_slippage_and_an_impact_that_leave_nothing_to_trade_at_refuse() -> None:
    step = two(5_800, 4_200, [v2_pool(WETH, USDC, 2_000, DEEP, fee_pips=10_000)], price_impact_bps=0, slippage_bps=0)
    with raises_code(Refused, "plan_cost"):
        plan(step, rebalance_to_targets(step))


# V3 ranges


def test_a_price_outside_all_ranges_is_reached_across_the_empty_part() -> None:
    """Nothing is active at the price; the next range begins 30 ticks down and 40 up."""
    deep = v3_pool(WETH, USDC, 2_000, 200_000_000, 500)
    base = deep.tick // 10 * 10
    gone = with_ticks(
        deep,
        [(base - 200, deep.liquidity), (base - 30, -deep.liquidity), (base + 40, deep.liquidity), (base + 200, -deep.liquidity)],
        (base - 600, base + 600),
    )
    assert gone.liquidity == 0
    for weth, usdc in ((5_800, 4_200), (4_200, 5_800)):
        step = without_gas(two(weth, usdc, [gone], pool_min_value=None))
        found = made(step)
        assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
        assert found.legs[0].impact_bps >= 30, "the price runs to the range before anything is exchanged"
        assert found.gap_bps is not None
        assert found.gap_bps < Fraction(1, 100)


def test_ranges_that_end_before_the_price_bound_take_no_more_than_they_hold() -> None:
    deep = v3_pool(WETH, USDC, 2_000, 200_000, 500)
    base = deep.tick // 10 * 10
    gone = with_ticks(deep, [(base - 20, deep.liquidity), (base + 20, -deep.liquidity)], (base - 600, base + 600))
    step = without_gas(two(5_800, 4_200, [gone], pool_min_value=None))
    found = made(step)
    assert weights_bps(step, found)["WETH"] > 5_001
    assert gone.address in reasons(found)["WETH"]


def test_a_hole_of_zero_liquidity_between_ticks_is_crossed() -> None:
    """A little liquidity about the price, nothing for 20 ticks, then plenty: both ways."""
    deep = v3_pool(WETH, USDC, 2_000, 100_000_000, 500)
    base, little = deep.tick // 10 * 10, deep.liquidity // 10_000
    holed = with_ticks(
        deep,
        [
            (base - 300, deep.liquidity), (base - 20, -deep.liquidity), (base, little), (base + 10, -little),
            (base + 30, deep.liquidity), (base + 300, -deep.liquidity),
        ],
        (base - 600, base + 600),
    )  # fmt: skip
    assert holed.liquidity == little
    for weth, usdc in ((5_800, 4_200), (4_200, 5_800)):
        step = without_gas(two(weth, usdc, [holed], pool_min_value=None))
        found = made(step)
        assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
        assert found.gap_bps is not None
        assert found.gap_bps < Fraction(1, 100)


def test_a_pool_of_tick_spacing_one_with_a_change_at_every_tick_is_planned_to_the_unit() -> None:
    base_pool = v3_pool(WETH, USDC, 2_000, 3_000_000, 100)
    assert base_pool.tick_spacing == 1
    each = base_pool.liquidity // 50
    net = [(base_pool.tick - 49 + k, each) for k in range(50)] + [(base_pool.tick + 1 + k, -each) for k in range(50)]
    fine = with_ticks(base_pool, net, (base_pool.tick - 200, base_pool.tick + 200))
    assert fine.liquidity == 50 * each
    step = without_gas(two(5_100, 4_900, [fine], pool_min_value=None))
    found = made(step)
    assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
    assert found.gap_bps is not None
    assert found.gap_bps < Fraction(1, 100)


# amounts


def test_amounts_near_two_to_the_128_are_planned_in_exact_integers() -> None:
    """Three hundred million coins of 30 decimals at a hundredth of a cent, in a V3 pool, and a pair as full as a pair can be."""
    vast = Token(token("VAST").address, "VAST", 30)
    prices = {"VAST": Fraction(1, 10**4), "WETH": 2_000}
    full = v3_pool(vast, USDC, prices["VAST"], 30_000_000, 3_000)
    pair = V2Pool(v2_pool(vast, USDC, prices["VAST"]).address, "uniswap_v2", full.token0, full.token1, *_brim(full, vast))
    step = without_gas(step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 0, "USDC": 10_000}, prices))
    held = [holding for holding in step.snapshot.holdings if holding.token == USDC.address]
    assets = tuple(replace(asset, token=vast, feed=asset.feed) if asset.token == WETH else asset for asset in step.portfolio.assets)
    worth = 300_000_000 * 10**30
    assert 2**127 < worth < 2**128
    feeds = with_feed(step, "WETH", answer=10**4).snapshot.feeds
    holding = replace(held[0], token=vast.address, raw=worth)
    step = replace(
        step,
        portfolio=replace(step.portfolio, assets=assets),
        snapshot=replace(step.snapshot, holdings=(holding, *held), pools=(full, pair), feeds=feeds),
    )
    step = with_limits(step, plan_cost_bps=None, turnover_bps=None, daily_turnover_bps=None)
    found = made(step)
    assert max(leg.amount_in_raw for leg in found.legs) > 2**124
    assert weights_bps(step, found)["VAST"] == pytest.approx(5_000, abs=1)


def _brim(like: V3Pool, vast: Token) -> tuple[int, int]:
    """Reserves of a pair at the same price, the larger just below the 112 bits of a V2 reserve."""
    most, other = 2**112 - 10**9, (2**112 - 10**9) * 10**6 // 10**34
    return (most, other) if like.token0 == vast.address else (other, most)


@pytest.mark.parametrize("decimals", [0, 24])
@pytest.mark.parametrize("version", [2, 3])
def test_tokens_of_no_and_of_many_decimals_end_where_their_units_let_them(decimals: int, version: int) -> None:
    odd = Token(token("LINK").address, "LINK", decimals)
    pool: Pool = v2_pool(odd, USDC, 15, DEEP) if version == 2 else v3_pool(odd, USDC, 15, DEEP, 3_000)
    pools = [pool, v3_pool(WETH, USDC, 2_000, DEEP)]
    targets = {"LINK": 5_000, "USDC": 4_000, "WETH": 1_000}
    step = without_gas(step_input(targets, {"LINK": 58_005, "USDC": 31_995, "WETH": 10_000}, PRICES, pools=pools))
    assets = tuple(replace(asset, token=odd) if asset.token.symbol == "LINK" else asset for asset in step.portfolio.assets)
    holdings = tuple(
        replace(holding, raw=58_005 * 10**decimals // 15) if holding.token == odd.address else holding for holding in step.snapshot.holdings
    )
    step = replace(step, portfolio=replace(step.portfolio, assets=assets), snapshot=replace(step.snapshot, holdings=holdings))
    found = made(with_limits(step, min_trade=None))
    assert weights_bps(step, found)["LINK"] == pytest.approx(5_000, abs=2), "a unit of the coarse token is worth one and a half"
    unit_bps = 15 * 10_000 / 8_000
    assert found.gap_bps is not None
    assert found.gap_bps < (unit_bps if decimals == 0 else Fraction(1, 1_000)), "a fee is rounded up to a unit"


# references


def test_a_reference_price_of_zero_or_none_at_all_refuses_and_names_the_token() -> None:
    step = two(5_800, 4_200, [v2_pool(WETH, USDC, 2_000, DEEP)])
    for broken in (with_feed(step, "WETH", answer=0), with_feed(step, "WETH", answer=-1)):
        with raises_code(Refused, "reference", "WETH") as refusal:
            plan(broken, rebalance_to_targets(broken))
        assert "feed" in str(refusal.value)
        assert [(one.guard, one.passed) for one in refusal.value.verdicts] == [("reference", False)]


def test_a_balance_that_was_not_read_refuses_and_names_the_token() -> None:
    step = two(5_800, 4_200, [v2_pool(WETH, USDC, 2_000, DEEP)])
    left = tuple(one for one in step.snapshot.holdings if one.token != WETH.address)
    with raises_code(Refused, "balance", "WETH") as refusal:
        plan(with_snapshot(step, holdings=left), rebalance_to_targets(step))
    assert [(one.guard, one.passed) for one in refusal.value.verdicts] == [("balance", False)]


def test_a_pool_that_pays_over_one_and_a_quarter_of_the_reference_is_not_traded_and_named() -> None:
    """Either the reference is wrong or the pool is: no profit is worth finding out which."""
    far = v3_pool(WETH, USDC, 2_000 * Fraction(126, 100), DEEP, 500, name="far")
    near = v3_pool(WETH, USDC, 2_000 * Fraction(124, 100), DEEP, 500, name="near")
    sound = v3_pool(WETH, USDC, 2_000, DEEP, 3_000)
    step = without_gas(two(5_800, 4_200, [far, sound]))
    found = made(step)
    assert {leg.pool for leg in found.legs} == {sound.address}
    assert "1.25 times" in reasons(found)[f"pool {far.address}"]
    used = made(without_gas(two(5_800, 4_200, [near, sound])))
    assert near.address in {leg.pool for leg in used.legs}
    only = without_gas(two(5_800, 4_200, [far]))
    with raises_code(Refused, "plan_cost", "1.25 times"):
        plan(only, rebalance_to_targets(only))


# baits of threat T9


def test_a_bait_off_by_one_point_four_percent_pulls_no_more_through_than_the_drift() -> None:
    """Three tokens, the bait between two of them that need nothing from each other: a circle of arbitrage stays undone."""
    dai = token("DAI")
    pools: list[Pool] = [
        v3_pool(WETH, USDC, 2_028, 100_000_000, name="bait"), v3_pool(WETH, USDC, 2_000, DEEP, 3_000),
        v3_pool(WETH, dai, 2_000, DEEP, 3_000), v3_pool(dai, USDC, 1, DEEP, 100),
    ]  # fmt: skip
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}
    step = step_input(targets, {"WETH": 40_500, "USDC": 30_000, "DAI": 29_500}, PRICES, pools=pools)
    found = made(with_limits(step, turnover_bps=None, daily_turnover_bps=None))
    assert found.turnover <= Fraction(500 * 10**6) * Fraction(105, 100)
    assert found.gross_volume <= 2 * found.turnover * Fraction(105, 100), "at most one hub on the way"
    assert found.cost.total < 0 or found.cost.skew < 0, "what the bait pays on the way is taken"


def test_a_hundred_dust_ticks_are_not_worth_their_gas() -> None:
    """A pool of a lower fee whose every tick on the way costs gas, beside a plain one."""
    plain = v3_pool(WETH, USDC, 2_000, DEEP, 500)
    shape = v3_pool(WETH, USDC, 2_000, 2_000_000, 100, name="dust")
    net = [(shape.tick + 1 + k, -1) for k in range(100)] + [(shape.tick - 99 + k, 1) for k in range(100)]
    net += [(shape.tick - 5_000, shape.liquidity), (shape.tick + 5_000, -shape.liquidity)]
    dusty = with_ticks(shape, net, (shape.tick - 6_000, shape.tick + 6_000))
    step = with_limits(two(50_000, 30_000, [plain, dusty]), turnover_bps=None, daily_turnover_bps=None, pool_min_value=None)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=20 * GWEI))
    found = made(step)
    assert [leg.pool for leg in found.legs] == [plain.address]
    assert found.gas_units < 200_000
    assert "gas costs" in reasons(found)[f"pool {dusty.address}"]
    free = made(without_gas(step))
    assert dusty.address in {leg.pool for leg in free.legs}
    assert free.gas_units > 400_000, "without a price of gas ticks are crossed"


def test_a_cost_of_zero_is_a_refusal_with_its_reason_and_no_crash() -> None:
    step = with_limits(step_input(values={"WETH": 8_000, "USDC": 2_000}), plan_cost_bps=0)
    with raises_code(Refused, "plan_cost", "0 bps"):
        made(step)
