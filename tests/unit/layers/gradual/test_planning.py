"""Tests of agent/layers/gradual/planning.py: the number of slices that costs least, and how a plan is scheduled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import sqrt

import pytest

from agent.layers.gradual.planning import (
    _SliceSimulation,
    _step_after_plan,
    _unmoved_unit_cost,
    max_slices,
    remaining_impact,
    schedule_plan,
)
from agent.layers.gradual.policy import NO_JITTER
from agent.layers.gradual.state import BudgetCarryover, ExecutionProgress, GradualExecution, GradualResult, GradualState, SliceDraw
from agent.layers.holding.state import HoldingConfig, HoldingState
from agent.model import (
    Allowance,
    Destination,
    ExecutionPace,
    ExecutionStyle,
    Goal,
    Hold,
    NoTradeZone,
    OpenLot,
    Plan,
    PriceSource,
    Rebalance,
    SlicingComparison,
    SlicingCost,
    StepInput,
    TradeSide,
)
from agent.planning import planner, proposals
from agent.planning.partial_plans import daily_loss_left, worst_case_loss
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.drift import compute_drifts
from agent.policy.risk import tracking_cost
from agent.reference import reference_prices
from tests.support.builders import NOW_S, OWNER, ROUTER, split, step_input, strategy, tracking, with_limits, with_snapshot
from tests.support.constants import DAY_S, ETHER, GWEI, USD
from tests.support.gradual_execution import PACE, paced, roomy
from tests.support.planning_worlds import random_step
from tests.support.samples import slow
from tests.support.taxes import with_lots
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

MARKET = ExecutionPace()
TWAP = replace(PACE, style=ExecutionStyle.TWAP, max_rounds=8, twap_duration_s=14_400)
LIMIT = ExecutionPace(ExecutionStyle.LIMIT, limit_bps=-100, patience_s=14_400)


# --- how many slices


def large_step(depth: int = 20_000_000, base_fee_gwei: int = 30, **pace: object) -> StepInput:
    """Return a step that has to sell 300,000 of 1,000,000 through one pair of this depth; all is approved."""
    step = roomy(step_input(None, {"WETH": 800_000, "USDC": 200_000}, depth=depth), max_live_value=None)
    head = replace(step.snapshot.head, base_fee_wei=base_fee_gwei * GWEI)
    allowances = tuple(Allowance(token.address, ROUTER, 2**255) for token in (WETH, USDC))
    step = with_snapshot(step, head=head, allowances=allowances, priority_fee_wei=0)
    return paced(step, **pace)


def comparison_of(step: StepInput) -> SlicingComparison:
    proposal = proposals.propose_rebalance(step)
    assert proposal.plan is not None, proposal.decision_result.decision.reason
    assert proposal.plan.slicing_comparison is not None
    return proposal.plan.slicing_comparison


@pytest.mark.parametrize(
    ("depth", "gwei", "waiting_bps"),
    [
        pytest.param(20_000_000, 30, 0, id="usual gas"),
        pytest.param(20_000_000, 1_000, 0, id="dear gas"),
        pytest.param(60_000_000, 30, 20, id="with waiting"),
        pytest.param(15_000_000, 400, 7, id="shallow pools"),
    ],
)
def test_slice_count_is_that_of_a_closed_form(depth: int, gwei: int, waiting_bps: int) -> None:
    """A pair of reserves R on each side, wholly back between slices, takes x - R·x/(R + x) of a slice of x, fee aside.

    Half of what a sale costs has to be sold besides, for both halves to be alike after it.
    """
    comparison = comparison_of(large_step(depth, gwei, max_rounds=9, recovery_s=1, waiting_bps_hour=Fraction(waiting_bps)))
    gas_usd = float(comparison.options[0].gas) / USD
    hours = PACE.interval_s / 3_600

    def cost_usd(slices: int) -> float:
        sold_usd = 300_000.0
        for _ in range(20):
            slice_usd = sold_usd / slices * 0.997
            impact_usd = slices * (slice_usd - depth * slice_usd / (depth + slice_usd))
            sold_usd = 300_000 + (impact_usd + 0.003 * sold_usd) / 2
        waiting_usd = sum(300_000 * (1 - number / slices) * waiting_bps / 10_000 * hours for number in range(1, slices))
        return impact_usd + gas_usd * slices + waiting_usd

    cost_by_count = {slices: cost_usd(slices) for slices in range(1, 10)}

    assert comparison.chosen_count == min(cost_by_count, key=lambda slices: cost_by_count[slices])
    for option in comparison.options:
        option_usd = float(option.impact + option.skew + option.gas + option.delay_cost) / USD
        assert option_usd == pytest.approx(cost_by_count[option.slice_count], rel=5e-3), option.slice_count


def test_slice_count_without_waiting_is_the_root_of_impact_over_gas() -> None:
    """n* = sqrt(W² / (R · gas)), by cost(n) = W²/(n·R) + n·gas."""
    comparison = comparison_of(large_step(20_000_000, 2_400, max_rounds=12, recovery_s=1, waiting_bps_hour=Fraction(0)))
    gas_usd = float(comparison.options[0].gas) / USD

    assert abs(comparison.chosen_count - sqrt(300_000**2 / (20_000_000 * gas_usd))) < 1


def test_slice_count_in_a_pool_that_does_not_recover_is_one() -> None:
    """The impact is the same in pieces, and each piece costs gas of its own."""
    comparison = comparison_of(large_step(recovery_s=28 * DAY_S, waiting_bps_hour=Fraction(0)))
    first = comparison.options[0]
    last = comparison.options[-1]

    assert comparison.chosen_count == 1
    assert abs((last.impact + last.skew) - (first.impact + first.skew)) < first.impact / 50
    assert last.gas > 5 * first.gas


@cache
def chosen_count(**changes: object) -> int:
    """Return how many slices of up to eight cost least, at these prices and the usual ones."""
    settings: dict[str, object] = {"max_rounds": 8, "base_fee_gwei": 900, "waiting_bps_hour": Fraction(1)}
    return comparison_of(large_step(**settings | changes)).chosen_count  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("changes", "is_more"),
    [
        *slow([({"recovery_s": 6_000}, False), ({"waiting_bps_hour": Fraction(20)}, False), ({"base_fee_gwei": 5_000}, False)]),
        pytest.param({"depth": 200_000_000}, False, id="deeper pools"),
        pytest.param({"base_fee_gwei": 50}, True, id="cheaper gas"),
    ],
)
def test_slice_count_moves_with_each_price(changes: dict[str, object], is_more: bool) -> None:
    usual_count = chosen_count()
    count = chosen_count(**changes)

    assert 1 < usual_count < 8
    assert count > usual_count if is_more else count < usual_count


@pytest.mark.parametrize(
    ("min_trade", "count"),
    [
        pytest.param(None, 6, id="off"),
        pytest.param(0, 6, id="zero"),
        pytest.param(116, 6, id="just six"),
        pytest.param(117, 5, id="a unit more"),
        pytest.param(140, 5, id="just five"),
        pytest.param(141, 4, id="a unit more than five allow"),
        pytest.param(350, 2, id="just two"),
        pytest.param(351, 1, id="one"),
        pytest.param(9_000, 1, id="more than all"),
    ],
)
def test_max_slices_leaves_the_smallest_at_min_trade(min_trade: int | None, count: int) -> None:
    """The smallest of n slices of 1,000 is 700 / n; the config allows six."""
    step = paced(step_input())
    limits = replace(step.limits, min_trade=None if min_trade is None else Fraction(min_trade))

    assert max_slices(limits, step.execution, Fraction(1_000)) == count


def test_comparison_has_no_slices_below_min_trade() -> None:
    step = large_step(max_rounds=12, recovery_s=1)
    small_comparison = comparison_of(with_limits(step, min_trade=Fraction(250_000 * USD)))

    assert len(comparison_of(with_limits(step, min_trade=Fraction(60_000 * USD))).options) == 3
    assert (len(small_comparison.options), small_comparison.chosen_count) == (1, 1)
    assert "too small" in small_comparison.why


@pytest.mark.parametrize("plan_cost_bps", [500, None], ids=["plan_cost", "off"])
def test_unmoved_part_costs_plan_cost_or_the_dearest_unit(plan_cost_bps: int | None) -> None:
    """A pool that takes less than is wanted; what stays waits for nothing."""
    step = roomy(large_step(max_rounds=3, waiting_bps_hour=Fraction(100)), price_impact_bps=50, max_live_value=None)
    comparison = comparison_of(with_limits(step, plan_cost_bps=plan_cost_bps))
    single, *sliced = comparison.options
    unit_costs = [(option.total - option.unmoved_cost) / option.turnover for option in comparison.options]
    unmoved_unit_cost = max(unit_costs) if plan_cost_bps is None else Fraction(plan_cost_bps, 10_000)

    assert (single.unmoved_cost > 0, single.delay_cost) == (True, 0)
    assert sliced
    assert all(option.delay_cost > 0 for option in sliced)
    assert abs(single.unmoved_cost / unmoved_unit_cost + single.turnover - 300_000 * USD) < 1_000 * USD


def test_unmoved_unit_cost_is_zero_if_nothing_moves() -> None:
    limits = replace(step_input().limits, plan_cost_bps=None)
    unmoved = SlicingCost(1, *(Fraction(0) for _ in range(7)))

    assert _unmoved_unit_cost(limits, [unmoved]) == 0
    assert _unmoved_unit_cost(limits, [unmoved, replace(unmoved, turnover=Fraction(100), gas=Fraction(2))]) == Fraction(1, 50)


def test_single_slice_is_the_plan_and_the_chosen_costs_least() -> None:
    for seed in range(2):
        step = roomy(random_step(seed, tokens=4, pools=8, depth=400_000, worth=60_000), max_live_value=None)
        proposal = proposals.propose_rebalance(paced(step, max_rounds=4))
        whole_plan = proposals.propose_rebalance(step).plan
        if proposal.plan is None or proposal.plan.slicing_comparison is None:
            continue
        comparison = proposal.plan.slicing_comparison
        single = comparison.options[0]
        total_by_count = {option.slice_count: option.total for option in comparison.options}
        assert (single.fees, single.impact, single.skew) == (whole_plan.cost.fees, whole_plan.cost.impact, whole_plan.cost.skew)
        assert single.gas == whole_plan.cost.gas + whole_plan.cost.approval_gas
        assert total_by_count[comparison.chosen_count] == min(total_by_count.values())


def test_comparison_is_at_present_prices() -> None:
    """With spot prices alone the reference would move with pools that are only simulated."""
    step = large_step(recovery_s=1)
    spot_step = replace(step, reference=replace(step.reference, sources=(PriceSource.SPOT,)))

    assert [option.impact for option in comparison_of(spot_step).options] == pytest.approx(
        [option.impact for option in comparison_of(step).options], rel=1e-6
    )


@pytest.mark.parametrize("horizon_s", [DAY_S, 2 * DAY_S])
@pytest.mark.parametrize("waiting_bps_hour", [None, Fraction(0)], ids=["the zone's risk", "configured"])
def test_waiting_in_a_zone_costs_the_risk_of_its_drift(horizon_s: int, waiting_bps_hour: Fraction | None) -> None:
    """The risk is that of the horizon; an interval of ten minutes has its part of it."""
    risk = replace(tracking("WETH", "USDC", cost_bps=2), horizon_s=horizon_s)
    step = large_step()
    step = replace(step, policy=replace(step.policy, trigger=NoTradeZone(risk)))
    references = reference_prices(step)
    prices = references.price_by_token
    values = [drift.value for drift in compute_drifts(step, prices)]
    tokens = [asset.token.address for asset in step.portfolio.assets]
    drift_risk = tracking_cost(risk, tokens, [Fraction(1, 2)] * 2, values, sum(values, Fraction(0)))
    pace = replace(PACE, waiting_bps_hour=waiting_bps_hour)

    simulation = _SliceSimulation(step, Rebalance("test", Goal(())), Goal(()), references, prices, pace, 2)

    assert drift_risk > 0
    assert simulation._waiting_cost(Fraction(1)) == (0 if waiting_bps_hour == 0 else drift_risk * Fraction(600, horizon_s))


# --- pools between slices


@pytest.mark.parametrize(
    ("seconds", "half_life_s", "impact_left"),
    [
        pytest.param(0, 600, Fraction(1), id="at once"),
        pytest.param(600, 600, Fraction(1, 2), id="one half-life"),
        pytest.param(1_200, 600, Fraction(1, 4), id="two half-lives"),
        pytest.param(28 * DAY_S, 1, Fraction(0), id="very many"),
    ],
)
def test_remaining_impact_halves_each_half_life_rounded_up(seconds: int, half_life_s: int, impact_left: Fraction) -> None:
    share = remaining_impact(seconds, half_life_s)

    assert 0 < share <= 1
    assert share - impact_left in (0, Fraction(1, 10**12))


# --- how a plan is scheduled


def drifted_step(**pace: object) -> StepInput:
    """Return a step that has to sell 200,000 of 1,000,000 through a pair of 20 million on each side."""
    step = roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None)
    return paced(step, **{"recovery_s": 1} | pace)


def schedule(step: StepInput, **decision_fields: bool) -> tuple[DecisionResult, Plan | None]:
    """Return the schedule of the plan of a step's rebalance, as it is or with these fields of its decision."""
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)
    decision = replace(decision_result.decision, **decision_fields)  # type: ignore[arg-type]  # field names, checked by replace
    return schedule_plan(step, decision_result, decision, planner.plan(step, decision))


