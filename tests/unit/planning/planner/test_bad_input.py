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
from agent.planning import planner
from agent.units import Token
from tests.support.builders import GWEI, step_input, token, v2_pool, v3_pool, with_feed, with_limits, with_snapshot, without_feed
from tests.support.planning_worlds import (
    DEEP,
    PRICES,
    USDC,
    WETH,
    checked_plan,
    gap_of,
    rebalance_to_targets,
    two,
    weights_bps,
    without_gas,
)
from tests.support.text import mentions, raises_code


def reason_by_subject(plan: Plan) -> dict[str, str]:
    return {item.subject: item.why for item in plan.skipped}


def with_ticks(pool: V3Pool, net: Sequence[tuple[int, int]], known: tuple[int, int] | None = None) -> V3Pool:
    """The pool with these liquidity changes; what is active now follows from them."""
    ticks = tuple(TickLiquidity(index, change) for index, change in sorted(net))
    active = sum(tick.liquidity_net for tick in ticks if tick.index <= pool.tick)
    low, high = known or (pool.known_from_tick, pool.known_to_tick)
    return replace(pool, ticks=ticks, liquidity=active, known_from_tick=low, known_to_tick=high, twap_liquidity=max(active, 1))


# targets that the bounds forbid


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"price_impact_bps": 5}, "price_impact of 5 bps"),
        ({"turnover_bps": 100}, "limits.turnover"),
        ({"plan_cost_bps": 31, "turnover_bps": None}, "plan_cost"),
    ],
)
def test_plan_approaches_targets_that_its_limits_forbid(limits: dict[str, object], reason: str) -> None:
    step = with_limits(without_gas(two(9_000, 1_000, [v2_pool(WETH, USDC, 2_000, 2_000_000)])), **limits)
    plan = checked_plan(step)
    assert 5_000 < weights_bps(step, plan)["WETH"] < 9_000
    assert reason in reason_by_subject(plan)["WETH"]
    assert reason in reason_by_subject(plan)["USDC"]
    assert gap_of(plan) < Fraction(1, 100), "what the bounds forbid is no part of the gap"


# contradictory limits


def test_plan_refuses_contradicting_limits_by_both_names() -> None:
    """Nothing may move less than 500, and nothing more than 100."""
    step = with_limits(two(5_800, 4_200), min_trade=Fraction(500 * 10**6), turnover_bps=100)
    with raises_code(Refused, "turnover") as refusal:
        planner.plan(step, rebalance_to_targets(step))
    assert mentions(str(refusal.value), "limits.turnover", "limits.min_trade")


def test_plan_refuses_where_slippage_and_impact_allow_nothing() -> None:
    step = two(5_800, 4_200, [v2_pool(WETH, USDC, 2_000, DEEP, fee_pips=10_000)], price_impact_bps=0, slippage_bps=0)
    with raises_code(Refused, "plan_cost"):
        planner.plan(step, rebalance_to_targets(step))


# V3 ranges


@pytest.mark.parametrize("weth_usd", [5_800, 4_200], ids=["sells", "buys"])
def test_plan_crosses_an_empty_part_to_the_next_range(weth_usd: int) -> None:
    """Nothing is active at the price; the next range begins 30 ticks down and 40 up."""
    deep = v3_pool(WETH, USDC, 2_000, 200_000_000, 500)
    base = deep.tick // 10 * 10
    gone = with_ticks(
        deep,
        [(base - 200, deep.liquidity), (base - 30, -deep.liquidity), (base + 40, deep.liquidity), (base + 200, -deep.liquidity)],
        (base - 600, base + 600),
    )
    assert gone.liquidity == 0
    step = without_gas(two(weth_usd, 10_000 - weth_usd, [gone], pool_min_value=None))

    plan = checked_plan(step)

    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert plan.legs[0].impact_bps >= 30, "the price runs to the range before anything is exchanged"
    assert gap_of(plan) < Fraction(1, 100)


def test_plan_takes_no_more_than_the_ranges_hold() -> None:
    deep = v3_pool(WETH, USDC, 2_000, 200_000, 500)
    base = deep.tick // 10 * 10
    gone = with_ticks(deep, [(base - 20, deep.liquidity), (base + 20, -deep.liquidity)], (base - 600, base + 600))
    step = without_gas(two(5_800, 4_200, [gone], pool_min_value=None))
    plan = checked_plan(step)
    assert weights_bps(step, plan)["WETH"] > 5_001
    assert gone.address in reason_by_subject(plan)["WETH"]


