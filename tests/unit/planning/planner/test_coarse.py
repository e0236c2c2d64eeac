"""Plans with tokens of few decimals: what integers lose, and what is left out for it, with a true reason."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import Pool, StepInput
from agent.planning.planner import plan_swap
from agent.planning.problem import build_pool_graph
from agent.planning.rounding import RouteSimulator
from agent.planning.routes import Route
from agent.planning.solver.draft_checks import best_paying_pool
from agent.planning.solver.fixed_point import find_fixed_point
from agent.planning.solver.utility import objective_for_goal
from tests.support.builders import Number, step_input, token, v2_pool, v3_pool, with_limits
from tests.support.planning_peers import pools_of, replayed_plan
from tests.support.planning_worlds import COARSE, DAI, KINDS, PRICES, USDC, WETH, gap_of, problem_of, rebalance_to_targets, without_gas
from tests.support.samples import slow
from tests.support.text import mentions

WHOLE = token("WHOLE")
GUSD = token("GUSD")
BOUNDS = {"turnover_bps": None, "daily_turnover_bps": None, "min_trade": None, "pool_min_value": None, "plan_cost_bps": 200}


def coarse_step(targets: dict[str, int], values: dict[str, Number], *pools: Pool, **limits: object) -> StepInput:
    """A portfolio with coarse tokens at their prices, no gas."""
    step = step_input({"USDC": 0, "WETH": 0} | targets, values, {**PRICES, **COARSE}, pools=pools)
    return without_gas(with_limits(step, **{**BOUNDS, **limits}))


@pytest.mark.parametrize("fee_pips", [500, 3_000])
def test_leg_takes_no_more_than_its_whole_units_cost(fee_pips: int) -> None:
    pool = v3_pool(WHOLE, USDC, 20, 2_000_000, fee_pips)
    step = coarse_step({"USDC": 5_000, "WHOLE": 5_000}, {"USDC": 1_010}, pool)
    (leg,) = replayed_plan(step).legs
    assert 24 <= leg.amount_out_raw <= 25
    assert pools_of(step)[pool.address].swap(USDC.address, leg.amount_in_raw - 1) == leg.amount_out_raw - 1


def test_route_through_a_hub_takes_no_more_than_units_cost() -> None:
    pools = [v3_pool(WETH, USDC, 2_000, 50_000_000), v2_pool(WHOLE, USDC, 20, 4_000_000)]
    step = coarse_step({"USDC": 0, "WETH": 5_000, "WHOLE": 5_000}, {"WETH": 1_010}, *pools)
    first, second = replayed_plan(step).legs
    hub, last = (pools_of(step)[pool.address] for pool in pools)
    assert last.swap(USDC.address, hub.swap(WETH.address, first.amount_in_raw - 1)) < second.amount_out_raw


@pytest.mark.parametrize("whole_usd", [1_003, 10_007, 100_001])
def test_whole_sale_for_a_coarse_token_leaves_nothing(whole_usd: int) -> None:
    step = coarse_step({"WETH": 0, "GUSD": 10_000}, {"WETH": whole_usd}, v2_pool(WETH, GUSD, 2_000, 40_000_000))
    assert dict(replayed_plan(step).holdings_after)[WETH.address] == 0


def test_plan_swap_sells_the_exact_amount_for_whole_units() -> None:
    step = coarse_step({"DAI": 5_000, "GUSD": 5_000}, {"DAI": 1_000, "GUSD": 1_000}, v2_pool(DAI, GUSD, 1, 40_000_000))
    amount_raw = 100_004 * 10**15
    (leg,) = plan_swap(step, DAI.address, GUSD.address, amount_raw).legs
    assert leg.amount_in_raw == amount_raw


def test_route_drops_only_a_dust_source_below_its_floor() -> None:
    """A cent of GUSD pays a fee of a cent on the way: its source goes, what shares its last leg does not."""
    pools = [v3_pool(GUSD, DAI, 1, 50_000_000), v3_pool(WETH, DAI, 2_000, 50_000_000), v3_pool(DAI, USDC, 1, 50_000_000)]
    targets = {"USDC": 2_500, "DAI": 2_500, "WETH": 2_500, "GUSD": 2_500}
    step = coarse_step(targets, {"WETH": 1_000, "GUSD": 1_000, "DAI": 0, "USDC": 0}, *pools)
    walk = RouteSimulator(problem_of(step))
    feeds = Route(((pools[0].address, GUSD.address),), 2), Route(((pools[1].address, WETH.address),), 10**17)
    assert walk.run(Route(((pools[2].address, DAI.address),), 0, feeds), [2, 10**17]) == [0, 10**17]
    assert [leg.pool for leg in walk.draft.legs] == [pools[1].address, pools[2].address]
    assert list(walk.draft.below_floor_pools) == [pools[0].address]
    assert walk.draft.untraded_values == {pools[0].address: 20_000}


def test_pool_stays_in_use_when_a_dust_route_is_below_its_floor() -> None:
    assert not [item for item in replayed_plan(KINDS["uncapped"](119)).skipped if "base units" in item.why]


@pytest.mark.parametrize("seed", [23, 83, 173, 318, 357, 375, *slow([187, 207])])
def test_whole_units_of_a_token_are_no_overshoot_of_another(seed: int) -> None:
    plan = replayed_plan(without_gas(KINDS["coarse"](seed)))
    assert not [item for item in plan.skipped if "its goal" in item.why]
    assert gap_of(plan) < 2


@pytest.mark.parametrize(
    ("kind", "seed", "most_gap_bps"),
    [
        # A leg lost a base unit worth basis points, and its pool was dropped: 1,577 and 103 bps.
        pytest.param("units", 51, 8, id="loss to whole units 51"),
        pytest.param("units", 141, 8, id="loss to whole units 141"),
        # Counted in advance, the loss cost pools that the integers would have kept: 440, 51 and 12 bps.
        pytest.param("coarse", 89, 12, id="pool worth its units 89"),
        pytest.param("coarse", 29, 2, id="pool worth its units 29"),
        pytest.param("coarse", 108, 1, id="pool worth its units 108"),
        # Each route on from a coarse token's pool makes its swap one more, which loses another unit: 7.4 bps.
        pytest.param("units", 61, 5, id="unit lost in another pool 61"),
        # The pool in which the chains of others lost units was dropped, and a better draft than the last: 8, 10 and 23 bps.
        pytest.param("units", 63, 2, id="chains that lose units elsewhere 63"),
        pytest.param("units", 175, 2, id="chains that lose units elsewhere 175"),
        pytest.param("units", 147, 4, id="chains that lose units elsewhere 147"),
        # A swap for whole units took more than they cost, although some of the token stayed: 3.1, 3.3 and 5 bps.
        pytest.param("units", 340, 2, id="token that stays in part 340"),
        pytest.param("units", 373, 2, id="token that stays in part 373"),
        pytest.param("units", 384, 2, id="token that stays in part 384"),
    ],
)
def test_gap_of_a_plan_in_whole_units_stays_small(kind: str, seed: int, most_gap_bps: int) -> None:
    """The comments say what the gap was before."""
    assert gap_of(replayed_plan(KINDS[kind](seed))) < most_gap_bps


def test_amount_of_almost_whole_units_is_that_number() -> None:
    """The gap was 6.2 bps: a path of 17 units less a float error became one of 16."""
    plan = replayed_plan(KINDS["units"](178))
    assert [leg.amount_in_raw for leg in plan.legs] == [12, 17]
    assert gap_of(plan) < 1


def test_skipped_names_a_drift_below_one_base_unit() -> None:
    pools = [v2_pool(WHOLE, USDC, 20, 4_000_000), v3_pool(WETH, USDC, 2_000, 50_000_000)]
    step = coarse_step({"USDC": 3_000, "WETH": 3_000, "WHOLE": 4_000}, {"USDC": 4_005, "WETH": 2_000, "WHOLE": 4_000}, *pools)
    assert [item.why for item in replayed_plan(step).skipped if "one base unit of WHOLE is worth more than the drift" in item.why]


def test_best_paying_pool_is_above_the_reference_only_if_it_is() -> None:
    pools = [v2_pool(WHOLE, USDC, 20, 4_000_000), v2_pool(WHOLE, USDC, Fraction(203, 10), 4_000_000, name="dear")]
    step = coarse_step({"USDC": 5_000, "WHOLE": 5_000}, {"WHOLE": 1_000}, *pools)
    for pool, why in zip(pools, ("exchanges too few base units to hit a goal", "pays above the reference price"), strict=True):
        walk = RouteSimulator(problem_of(step))
        walk.run(Route(((pool.address, WHOLE.address),)), [20])
        at, reason = best_paying_pool(problem_of(step), walk.draft, "move USDC past its goal")
        assert at == pool.address
        assert mentions(reason, why, "move USDC")


@pytest.mark.parametrize(
    ("budget", "min_trade", "named"),
    [
        pytest.param(None, None, [], id="none on"),
        pytest.param(Fraction(10**6), None, ["turnover"], id="turnover"),
        pytest.param(None, Fraction(10**6), ["min_trade"], id="min_trade"),
        pytest.param(Fraction(10**6), Fraction(10**6), ["turnover", "min_trade"], id="both"),
    ],
)
def test_refusal_advises_only_limits_that_are_on(
    budget: Fraction | None, min_trade: Fraction | None, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.planning.solver.fixed_point.MAX_ITERATIONS", 0)
    step = coarse_step({"USDC": 5_000, "WHOLE": 5_000}, {"USDC": 1_000}, v3_pool(WHOLE, USDC, 20, 2_000_000))
    problem = problem_of(step)
    aim = objective_for_goal(problem, rebalance_to_targets(step).goal)
    with pytest.raises(Refused) as refused:
        find_fixed_point(build_pool_graph(problem, aim.value_off_goal), aim, budget, min_trade, {})
    error_text = f"{refused.value.message} {refused.value.remedy}"
    assert [limit for limit in ("turnover", "min_trade") if limit in error_text] == named