def new_execution(decision_result: DecisionResult) -> GradualExecution:
    execution = decision_result.layer(GradualResult).new_execution
    assert execution is not None, decision_result.decision.reason
    return execution


def with_approvals(step: StepInput) -> StepInput:
    caps = ((WETH.address, 10**24), (USDC.address, 10**18))
    return replace(step, progress=replace(step.progress, spend_caps=caps))


STRATEGIES = split(strategy("own", 10_000, {"WETH": 5_000, "USDC": 5_000}))
ROUNDS_STEP = drifted_step(max_loss_bps=None)
TWAP_STEP = paced(ROUNDS_STEP, replace(TWAP, max_loss_bps=None))


@pytest.mark.parametrize(
    ("step", "decision_fields", "is_sliced"),
    [
        pytest.param(ROUNDS_STEP, {}, True, id="rounds"),
        pytest.param(TWAP_STEP, {}, True, id="fixed duration"),
        pytest.param(paced(ROUNDS_STEP, MARKET), {}, False, id="market style"),
        pytest.param(ROUNDS_STEP, {"is_exit": True}, False, id="an exit"),
        pytest.param(ROUNDS_STEP, {"by_hand": True}, False, id="by hand"),
        pytest.param(with_approvals(ROUNDS_STEP), {}, False, id="approved in this step, rounds"),
        pytest.param(with_approvals(TWAP_STEP), {}, False, id="approved in this step, fixed duration"),
    ],
)
def test_plan_is_sliced_unless_it_must_go_at_once(step: StepInput, decision_fields: Mapping[str, bool], is_sliced: bool) -> None:
    decision_result, plan = schedule(step, **decision_fields)

    assert (decision_result.layer(GradualResult).new_execution is not None) is is_sliced
    assert (plan.turnover < 150_000 * USD) is is_sliced
    assert is_sliced or plan.turnover > 195_000 * USD