@pytest.mark.parametrize("weth_usd", [5_800, 4_200], ids=["sells", "buys"])
def test_plan_crosses_a_gap_without_liquidity(weth_usd: int) -> None:
    """A little liquidity about the price, nothing for 20 ticks, then plenty: both ways."""
    deep = v3_pool(WETH, USDC, 2_000, 100_000_000, 500)
    base = deep.tick // 10 * 10
    little = deep.liquidity // 10_000
    holed = with_ticks(
        deep,
        [
            (base - 300, deep.liquidity), (base - 20, -deep.liquidity), (base, little), (base + 10, -little),
            (base + 30, deep.liquidity), (base + 300, -deep.liquidity),
        ],
        (base - 600, base + 600),
    )  # fmt: skip
    assert holed.liquidity == little
    step = without_gas(two(weth_usd, 10_000 - weth_usd, [holed], pool_min_value=None))

    plan = checked_plan(step)

    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert gap_of(plan) < Fraction(1, 100)


def test_plan_is_exact_in_a_pool_with_a_change_at_every_tick() -> None:
    base_pool = v3_pool(WETH, USDC, 2_000, 3_000_000, 100)
    assert base_pool.tick_spacing == 1
    unit_liquidity = base_pool.liquidity // 50
    net = [(base_pool.tick - 49 + k, unit_liquidity) for k in range(50)] + [(base_pool.tick + 1 + k, -unit_liquidity) for k in range(50)]
    fine = with_ticks(base_pool, net, (base_pool.tick - 200, base_pool.tick + 200))
    assert fine.liquidity == 50 * unit_liquidity
    step = without_gas(two(5_100, 4_900, [fine], pool_min_value=None))
    plan = checked_plan(step)
    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert gap_of(plan) < Fraction(1, 100)


# amounts


def test_plan_is_exact_for_amounts_near_two_to_the_128() -> None:
    """Three hundred million coins of 30 decimals at a hundredth of a cent, in a V3 pool, and a pair as full as a pair can be."""
    vast = Token(token("VAST").address, "VAST", 30)
    prices = {"VAST": Fraction(1, 10**4), "WETH": 2_000}
    full = v3_pool(vast, USDC, prices["VAST"], 30_000_000, 3_000)
    pair = V2Pool(v2_pool(vast, USDC, prices["VAST"]).address, "uniswap_v2", full.token0, full.token1, *full_reserves(full, vast))
    step = without_gas(step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 0, "USDC": 10_000}, prices))
    usdc_holdings = [holding for holding in step.snapshot.holdings if holding.token == USDC.address]
    assets = tuple(replace(asset, token=vast, feed=asset.feed) if asset.token == WETH else asset for asset in step.portfolio.assets)
    worth = 300_000_000 * 10**30
    assert 2**127 < worth < 2**128
    feeds = with_feed(step, "WETH", answer=10**4).snapshot.feeds
    holding = replace(usdc_holdings[0], token=vast.address, raw=worth)
    step = replace(
        step,
        portfolio=replace(step.portfolio, assets=assets),
        snapshot=replace(step.snapshot, holdings=(holding, *usdc_holdings), pools=(full, pair), feeds=feeds),
    )
    step = with_limits(step, plan_cost_bps=None, turnover_bps=None, daily_turnover_bps=None)
    plan = checked_plan(step)
    assert max(leg.amount_in_raw for leg in plan.legs) > 2**124
    assert weights_bps(step, plan)["VAST"] == pytest.approx(5_000, abs=1)


def full_reserves(like: V3Pool, vast: Token) -> tuple[int, int]:
    """Reserves of a pair at the same price, the larger just below the 112 bits of a V2 reserve."""
    most = 2**112 - 10**9
    other = (2**112 - 10**9) * 10**6 // 10**34
    return (most, other) if like.token0 == vast.address else (other, most)


@pytest.mark.parametrize("decimals", [0, 24])
@pytest.mark.parametrize("version", [2, 3])
def test_plan_ends_within_a_unit_of_tokens_of_any_decimals(decimals: int, version: int) -> None:
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
    plan = checked_plan(with_limits(step, min_trade=None))
    assert weights_bps(step, plan)["LINK"] == pytest.approx(5_000, abs=2), "a unit of the coarse token is worth one and a half"
    unit_bps = 15 * 10_000 / 8_000
    assert gap_of(plan) < (unit_bps if decimals == 0 else Fraction(1, 1_000)), "a fee is rounded up to a unit"


# references


DEEP_STEP = two(5_800, 4_200, [v2_pool(WETH, USDC, 2_000, DEEP)])


