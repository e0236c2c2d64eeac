"""Plans with hubs, targets of nothing, a plan cost that is off or wide, and coarse tokens, each replayed without the planner."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.model import Pool, StepInput
from agent.planning import planner
from agent.planning.plan_builder import gap_bps
from agent.planning.planner import NothingPlanned
from agent.planning.problem import build_pool_graph
from agent.planning.solver.fixed_point import find_fixed_point
from agent.planning.solver.utility import objective_for_goal
from agent.units import BPS
from tests.support.builders import step_input, v2_pool, v3_pool, with_limits
from tests.support.planning_peers import pools_of, replayed_plan
from tests.support.planning_worlds import (
    DAI,
    KINDS,
    USDC,
    WETH,
    any_problem,
    gap_of,
    observed,
    problem_of,
    rebalance_to_targets,
    without_gas,
)
from tests.support.samples import slow

GRID = 200
"""Parts in which a whole holding is tried."""


def step_through_a_hub(*pools: Pool, after: int = 1_000_000, **limits: object) -> StepInput:
    """10,000 in WETH that should be USDC. WETH trades with DAI, a hub, in a deep pool; DAI with USDC in one as deep as `after`."""
    market = [v3_pool(WETH, DAI, 2_000, 50_000_000), v3_pool(DAI, USDC, 1, after), observed("DAI"), *pools]
    step = step_input({"WETH": 0, "USDC": 10_000}, {"WETH": 10_000}, hubs=["DAI"], pools=market)
    bounds = {"turnover_bps": None, "daily_turnover_bps": None, "min_trade": None, "pool_min_value": None, **limits}
    return without_gas(with_limits(step, **bounds))


@pytest.mark.parametrize("after", [100_000, 500_000, 1_000_000])
@pytest.mark.parametrize("plan_cost_bps", [50, 5_100, 10_000, None])
def test_hub_before_a_pool_at_its_bound_ends_empty(after: int, plan_cost_bps: int | None) -> None:
    plan = replayed_plan(step_through_a_hub(after=after, plan_cost_bps=plan_cost_bps))
    assert [leg.token_out for leg in plan.legs] == [DAI.address, USDC.address]
    assert plan.legs[0].amount_out_raw == plan.legs[1].amount_in_raw
    assert gap_of(plan) < Fraction(1, 10)


def test_gap_counts_what_stays_in_a_hub() -> None:
    step = step_through_a_hub()
    problem = problem_of(step)
    aim = objective_for_goal(problem, rebalance_to_targets(step).goal)
    market = build_pool_graph(problem, aim.value_off_goal)
    whole = find_fixed_point(market, aim, None, None, {})
    left_raw = 100 * 10**18
    delta = {**whole.draft.delta_raw, USDC.address: whole.draft.delta_raw[USDC.address] - 100 * 10**6, DAI.address: left_raw}
    short = replace(whole.draft, delta_raw=delta)
    assert gap_bps(market, aim, replace(whole, draft=short), None) >= 100 * 10**6 / short.turnover(problem) * BPS


@pytest.mark.parametrize("plan_cost_bps", [100, 6_000])
def test_gap_bounds_every_split_on_a_grid(plan_cost_bps: int) -> None:
    """A direct pool beside the hub's, everything within 30 bps of impact: each way in steps, swaps by the contracts' formulas."""
    direct = v2_pool(WETH, USDC, 2_000, 600_000)
    step = step_through_a_hub(direct, after=300_000, price_impact_bps=30, plan_cost_bps=plan_cost_bps)
    plan = replayed_plan(step)
    held_raw = 5 * 10**18
    kept_price = Fraction(2_000 * 10**6, 10**18) * (1 - Fraction(plan_cost_bps, BPS))

    def worth(sold: int, bought: int) -> Fraction:
        return bought + (held_raw - sold) * kept_price

    best = Fraction(0)
    hub_pools = [pool.address for pool in step.snapshot.pools[:2]]
    for straight in range(GRID + 1):
        for around in range(GRID + 1 - straight):
            now = pools_of(step)
            start = pools_of(step)
            amounts = held_raw * straight // GRID, held_raw * around // GRID
            out_raw = now[direct.address].swap(WETH.address, amounts[0])
            out_raw += now[hub_pools[1]].swap(DAI.address, now[hub_pools[0]].swap(WETH.address, amounts[1])) if around else 0
            pools = (direct.address, WETH.address), (hub_pools[0], WETH.address), (hub_pools[1], DAI.address)
            if any(now[at].price(token_in) < start[at].price(token_in) * (1 - Fraction(30, BPS)) for at, token_in in pools):
                break
            best = max(best, worth(sum(amounts), out_raw))
    after = dict(plan.holdings_after)
    assert best - worth(held_raw - after[WETH.address], after[USDC.address]) <= gap_of(plan) * plan.turnover / BPS
    assert gap_of(plan) < Fraction(1, 10)


@pytest.mark.parametrize("kind", ["hubs", *slow(kind for kind in KINDS if kind != "hubs")])
@pytest.mark.parametrize("first", [0, *slow(range(10, 40, 10))])
def test_plan_of_every_kind_passes_an_independent_replay(kind: str, first: int) -> None:
    for seed in range(first, first + 10):
        with suppress(NothingPlanned):
            replayed_plan(KINDS[kind](seed))


@pytest.mark.parametrize(
    ("kind", "seed"),
    [*(("uncapped", seed) for seed in (50, 78, 116, 170, 183, 201, 263, 274, 380, 417, 425)), ("coarse", 135), ("coarse", 221)],
)
def test_plan_leaves_no_hub_full_and_runs_in_no_circle(kind: str, seed: int) -> None:
    replayed_plan(KINDS[kind](seed))


@pytest.mark.parametrize("seed", [67, 202, 218, 230, 238, 417])
def test_plan_does_not_sell_tokens_that_the_wallet_lacks(seed: int) -> None:
    """Pools above the reference: what was to be bought was sold short on paper, so that little or nothing could be carried out."""
    assert gap_of(replayed_plan(KINDS["hubs"](seed))) < Fraction(1, 10)


@pytest.mark.parametrize("seed", [4, 7, 94, 104])
def test_skipped_names_turnover_that_binds_within_bands(seed: int) -> None:
    step = with_limits(any_problem(seed), turnover_bps=500)
    shares = {asset.token.symbol: Fraction(asset.target_bps, BPS) for asset in step.effective_assets}
    bands = {symbol: (share * Fraction(95, 100), share * Fraction(105, 100)) for symbol, share in shares.items()}
    plan = planner.plan(step, rebalance_to_targets(step, bands))
    unlimited_plan = planner.plan(with_limits(step, turnover_bps=None), rebalance_to_targets(step, bands))
    assert any("drift" in item.subject for item in plan.skipped)
    turnover_subjects = {item.subject for item in plan.skipped if item.subject in shares and "turnover" in item.why}
    other_subjects = {item.subject for item in plan.skipped if item.subject in shares} - turnover_subjects
    assert turnover_subjects
    assert other_subjects <= {item.subject for item in unlimited_plan.skipped}, "what stays off without the limit waits for something else"