def test_plan_of_strategies_is_not_sliced() -> None:
    decision_result = decide(ROUNDS_STEP)
    assert isinstance(decision_result.decision, Rebalance)
    plan = planner.plan(ROUNDS_STEP, decision_result.decision)

    shared_result = schedule_plan(ROUNDS_STEP.with_config(STRATEGIES), decision_result, decision_result.decision, plan)

    assert shared_result == (decision_result, plan)


def test_first_slice_is_decided_as_later_ones_are() -> None:
    draw = SliceDraw(123_456, 654_321)
    step = drifted_step().with_layer(GradualState(draw=draw))
    decision_result, plan = schedule(step)
    execution = new_execution(decision_result)
    begun = ExecutionProgress("e", execution, 0, Fraction(0), Fraction(0), execution.began_s, draw)

    proposal = proposals.propose_rebalance(step.with_layer(GradualState(progress=begun)))

    assert execution.first_draw == draw
    assert proposal.plan.legs == plan.legs
    assert proposal.decision_result.layer(GradualResult).due_slice == decision_result.layer(GradualResult).due_slice


def test_execution_has_the_terms_of_its_start() -> None:
    step = drifted_step()
    step = replace(step, policy=replace(step.policy, trade_side=TradeSide.SELL))

    execution = new_execution(schedule(step)[0])

    assert (execution.pace, execution.trade_side, execution.destination) == (step.execution.pace, TradeSide.SELL, step.policy.destination)
    assert execution.side_by_token == ((WETH.address, -1), (USDC.address, 1))
    assert (execution.value_to_move, execution.max_loss) == (200_000 * USD, 2_000 * USD)
    assert (execution.began_s, execution.first_draw, execution.carryover) == (NOW_S, NO_JITTER, None)