@pytest.mark.parametrize(
    ("step", "code", "figures"),
    [
        pytest.param(with_feed(DEEP_STEP, "WETH", answer=0), "reference", ("WETH", "feed"), id="price of zero"),
        pytest.param(with_feed(DEEP_STEP, "WETH", answer=-1), "reference", ("WETH", "feed"), id="negative price"),
        pytest.param(without_feed(DEEP_STEP, "WETH"), "reference", ("WETH", "feed"), id="no price at all"),
        pytest.param(
            with_snapshot(DEEP_STEP, holdings=tuple(holding for holding in DEEP_STEP.snapshot.holdings if holding.token != WETH.address)),
            "balance",
            ("WETH",),
            id="balance that was not read",
        ),
    ],
)
def test_plan_refuses_an_unknown_price_or_balance_by_name(step: StepInput, code: str, figures: tuple[str, ...]) -> None:
    with raises_code(Refused, code, *figures) as refusal:
        planner.plan(step, rebalance_to_targets(step))

    assert [(verdict.guard, verdict.passed) for verdict in refusal.value.verdicts] == [(code, False)]


def test_plan_skips_a_pool_paying_over_125_percent() -> None:
    """Either the reference is wrong or the pool is: no profit is worth finding out which."""
    far = v3_pool(WETH, USDC, 2_000 * Fraction(126, 100), DEEP, 500, name="far")
    near = v3_pool(WETH, USDC, 2_000 * Fraction(124, 100), DEEP, 500, name="near")
    sound = v3_pool(WETH, USDC, 2_000, DEEP, 3_000)
    step = without_gas(two(5_800, 4_200, [far, sound]))
    plan = checked_plan(step)
    assert {leg.pool for leg in plan.legs} == {sound.address}
    assert "1.25 times" in reason_by_subject(plan)[f"pool {far.address}"]
    used = checked_plan(without_gas(two(5_800, 4_200, [near, sound])))
    assert near.address in {leg.pool for leg in used.legs}
    only = without_gas(two(5_800, 4_200, [far]))
    with raises_code(Refused, "plan_cost", "1.25 times"):
        planner.plan(only, rebalance_to_targets(only))


# baits of threat T9


def test_bait_pulls_no_more_through_than_the_drift() -> None:
    """Three tokens, the bait between two of them that need nothing from each other: a circle of arbitrage stays undone."""
    dai = token("DAI")
    pools: list[Pool] = [
        v3_pool(WETH, USDC, 2_028, 100_000_000, name="bait"), v3_pool(WETH, USDC, 2_000, DEEP, 3_000),
        v3_pool(WETH, dai, 2_000, DEEP, 3_000), v3_pool(dai, USDC, 1, DEEP, 100),
    ]  # fmt: skip
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}
    step = step_input(targets, {"WETH": 40_500, "USDC": 30_000, "DAI": 29_500}, PRICES, pools=pools)
    plan = checked_plan(with_limits(step, turnover_bps=None, daily_turnover_bps=None))
    assert plan.turnover <= Fraction(500 * 10**6) * Fraction(105, 100)
    assert plan.gross_volume <= 2 * plan.turnover * Fraction(105, 100), "at most one hub on the way"
    assert plan.cost.total < 0 or plan.cost.skew < 0, "what the bait pays on the way is taken"


def test_plan_avoids_a_pool_whose_dust_ticks_cost_gas() -> None:
    """A pool of a lower fee whose every tick on the way costs gas, beside a plain one."""
    plain = v3_pool(WETH, USDC, 2_000, DEEP, 500)
    shape = v3_pool(WETH, USDC, 2_000, 2_000_000, 100, name="dust")
    net = [(shape.tick + 1 + k, -1) for k in range(100)] + [(shape.tick - 99 + k, 1) for k in range(100)]
    net += [(shape.tick - 5_000, shape.liquidity), (shape.tick + 5_000, -shape.liquidity)]
    dusty = with_ticks(shape, net, (shape.tick - 6_000, shape.tick + 6_000))
    step = with_limits(two(50_000, 30_000, [plain, dusty]), turnover_bps=None, daily_turnover_bps=None, pool_min_value=None)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=20 * GWEI))
    plan = checked_plan(step)
    assert [leg.pool for leg in plan.legs] == [plain.address]
    assert plan.gas_units < 200_000
    assert "gas costs" in reason_by_subject(plan)[f"pool {dusty.address}"]
    free = checked_plan(without_gas(step))
    assert dusty.address in {leg.pool for leg in free.legs}
    assert free.gas_units > 400_000, "without a price of gas ticks are crossed"


def test_plan_refuses_at_a_plan_cost_of_zero() -> None:
    step = with_limits(step_input(values={"WETH": 8_000, "USDC": 2_000}), plan_cost_bps=0)
    with raises_code(Refused, "plan_cost", "0 bps"):
        checked_plan(step)
