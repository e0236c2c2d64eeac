"""Tests of agent/planning/planner.py: a plan hits its goal with all costs in, keeps every limit, and explains what it skips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.model import Goal, GoalWeight, LegPlace, Pool, StepInput
from agent.planning import planner
from agent.planning.plan_builder import skipped_items
from agent.planning.planner import TurnoverLimit
from agent.planning.problem import build_pool_graph
from agent.planning.rounding import PlanDraft
from agent.planning.solver.draft_checks import best_paying_pool, overshoot_reason, untradable_tokens, wrong_side_tokens
from agent.planning.solver.drop_reasons import DropCause, DropReason
from agent.planning.solver.fixed_point import FixedPoint
from agent.planning.solver.utility import objective_for_goal
from agent.units import BPS, Value
from tests.support.builders import GWEI, history, step_input, v2_pool, v3_pool, with_limits, with_snapshot
from tests.support.planning_worlds import (
    DAI,
    DEEP,
    FIVE,
    LINK,
    PRICES,
    USDC,
    WBTC,
    WETH,
    assert_plan_refused,
    check_legs,
    checked_plan,
    five_pools,
    flow_value,
    gap_of,
    plan_refusal,
    problem_of,
    reason_by_subject,
    rebalance_to_targets,
    two,
    weights_bps,
    wide,
    without_gas,
)
from tests.support.signing import leg
from tests.support.text import mentions

COIN = 10**6


def five_asset_step(values: Mapping[str, int]) -> StepInput:
    return wide(step_input(FIVE, values, PRICES, pools=five_pools()))


MIXED = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}


# --- The goal


def test_plan_of_two_assets_meets_its_targets_after_costs() -> None:
    step = two(5_800, 4_200)

    plan = checked_plan(step)

    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    assert plan.block == step.snapshot.head.number
    assert plan.expires_block == plan.block + step.execution.expire_blocks
    assert gap_of(plan) < Fraction(1, 1_000)
    assert plan.verdicts == ()
    assert plan.skipped == ()


@pytest.mark.parametrize(
    ("values", "sold", "most_off_bps"),
    [
        pytest.param(MIXED, {WETH, WBTC}, 2, id="two above"),
        pytest.param({"DAI": 50_000}, {DAI}, 10, id="all in a single token"),
        pytest.param({"WETH": 36_000, "USDC": 18_500, "WBTC": 18_000, "DAI": 9_000, "LINK": 18_500}, {WETH}, 2, id="one above"),
    ],
)
def test_plan_of_five_assets_ends_near_its_targets(values: dict[str, int], sold: set[object], most_off_bps: int) -> None:
    step = five_asset_step(values)

    plan = checked_plan(step)

    weights = weights_bps(step, plan)
    assert all(abs(weights[symbol] - FIVE[symbol]) <= most_off_bps for symbol in FIVE)
    assert {leg.token_in for leg in plan.legs if leg.source is LegPlace.WALLET} == {token.address for token in sold}  # type: ignore[attr-defined]


def test_plan_reaches_a_token_through_a_hub() -> None:
    """WBTC and DAI become LINK by way of WETH alone."""
    plan = checked_plan(five_asset_step({"DAI": 50_000}))

    assert {leg.token_in for leg in plan.legs if leg.token_out == LINK.address} == {WETH.address}
    assert any(leg.source is LegPlace.ROUTER for leg in plan.legs)


@pytest.mark.parametrize(
    ("low", "high", "ends_bps"),
    [
        pytest.param("0.45", "0.55", (5_499, 5_500), id="nearest edge"),
        pytest.param("0.5", "0.5", (5_000, 5_000), id="point"),
        pytest.param("0.54", "0.54", (5_400, 5_400), id="point above the target"),
    ],
)
def test_goal_is_a_point_or_the_nearest_edge(low: str, high: str, ends_bps: tuple[int, int]) -> None:
    step = two(5_800, 4_200)
    other = (1 - Fraction(high), 1 - Fraction(low))

    plan = checked_plan(step, {"WETH": (low, high), "USDC": other})

    assert ends_bps[0] <= weights_bps(step, plan)["WETH"] <= ends_bps[1]


BANDS = {"WETH": ("0.27", "0.33"), "USDC": ("0.27", "0.33"), "WBTC": ("0.18", "0.22"), "DAI": ("0.18", "0.22")}


def band_step(values: Mapping[str, int]) -> StepInput:
    pools = [
        v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WBTC, USDC, 60_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100),
        v3_pool(WBTC, WETH, 30, 50_000),
    ]  # fmt: skip
    return step_input({"WETH": 3_000, "USDC": 3_000, "WBTC": 2_000, "DAI": 2_000}, values, pools=pools)


def test_band_goal_moves_only_tokens_outside_to_their_edge() -> None:
    step = band_step({"WETH": 3_600, "USDC": 3_000, "WBTC": 1_900, "DAI": 1_500})

    weights = weights_bps(step, checked_plan(step, BANDS))

    assert 3_295 <= weights["WETH"] <= 3_300
    assert 1_800 <= weights["DAI"] <= 1_805
    assert weights["USDC"] == 3_000
    assert weights["WBTC"] == 1_900


def test_band_goal_moves_no_more_than_a_token_lacks() -> None:
    step = band_step({"WETH": 3_200, "USDC": 3_200, "WBTC": 2_100, "DAI": 1_500})

    plan = checked_plan(step, BANDS)

    assert 1_800 <= weights_bps(step, plan)["DAI"] <= 1_805
    assert plan.turnover < 302 * COIN


def test_reserve_is_neither_spent_nor_counted() -> None:
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, reserves={"WETH": 1, "USDC": 100}, depth=DEEP)

    plan = checked_plan(step)

    assert weights_bps(step, plan) == {"WETH": 5_000, "USDC": 5_000}
    raw_after = dict(plan.holdings_after)
    weth_value = Fraction((raw_after[WETH.address] - 10**18) * 2_000 * COIN, 10**18)
    assert float(weth_value) == pytest.approx(raw_after[USDC.address] - 100 * COIN, rel=1e-4)


def test_exit_ignores_a_used_up_daily_turnover() -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(9_000 * COIN)))

    plan = planner.plan(step, replace(rebalance_to_targets(step, {"WETH": (0, 0), "USDC": (1, 1)}), is_exit=True))

    check_legs(step, plan)
    assert plan.is_exit
    assert dict(plan.holdings_after)[WETH.address] == 0
    assert plan.skipped == ()


# --- Cost


def test_cost_parts_add_up_to_the_value_lost() -> None:
    step = five_asset_step(MIXED)

    plan = checked_plan(step)

    assert flow_value(step, plan) == -(plan.cost.fees + plan.cost.impact + plan.cost.skew)
    assert plan.cost.fees > 0
    assert plan.cost.impact > 0
    assert plan.cost.gas == plan.gas_units * Fraction(11, 10) * GWEI * Fraction(2_000 * COIN, 10**18)
    assert plan.gross_volume > plan.turnover > 0
    assert plan.gross_volume > sum(leg.amount_in_raw for leg in plan.legs if leg.token_in == USDC.address)


def test_cost_with_gas_stays_within_plan_cost() -> None:
    values = {"WETH": 1_300, "USDC": 500, "WBTC": 800, "DAI": 200, "LINK": 200}
    step = with_limits(five_asset_step(values), plan_cost_bps=60, min_trade=None, pool_min_value=None)

    plan = checked_plan(with_snapshot(step, priority_fee_wei=2 * GWEI))

    assert plan.cost.total * BPS <= 60 * plan.turnover
    assert any("gas" in item.why for item in plan.skipped)


def test_drift_stays_where_trading_costs_over_plan_cost() -> None:
    cheap = v3_pool(WETH, USDC, 2_000, DEEP, 500)
    costly = v3_pool(LINK, USDC, 15, DEEP, 10_000)
    targets = {"WETH": 4_000, "USDC": 3_000, "LINK": 3_000}
    step = step_input(targets, {"WETH": 46_000, "USDC": 26_000, "LINK": 28_000}, PRICES, pools=[cheap, costly])

    plan = checked_plan(with_limits(step, plan_cost_bps=50))

    assert {leg.pool for leg in plan.legs} == {cheap.address}
    assert mentions(reason_by_subject(plan)["LINK"], "plan_cost allows", "fees")


TWINS = (v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, name="twin"))


@pytest.mark.parametrize(
    ("step", "leg_count"),
    [
        pytest.param(two(5_800, 4_200, list(TWINS)), 1, id="small trade"),
        pytest.param(without_gas(two(5_800, 4_200, list(TWINS))), 2, id="small trade without gas"),
        pytest.param(without_gas(two(9_000_000, 5_000_000, list(TWINS), turnover_bps=None)), 2, id="large trade without gas"),
    ],
)
def test_second_pool_is_used_only_where_worth_its_gas(step: StepInput, leg_count: int) -> None:
    assert len(checked_plan(step).legs) == leg_count


def test_plan_splits_a_trade_so_that_last_units_pay_alike() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 1_000_000), v3_pool(WETH, USDC, 2_000, 3_000_000, 3_000)]

    plan = checked_plan(wide(two(45_000, 25_000, pools), pool_min_value=None))

    small, large = sorted(plan.legs, key=lambda leg: leg.amount_in_raw)
    assert Fraction(large.amount_in_raw, small.amount_in_raw) == pytest.approx(3, rel=0.05)
    assert abs(small.impact_bps - large.impact_bps) <= 2


# --- Limits that bind


def test_plan_stops_at_price_impact_and_explains_the_rest() -> None:
    step = wide(two(90_000, 10_000, [v2_pool(WETH, USDC, 2_000, 1_000_000)]))

    plan = checked_plan(step)

    assert plan.legs[0].impact_bps == 100
    assert mentions(reason_by_subject(plan)["WETH"], "price_impact", plan.legs[0].pool)
    assert weights_bps(step, plan)["WETH"] > 8_400


def test_legs_through_one_pool_share_its_price_impact() -> None:
    pools: list[Pool] = [v2_pool(WETH, USDC, 2_000, 5_000_000), v3_pool(DAI, USDC, 1, DEEP, 100), v3_pool(LINK, USDC, 15, DEEP)]
    targets = dict.fromkeys(("WETH", "USDC", "DAI", "LINK"), 2_500)

    plan = checked_plan(wide(step_input(targets, {"WETH": 55_000, "USDC": 18_000}, PRICES, pools=pools)))

    shared_legs = [leg for leg in plan.legs if leg.pool == pools[0].address]
    assert len(shared_legs) > 1
    assert 95 <= sum(leg.impact_bps for leg in shared_legs) <= 100 + len(shared_legs), "each leg's own move is rounded up"
    assert any("price_impact" in item.why for item in plan.skipped)


@pytest.mark.parametrize(
    ("turnover_24h", "cap", "most_turnover", "reason"),
    [
        pytest.param(0, None, 3_000, "limits.turnover allows no more", id="limit of a plan"),
        pytest.param(5_000, None, 1_000, "limits.daily_turnover", id="rest of the day"),
        pytest.param(0, (Fraction(800 * COIN), "limits.daily_loss"), 800, "limits.daily_loss", id="cap of the caller"),
    ],
)
def test_plan_stops_at_a_turnover_limit_and_names_it(
    turnover_24h: int, cap: tuple[Value, str] | None, most_turnover: int, reason: str
) -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(turnover_24h * COIN)))

    plan = planner.plan(step, rebalance_to_targets(step), turnover_cap=cap)

    check_legs(step, plan)
    assert Fraction(995, 1_000) * most_turnover * COIN < plan.turnover <= most_turnover * COIN
    assert any(reason in item.why for item in plan.skipped)


LIMIT = TurnoverLimit(Fraction(100), "limits.turnover", is_reportable=True)
UNLIMITED = TurnoverLimit(None, "", is_reportable=False)


@pytest.mark.parametrize(
    ("limit", "cap_value", "name"),
    [
        pytest.param(LIMIT, 99, "limits.daily_loss", id="smaller cap"),
        pytest.param(LIMIT, 100, "limits.turnover", id="equal cap"),
        pytest.param(LIMIT, 101, "limits.turnover", id="larger cap"),
        pytest.param(UNLIMITED, 101, "limits.daily_loss", id="no limit"),
    ],
)
def test_turnover_limit_within_a_cap_is_the_smaller(limit: TurnoverLimit, cap_value: int, name: str) -> None:
    within = limit.within((Fraction(cap_value), "limits.daily_loss"))

    assert within.name == name
    assert within.value == min(cap_value, limit.value or cap_value)
    assert within.is_reportable is (name == "limits.turnover")
    assert limit.within(None) == limit


def test_dust_is_skipped_while_the_rest_is_traded() -> None:
    pools: list[Pool] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input({"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}, {"WETH": 4_300, "USDC": 2_704, "DAI": 2_996}, pools=pools)

    plan = checked_plan(step)

    assert {leg.token_out for leg in plan.legs} == {USDC.address}
    assert "min_trade" in reason_by_subject(plan)["DAI"]


def test_small_trade_goes_through_a_single_pool() -> None:
    """12 dollars of LINK over two pools and a hub are less than min_trade in each, and not dust together."""
    pools: list[Pool] = [
        v2_pool(WETH, USDC, 2_000, DEEP),
        v3_pool(LINK, WETH, Fraction(15, 2_000), 1_000_000, 3_000, name="first"),
        v3_pool(LINK, WETH, Fraction(15, 2_000), 1_100_000, 3_000, name="second"),
    ]
    values = {"WETH": 10_012, "USDC": 10_000, "LINK": 9_988}
    step = step_input({"WETH": 3_333, "USDC": 3_334, "LINK": 3_333}, values, PRICES, pools=pools)

    plan = checked_plan(wide(step, min_trade=Fraction(10 * COIN), plan_cost_bps=None))

    assert [leg.token_out for leg in plan.legs] == [LINK.address]


@pytest.mark.parametrize(
    ("step", "code", "figures"),
    [
        pytest.param(two(5_000, 5_000), "min_trade", ("0 USDC", "on target"), id="on target"),
        pytest.param(two(5_004, 4_996), "min_trade", ("4 USDC", "less than limits.min_trade"), id="drift below min_trade"),
        pytest.param(with_snapshot(two(5_300, 4_700), priority_fee_wei=100 * GWEI), "plan_cost", ("300 USDC",), id="gas over its benefit"),
        pytest.param(with_limits(two(5_800, 4_200), plan_cost_bps=4), "plan_cost", ("4 bps",), id="fee over plan_cost"),
        pytest.param(
            replace(two(9_600, 400), history=history(turnover_24h=Fraction(6_000 * COIN))), "daily_turnover", (), id="day used up"
        ),
    ],
)
def test_plan_refuses_where_nothing_can_be_traded(step: StepInput, code: str, figures: tuple[str, ...]) -> None:
    assert_plan_refused(step, code, *figures)


@pytest.mark.parametrize(
    ("step", "limit", "left_text", "wait_text"),
    [
        pytest.param(with_limits(two(9_600, 400), turnover_bps=5), "turnover", "5 USDC", "", id="limit of a plan"),
        pytest.param(
            replace(two(9_600, 400, min_trade=None), history=history(turnover_24h=Fraction(5_999_900_000))),
            "daily_turnover",
            "0.10 USDC",
            ", or wait until the last day's trades are 24 h old",
            id="rest of the day",
        ),
        pytest.param(
            with_limits(two(9_600, 400, min_trade=None), daily_turnover_bps=1),
            "daily_turnover",
            "1 USDC",
            "",
            id="limit of an untraded day",
        ),
    ],
)
def test_refusal_names_the_limit_that_leaves_too_little(step: StepInput, limit: str, left_text: str, wait_text: str) -> None:
    refusal = plan_refusal(step)

    assert refusal.remedy == f"raise limits.{limit}{wait_text}"
    (verdict,) = refusal.verdicts
    assert (verdict.guard, verdict.measured_text, verdict.limit) == (limit, "4600 USDC to move", left_text)


@pytest.mark.parametrize(
    ("daily_turnover_bps", "turnover_usd", "remedy"),
    [
        pytest.param(10, 0, "raise limits.daily_turnover, or lower limits.min_trade", id="untraded day"),
        pytest.param(10, 4, "raise limits.daily_turnover, or lower limits.min_trade", id="day with trades"),
        pytest.param(11, 4, "wait until the last day's trades are 24 h old", id="a whole day is enough"),
    ],
)
def test_waiting_is_advised_only_if_a_day_permits_min_trade(daily_turnover_bps: int, turnover_usd: int, remedy: str) -> None:
    step = with_limits(two(9_600, 400, turnover_bps=None, min_trade=Fraction(10 * COIN)), daily_turnover_bps=daily_turnover_bps)
    step = replace(step, history=history(turnover_24h=Fraction(turnover_usd * COIN)))

    with pytest.raises(Refused) as refused:
        planner.plan(step, rebalance_to_targets(step))

    assert refused.value.remedy == remedy


@pytest.mark.parametrize(
    ("weth_usd", "passed"), [pytest.param(5_010, True, id="at the limit"), pytest.param(5_009, False, id="a dollar below")]
)
def test_refusal_compares_the_drift_with_min_trade(weth_usd: int, passed: bool) -> None:
    step = with_limits(two(weth_usd, 10_000 - weth_usd), plan_cost_bps=4)

    refusal = plan_refusal(step)

    (verdict,) = [verdict for verdict in refusal.verdicts if verdict.guard == "min_trade"]
    assert verdict.passed is passed
    assert verdict.measured_text == f"{weth_usd - 5_000} USDC to move"
    assert verdict.limit == "10 USDC"


OFF = v3_pool(WETH, USDC, 1_999, DEEP)
"""Pays five bps less than the reference, with a fee of five bps."""
DEAR = v3_pool(WETH, USDC, 2_000, DEEP, 10_000)


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        pytest.param(two(5_004, 4_996), "limits.min_trade", id="drift below min_trade"),
        pytest.param(with_limits(two(5_004, 4_996), min_trade=None, plan_cost_bps=4), "limits.plan_cost", id="fee above plan_cost"),
        pytest.param(with_snapshot(two(5_300, 4_700), priority_fee_wei=100 * GWEI), "limits.plan_cost", id="gas"),
        pytest.param(without_gas(two(5_800, 4_200, plan_cost_bps=4)), "limits.plan_cost", id="fee above plan_cost, no gas"),
        pytest.param(without_gas(two(5_800, 4_200, [OFF], plan_cost_bps=6)), "", id="pool off the reference"),
        pytest.param(without_gas(two(5_800, 4_200, [DEAR], plan_cost_bps=6)), "limits.plan_cost", id="dear pool"),
        pytest.param(without_gas(two(5_800, 4_200, [OFF, DEAR], plan_cost_bps=6)), "", id="pool off the reference beside a dear one"),
        pytest.param(two(9_600, 400, turnover_bps=5), "", id="turnover limit"),
    ],
)
def test_refusal_is_a_hold_only_where_cost_or_size_alone_blocks(step: StepInput, rule: str) -> None:
    refusal = plan_refusal(step)

    assert refusal.limiting_rule == rule


def test_plan_between_given_tokens_uses_no_other_pool() -> None:
    step = five_asset_step(MIXED)
    allowed = {WETH.address, USDC.address}

    plan = planner.plan(step, rebalance_to_targets(step), allowed_pool_tokens=allowed)

    assert plan.legs
    assert {token for leg in plan.legs for token in (leg.token_in, leg.token_out)} == allowed


# --- Drafts beyond the goal


ONE_WAY = Goal(
    tuple(GoalWeight(token.address, Fraction(1, 2), Fraction(1, 2)) for token in (WETH, USDC)),
    never_sold=(WETH.address, USDC.address),
    never_bought=(USDC.address,),
)


WETH_ABOVE_BY_500 = {"WETH": ("0.4", "0.6"), "USDC": ("0.3", "0.6")}
"""Bands of which WETH is 500 above its own, USDC in its own, at 6,500 of WETH."""


def test_untradable_tokens_may_be_neither_sold_nor_bought() -> None:
    problem = problem_of(two(5_800, 4_200))

    assert list(untradable_tokens(problem, ONE_WAY)) == [problem.index_by_token[USDC.address]]


@pytest.mark.parametrize(
    ("changes_raw", "wrong"),
    [
        pytest.param({WETH.address: -1}, [WETH], id="sold by a base unit"),
        pytest.param({WETH.address: 1}, [], id="bought and never sold"),
        pytest.param({USDC.address: 1}, [USDC], id="bought by a base unit"),
        pytest.param({USDC.address: -1}, [USDC], id="sold and never sold"),
        pytest.param({WETH.address: 0, USDC.address: 0}, [], id="unmoved"),
    ],
)
def test_wrong_side_tokens_are_exact_to_the_base_unit(changes_raw: dict[str, int], wrong: list[object]) -> None:
    problem = problem_of(two(5_800, 4_200))

    tokens = wrong_side_tokens(problem, ONE_WAY, PlanDraft(delta_raw=changes_raw))

    assert [problem.nodes[index].address for index in tokens] == [token.address for token in wrong]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("weth_usd", "weights", "sold_usd", "bought_usd", "reason"),
    [
        pytest.param(5_800, None, "800", "800", "", id="to the target"),
        pytest.param(5_800, None, "800", "797", "", id="short of the target by its cost"),
        pytest.param(5_800, None, "800.1", "800.1", "", id="past it by the tolerance"),
        pytest.param(5_800, None, "800.11", "800.11", "move WETH and USDC past its goal", id="a cent further"),
        pytest.param(5_800, None, "-100", "-100", "move WETH and USDC past its goal", id="wrong way"),
        pytest.param(5_800, None, "700", "1000", "move WETH and USDC past its goal", id="gain counts in the total"),
        pytest.param(6_500, WETH_ABOVE_BY_500, "526.17", "527.17", "", id="bands: a twentieth more than drift and gain"),
        pytest.param(6_500, WETH_ABOVE_BY_500, "526.18", "527.18", "turn over more than the drift", id="bands: a cent more"),
        pytest.param(6_500, WETH_ABOVE_BY_500, "540", "540", "", id="bands: without a gain"),
        pytest.param(6_500, WETH_ABOVE_BY_500, "560", "640", "", id="bands: gain that large"),
    ],
)
def test_overshoot_is_a_move_past_the_goal_or_beyond_drift(
    weth_usd: int, weights: dict[str, tuple[str, str]] | None, sold_usd: str, bought_usd: str, reason: str
) -> None:
    step = two(weth_usd, 10_000 - weth_usd)
    problem = problem_of(step)
    objective = objective_for_goal(problem, rebalance_to_targets(step, weights).goal)
    sold_raw = int(Fraction(sold_usd) * 10**18 / 2_000)
    draft = PlanDraft(delta_raw={WETH.address: -sold_raw, USDC.address: int(Fraction(bought_usd) * COIN)})

    assert overshoot_reason(problem, objective, draft) == reason


@pytest.mark.parametrize(
    ("amount_out_raw", "cause"),
    [
        pytest.param(2_000 * COIN, "exchanges too few base units to hit a goal", id="at the reference"),
        pytest.param(2_000 * COIN + 1, "pays above the reference price", id="one base unit above"),
    ],
)
def test_best_paying_pool_is_above_the_reference_from_a_base_unit(amount_out_raw: int, cause: str) -> None:
    problem = problem_of(two(5_800, 4_200))
    legs = [leg(WETH.address, USDC.address, 10**18, raw, pool=name) for name, raw in (("low", 1_990 * COIN), ("best", amount_out_raw))]

    assert best_paying_pool(problem, PlanDraft(legs=legs), "move WETH") == ("best", f"{cause}: with it the plan would move WETH")


# --- Reasons


def test_skipped_names_the_unmoved_counterpart() -> None:
    """USDC would have to grow by 350, less than min_trade, so that 350 of the 900 too much of WETH have no other side."""
    values = {"WETH": 40_900, "USDC": 29_650, "DAI": 19_450, "WBTC": 10_000}
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 2_000, "WBTC": 1_000}
    pools = [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, DAI, 2_000, DEEP), v2_pool(WBTC, WETH, 30, 20_000)]

    plan = checked_plan(wide(step_input(targets, values, PRICES, pools=pools), min_trade=Fraction(400 * COIN)))

    reasons = reason_by_subject(plan)
    assert "limits.min_trade" in reasons["USDC"]
    assert reasons["WETH"].startswith("349")
    assert mentions(reasons["WETH"], ": USDC")
    assert {leg.token_out for leg in plan.legs} == {DAI.address}


FLOOR_REASON = DropReason(DropCause.BELOW_FLOOR, "pays less than the floor set by the reference price")
GAS_REASON = DropReason(DropCause.GAS, DropCause.GAS.value)


@pytest.mark.parametrize(
    ("drop_reasons", "why"),
    [
        ((FLOOR_REASON,) * 2, "no pool of it is used: pays less than the floor set by the reference price"),
        (
            (FLOOR_REASON, GAS_REASON),
            "no pool of it is used: gas costs more than it saves; pays less than the floor set by the reference price",
        ),
        ((GAS_REASON,) * 2, "plan_cost allows"),
    ],
    ids=["floor", "floor and gas", "gas"],
)
def test_skipped_names_cost_only_where_it_binds(drop_reasons: tuple[DropReason, ...], why: str) -> None:
    step = two(60_000, 40_000, [v2_pool(WETH, USDC, 2_000, DEEP), v2_pool(WETH, USDC, 2_000, DEEP, "second")], plan_cost_bps=1)
    problem = problem_of(step)
    objective = objective_for_goal(problem, rebalance_to_targets(step).goal)
    graph = build_pool_graph(problem, float(problem.total))
    pools = sorted({edge.pool_address for edge in graph.pool_edges})
    fixed_point = FixedPoint(PlanDraft(), dropped_pools=dict(zip(pools, drop_reasons, strict=True)))

    skips = {item.subject: item.why for item in skipped_items(step, graph, objective, fixed_point, "", None)}

    assert skips["WETH"].partition(" off target: ")[2].startswith(why)