TAXED = with_lots(
    paced(large_step(), TWAP), [OpenLot(WETH.address, 400 * ETHER, Fraction(400_000 * USD), 1)], year_limit=Fraction(5_000 * USD)
)
"""Of 300,000 of WETH, at twice its cost, 10,000 may be sold this year."""
THIRDS = {"WETH": 400_000, "WBTC": 450_000, "USDC": 150_000}
HELD = (
    paced(roomy(step_input({"WETH": 3_000, "WBTC": 3_000, "USDC": 4_000}, THIRDS, depth=20_000_000), max_live_value=None), TWAP)
    .with_config(HoldingConfig((WETH.address,), DAY_S))
    .with_layer(HoldingState(((WETH.address, NOW_S - 3),)))
)
"""Of 100,000 of WETH and 150,000 of WBTC only the latter may be sold today."""


@pytest.mark.parametrize(
    ("step", "value_usd"), [pytest.param(TAXED, 10_000, id="tax.year_limit"), pytest.param(HELD, 150_000, id="holding.hours")]
)
def test_execution_counts_only_what_may_be_sold(step: StepInput, value_usd: int) -> None:
    """Its budget is a share of it, and its slices move it together."""
    execution = new_execution(proposals.propose_rebalance(step).decision_result)

    assert execution.value_to_move / USD == pytest.approx(value_usd, rel=2e-3)
    assert execution.max_loss == execution.value_to_move / 100
    assert sum((weight.high for weight in execution.goal.weights), Fraction(0)) == 1


