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
from agent.model import Holding, Plan, Pool, StepInput
from agent.planning import planner
from agent.units import Token
from tests.support.builders import GWEI, step_input, token, v2_pool, v3_pool, with_feed, with_limits, with_snapshot, without_feed
from tests.support.planning_worlds import (
    DAI,
    DEEP,
    PRICES,
    USDC,
    WETH,
    assert_plan_refused,
    checked_plan,
    gap_of,
    pools_used,
    reason_by_subject,
    rebalance_to_targets,
    two,
    weights_bps,
    without_gas,
)
from tests.support.text import raises_code


def with_ticks(pool: V3Pool, net: Sequence[tuple[int, int]], known: int | None = None) -> V3Pool:
    """Return the pool with these liquidity changes, by ticks above its price, and known ticks so far either way; what is active now
    follows from them.
    """
    base = pool.tick // pool.tick_spacing * pool.tick_spacing
    ticks = tuple(TickLiquidity(base + index, change) for index, change in sorted(net))
    active = sum(tick.liquidity_net for tick in ticks if tick.index <= pool.tick)
    low, high = (pool.known_from_tick, pool.known_to_tick) if known is None else (base - known, base + known)
    return replace(pool, ticks=ticks, liquidity=active, known_from_tick=low, known_to_tick=high, twap_liquidity=max(active, 1))


def free_pair(weth_usd: int, *pools: Pool, total_usd: int = 10_000) -> StepInput:
    """Return a step of WETH and USDC over these pools, without gas, however little they are worth."""
    return without_gas(two(weth_usd, total_usd - weth_usd, [*pools], pool_min_value=None))


def plan_on_target(step: StepInput) -> Plan:
    """Return the plan, which ends at half WETH and half USDC, with a small gap."""
    plan = checked_plan(step)
    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert gap_of(plan) < Fraction(1, 100)
    return plan


# --- Limits that forbid or contradict


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
    assert all(reason in reason_by_subject(plan)[symbol] for symbol in ("WETH", "USDC"))
    assert gap_of(plan) < Fraction(1, 100), "what the bounds forbid is no part of the gap"


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        pytest.param(
            two(5_800, 4_200, min_trade=Fraction(500 * 10**6), turnover_bps=100),
            "turnover",
            ("limits.turnover", "limits.min_trade"),
            id="nothing below 500, and nothing above 100",
        ),
        pytest.param(
            two(5_800, 4_200, [v2_pool(WETH, USDC, 2_000, DEEP, fee_pips=10_000)], price_impact_bps=0, slippage_bps=0),
            "plan_cost",
            (),
            id="slippage and impact of zero",
        ),
        pytest.param(
            with_limits(step_input(values={"WETH": 8_000, "USDC": 2_000}), plan_cost_bps=0), "plan_cost", ("0 bps",), id="plan cost of zero"
        ),
    ],
)
def test_plan_refuses_where_limits_allow_nothing(step: StepInput, code: str, words: tuple[str, ...]) -> None:
    assert_plan_refused(step, code, *words)


# --- Ranges of V3 pools


@pytest.mark.parametrize("weth_usd", [5_800, 4_200], ids=["sells", "buys"])
def test_plan_crosses_an_empty_part_to_the_next_range(weth_usd: int) -> None:
    """Nothing is active at the price; the next range begins 30 ticks down and 40 up."""
    deep = v3_pool(WETH, USDC, 2_000, 200_000_000, 500)
    net = [(-200, deep.liquidity), (-30, -deep.liquidity), (40, deep.liquidity), (200, -deep.liquidity)]
    gone = with_ticks(deep, net, 600)
    assert gone.liquidity == 0

    plan = plan_on_target(free_pair(weth_usd, gone))

    assert plan.legs[0].impact_bps >= 30, "the price runs to the range before anything is exchanged"


def test_plan_takes_no_more_than_the_ranges_hold() -> None:
    deep = v3_pool(WETH, USDC, 2_000, 200_000, 500)
    narrow = with_ticks(deep, [(-20, deep.liquidity), (20, -deep.liquidity)], 600)
    step = free_pair(5_800, narrow)
    plan = checked_plan(step)
    assert weights_bps(step, plan)["WETH"] > 5_001
    assert narrow.address in reason_by_subject(plan)["WETH"]


@pytest.mark.parametrize("weth_usd", [5_800, 4_200], ids=["sells", "buys"])
def test_plan_crosses_a_gap_without_liquidity(weth_usd: int) -> None:
    """A little liquidity about the price, nothing for 20 ticks, then plenty: both ways."""
    deep = v3_pool(WETH, USDC, 2_000, 100_000_000, 500)
    little = deep.liquidity // 10_000
    net = [
        (-300, deep.liquidity), (-20, -deep.liquidity), (0, little), (10, -little), (30, deep.liquidity), (300, -deep.liquidity),
    ]  # fmt: skip
    holed = with_ticks(deep, net, 600)
    assert holed.liquidity == little

    plan_on_target(free_pair(weth_usd, holed))


def test_plan_is_exact_in_a_pool_with_a_change_at_every_tick() -> None:
    pool = v3_pool(WETH, USDC, 2_000, 3_000_000, 100)
    unit = pool.liquidity // 50
    fine = with_ticks(pool, [(k - 49, unit) for k in range(50)] + [(k + 1, -unit) for k in range(50)], 200)
    assert (pool.tick_spacing, fine.liquidity) == (1, 50 * unit)

    plan_on_target(free_pair(5_100, fine))


# --- Amounts