def test_comparison_moves_only_what_may_be_sold() -> None:
    comparison = comparison_of(paced(TAXED, max_rounds=3, recovery_s=1))

    assert [round(option.turnover / (10_000 * USD), 2) for option in comparison.options] == [1] * 3
    assert all(option.unmoved_cost < 10 * USD for option in comparison.options)


def test_comparison_has_no_slice_beyond_the_daily_loss() -> None:
    """A single trade is a part of the whole, and the parts of each number lose no more in a day."""
    step = with_limits(large_step(max_rounds=4, recovery_s=1), daily_loss_bps=4)
    loss_left = daily_loss_left(step)

    options = comparison_of(step).options

    assert options[0].turnover < 100_000 * USD
    assert all(option.fees + option.impact + option.skew + option.gas <= loss_left for option in options)


def test_execution_in_a_zone_goes_to_the_weights_after_its_plan() -> None:
    """Further trading costs more than it saves."""
    zone = NoTradeZone(tracking("WETH", "USDC", cost_bps=2))
    step = drifted_step()
    step = replace(step, policy=replace(step.policy, trigger=zone, destination=Destination.ZONE))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)
    weights_bps = dict(planner.plan(step, decision_result.decision).weights_after_bps)

    execution = new_execution(schedule(step)[0])

    assert {weight.token: (weight.low, weight.high) for weight in execution.goal.weights} == {
        token: (Fraction(bps, 10_000), Fraction(bps, 10_000)) for token, bps in weights_bps.items()
    }


def spent(lost_usd: int, until_s: int = 2 * NOW_S, **changes: object) -> GradualState:
    """Return the state after executions that lost so much of a budget of 1,200 dollars."""
    carryover = BudgetCarryover(until_s, Fraction(200_000 * USD), Fraction(lost_usd * USD))
    return GradualState(carryover=replace(carryover, **changes))  # type: ignore[arg-type]  # field names, checked by replace


@pytest.mark.parametrize(
    ("until_s", "begins"),
    [pytest.param(NOW_S + 1, False, id="in its time"), pytest.param(NOW_S, True, id="after its time")],
)
def test_execution_has_what_the_shared_budget_left(until_s: int, begins: bool) -> None:
    step = drifted_step(max_loss_bps=60).with_layer(spent(1_199, until_s))

    proposal = proposals.propose_rebalance(step)

    assert (proposal.decision_result.layer(GradualResult).new_execution is not None) is begins
    assert begins or "shared until" in proposal.decision_result.decision.reason


def test_execution_counts_from_the_first_prices_of_its_own_tokens() -> None:
    prices = ((WETH.address, Fraction(1, 3)), ("0xgone", Fraction(7)))
    step = drifted_step(max_loss_bps=60).with_layer(spent(0, arrival_prices=prices))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance)

    execution = new_execution(schedule(paced(step, LIMIT))[0])

    assert dict(execution.arrival_prices) == {WETH.address: Fraction(1, 3), USDC.address: Fraction(1)}


@pytest.mark.parametrize("style", [ExecutionStyle.ROUNDS, ExecutionStyle.TWAP])
def test_single_trade_is_a_slice_of_a_shared_budget(style: ExecutionStyle) -> None:
    step = drifted_step(style=style, twap_duration_s=3_600, max_loss_bps=60, recovery_s=10**6, max_rounds=2)
    step = with_limits(step, min_trade=Fraction(150_000 * USD))

    free_result, free_plan = schedule(step)
    proposal = proposals.propose_rebalance(step.with_layer(spent(1_199)))

    assert free_result.layer(GradualResult).due_slice is None
    assert free_plan is not None
    assert proposal.plan is None
    assert "shared until" in proposal.decision_result.decision.reason


def under_execution(step: StepInput, lost_value: Fraction | int = 0) -> StepInput:
    """Return the step under the execution that it begins, which has lost this value."""
    execution = new_execution(schedule(step)[0])
    progress = ExecutionProgress("e", execution, 0, Fraction(0), Fraction(lost_value), execution.began_s, SliceDraw(500_000, 0))
    return step.with_layer(GradualState(progress=progress))


@pytest.mark.parametrize("excess", [0, 1], ids=["exactly the rest", "a unit more"])
def test_slice_may_cost_the_rest_of_the_budget_at_worst(excess: int) -> None:
    step = under_execution(drifted_step(max_loss_bps=50))
    progress = step.layer(GradualState).progress
    plan = proposals.propose_rebalance(step).plan
    assert progress.execution.max_loss == 1_000 * USD
    assert plan is not None
    rest = progress.execution.max_loss - worst_case_loss(step, plan, dict(progress.execution.arrival_prices))

    proposal = proposals.propose_rebalance(step.with_layer(GradualState(progress=replace(progress, lost_value=rest + excess))))

    assert (proposal.plan is None) is bool(excess)
    assert ("may cost" in proposal.decision_result.layer(GradualResult).end_reason) is bool(excess)
    assert isinstance(proposal.decision_result.decision, Hold if excess else Rebalance)


def test_slice_may_cost_anything_without_a_budget() -> None:
    assert proposals.propose_rebalance(under_execution(drifted_step(max_loss_bps=None), 10**15)).plan is not None


def test_execution_begins_with_no_slice_that_may_cost_too_much() -> None:
    proposal = proposals.propose_rebalance(drifted_step(max_loss_bps=1))

    assert (proposal.plan, proposal.decision_result.layer(GradualResult).new_execution) == (None, None)
    assert "its budget" in proposal.decision_result.decision.reason


@pytest.mark.parametrize(
    ("limit_bps", "is_reached"),
    [
        pytest.param(200, True, id="2 % worse is enough"),
        pytest.param(-200, False, id="2 % better is needed"),
    ],
)
def test_limit_price_is_that_of_the_start_with_its_limit(limit_bps: int, is_reached: bool) -> None:
    decision_result, plan = schedule(paced(ROUNDS_STEP, replace(LIMIT, limit_bps=limit_bps)))

    assert (plan is not None) is is_reached
    assert isinstance(decision_result.decision, Rebalance if is_reached else Hold)
    assert new_execution(decision_result).rounds == 1
    assert is_reached or mentions(decision_result.decision.reason, "waiting for its price")


def test_waiting_for_the_limit_price_leaves_no_slice_due() -> None:
    step = under_execution(paced(ROUNDS_STEP, LIMIT))
    decision_result = decide(step)
    assert decision_result.layer(GradualResult).due_slice is not None
    assert isinstance(decision_result.decision, Rebalance)

    waiting_result, plan = schedule_plan(step, decision_result, decision_result.decision, planner.plan(step, decision_result.decision))

    assert plan is None
    assert waiting_result.layer(GradualResult).due_slice is None


# --- a slice in a simulation


def test_step_after_a_slice_has_used_balance_and_allowance() -> None:
    step = drifted_step()
    plan = proposals.propose_rebalance(step).plan
    [leg] = plan.legs
    router = step.execution.router
    rows = ((WETH.address, router, leg.amount_in_raw + 7), (USDC.address, router, 9), (WETH.address, OWNER, leg.amount_in_raw + 7))
    step = with_snapshot(step, allowances=tuple(Allowance(*row) for row in rows))
    [before_raw] = [holding.raw for holding in step.snapshot.holdings if holding.token == WETH.address]

    step_after = _step_after_plan(step, plan)

    assert [allowance.raw for allowance in step_after.snapshot.allowances] == [7, 9, leg.amount_in_raw + 7]
    assert [holding.raw for holding in step_after.snapshot.holdings if holding.token == WETH.address] == [before_raw - leg.amount_in_raw]
    assert step_after.history.budgets.turnover_24h == plan.turnover