def with_asset(step: StepInput, symbol: str, token: Token, raw: int) -> StepInput:
    """Return the step in which this token and balance stand for the asset of a symbol."""
    of = next(asset.token for asset in step.portfolio.assets if asset.token.symbol == symbol)
    assets = tuple(replace(asset, token=token) if asset.token == of else asset for asset in step.portfolio.assets)
    others = tuple(holding for holding in step.snapshot.holdings if holding.token != of.address)
    step = replace(step, portfolio=replace(step.portfolio, assets=assets))
    return with_snapshot(step, holdings=(Holding(token.address, raw), *others))


def test_plan_is_exact_for_amounts_near_two_to_the_128() -> None:
    """Three hundred million coins of 30 decimals at a hundredth of a cent, in a V3 pool, and a pair as full as a pair can be: its
    reserve is just below the 112 bits of V2.
    """
    vast = Token(token("VAST").address, "VAST", 30)
    price = Fraction(1, 10**4)
    full = v3_pool(vast, USDC, price, 30_000_000, 3_000)
    reserves = (2**112 - 10**9, (2**112 - 10**9) * 10**6 // 10**34)[:: 1 if full.token0 == vast.address else -1]
    pair = V2Pool(v2_pool(vast, USDC, price).address, "uniswap_v2", full.token0, full.token1, *reserves)
    worth = 300_000_000 * 10**30
    assert 2**127 < worth < 2**128
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"WETH": 0, "USDC": 10_000}, {"WETH": 2_000}, pools=[full, pair])
    step = with_asset(without_gas(with_feed(step, "WETH", answer=10**4)), "WETH", vast, worth)
    step = with_limits(step, plan_cost_bps=None, turnover_bps=None, daily_turnover_bps=None)
    plan = checked_plan(step)
    assert max(leg.amount_in_raw for leg in plan.legs) > 2**124
    assert weights_bps(step, plan)["VAST"] == pytest.approx(5_000, abs=1)


@pytest.mark.parametrize(("decimals", "most_gap_bps"), [(0, 15 * 10_000 / 8_000), (24, Fraction(1, 1_000))])
@pytest.mark.parametrize("version", [2, 3])
def test_plan_ends_within_a_unit_of_tokens_of_any_decimals(decimals: int, most_gap_bps: Fraction, version: int) -> None:
    """A unit of the coarse token is worth 15 dollars; a fee is rounded up to a unit."""
    odd = Token(token("LINK").address, "LINK", decimals)
    pool: Pool = v2_pool(odd, USDC, 15, DEEP) if version == 2 else v3_pool(odd, USDC, 15, DEEP, 3_000)
    targets = {"LINK": 5_000, "USDC": 4_000, "WETH": 1_000}
    values = {"LINK": 58_005, "USDC": 31_995, "WETH": 10_000}
    step = without_gas(step_input(targets, values, PRICES, pools=[pool, v3_pool(WETH, USDC, 2_000, DEEP)]))
    step = with_limits(with_asset(step, "LINK", odd, 58_005 * 10**decimals // 15), min_trade=None)
    plan = checked_plan(step)
    assert weights_bps(step, plan)["LINK"] == pytest.approx(5_000, abs=2)
    assert gap_of(plan) < most_gap_bps


# --- References


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


FAR = v3_pool(WETH, USDC, 2_000 * Fraction(126, 100), DEEP, 500, name="far")
NEAR = v3_pool(WETH, USDC, 2_000 * Fraction(124, 100), DEEP, 500, name="near")


def test_plan_skips_a_pool_paying_over_125_percent() -> None:
    """Either the reference is wrong or the pool is: no profit is worth finding out which."""
    sound = v3_pool(WETH, USDC, 2_000, DEEP, 3_000)
    plan = checked_plan(without_gas(two(5_800, 4_200, [FAR, sound])))
    assert pools_used(plan) == {sound.address}
    assert "1.25 times" in reason_by_subject(plan)[f"pool {FAR.address}"]
    assert NEAR.address in pools_used(checked_plan(without_gas(two(5_800, 4_200, [NEAR, sound]))))
    assert_plan_refused(without_gas(two(5_800, 4_200, [FAR])), "plan_cost", "1.25 times")


# --- Baits of threat T9


def test_bait_pulls_no_more_through_than_the_drift() -> None:
    """Three tokens, the bait between two of them that need nothing from each other: a circle of arbitrage stays undone."""
    pools: list[Pool] = [
        v3_pool(WETH, USDC, 2_028, 100_000_000, name="bait"), v3_pool(WETH, USDC, 2_000, DEEP, 3_000),
        v3_pool(WETH, DAI, 2_000, DEEP, 3_000), v3_pool(DAI, USDC, 1, DEEP, 100),
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
    net = [*((1 + k, -1) for k in range(100)), *((k - 99, 1) for k in range(100)), (-5_000, shape.liquidity), (5_000, -shape.liquidity)]
    dusty = with_ticks(shape, net, 6_000)
    step = with_limits(two(50_000, 30_000, [plain, dusty]), turnover_bps=None, daily_turnover_bps=None, pool_min_value=None)
    step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=20 * GWEI))
    plan = checked_plan(step)
    assert pools_used(plan) == {plain.address}
    assert plan.gas_units < 200_000
    assert "gas costs" in reason_by_subject(plan)[f"pool {dusty.address}"]
    free = checked_plan(without_gas(step))
    assert dusty.address in pools_used(free)
    assert free.gas_units > 400_000, "without a price of gas ticks are crossed"
