"""Tests of agent/planning/proposals.py: limit orders beside the policy, and rebalances that wait for their price."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.gradual.state import ExecutionProgress, GradualExecution, GradualResult, GradualState
from agent.model import ExecutionStyle, Halt, Hold, LimitOrder, Rebalance, StepInput
from agent.planning import planner, proposals
from agent.policy.orders.conditional import expiry_reason
from agent.units import BPS
from tests.support.builders import ETHER, step_input, v3_pool, with_limits, with_snapshot
from tests.support.gradual_execution import PACE, later, market, paced, roomy
from tests.support.planning_worlds import DEEP, two, wide
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

LIMIT_PACE = replace(PACE, style=ExecutionStyle.LIMIT, limit_bps=20, patience_s=14_400)
ANY_PRICE = Fraction(1, ETHER)


def order(price: Fraction, until_s: int = 2_000_000_000, order_id: str = "o1") -> LimitOrder:
    """Return an order that sells one WETH."""
    return LimitOrder(order_id, WETH.address, USDC.address, ETHER, price, until_s, 0)


def unlimited_step(weth_usd: int = 5_000) -> StepInput:
    return with_limits(step_input(None, {"WETH": weth_usd, "USDC": 10_000 - weth_usd}), turnover_bps=None, daily_turnover_bps=None)


# --- Limit orders


@pytest.mark.parametrize(
    ("weth_usd", "policy_decision"), [pytest.param(5_000, Hold, id="on target"), pytest.param(6_000, Rebalance, id="off")]
)
def test_orders_proposer_fills_the_first_order_that_it_can(weth_usd: int, policy_decision: type) -> None:
    step = unlimited_step(weth_usd)
    price = Fraction(sum(leg.amount_out_raw for leg in planner.plan_swap(step, WETH.address, USDC.address, ETHER).legs), ETHER)
    far = order(price * 2, order_id="far")
    near = order(price, order_id="near")
    policy_proposal = proposals.propose_rebalance(step)
    assert isinstance(policy_proposal.decision_result.decision, policy_decision)

    filled = proposals.orders_proposer((far, near, replace(near, id="later")))(step)
    waiting = proposals.orders_proposer((far,))(step)

    assert filled.plan is not None
    assert filled.decision_result.filled_order_id == "near"
    assert waiting.plan == policy_proposal.plan
    assert waiting.decision_result == policy_proposal.decision_result


def test_orders_proposer_keeps_the_need_for_more_ticks() -> None:
    pool = v3_pool(WETH, USDC, 2_000, depth=DEEP)
    near = replace(pool, ticks=(), known_from_tick=pool.tick - 1, known_to_tick=pool.tick + 2)
    step = wide(two(800_000, 200_000, [near]), price_impact_bps=500, pool_min_value=None)
    step = replace(step, execution=replace(step.execution, pace=replace(LIMIT_PACE, limit_bps=-100)))

    proposal = proposals.orders_proposer((order(ANY_PRICE, until_s=1),))(step)

    assert proposal.needs_more_ticks
    assert proposal == proposals.propose_rebalance(step)


def test_order_is_not_filled_while_prices_are_unknown() -> None:
    step = with_snapshot(unlimited_step(), feeds=())
    step = replace(step, reference=replace(step.reference, sources=step.reference.sources[:1]))

    proposal = proposals.single_order_proposer(order(ANY_PRICE))(step)

    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Halt)


@pytest.mark.parametrize(
    ("left_s", "words"),
    [
        pytest.param(-1, ["expired"], id="a second late"),
        pytest.param(0, ["expired"], id="at its end"),
        pytest.param(1, ["sooner"], id="a second left"),
        pytest.param(89, ["sooner"], id="a second less than the deadline"),
    ],
)
def test_order_that_may_be_mined_late_is_not_planned(left_s: int, words: list[str]) -> None:
    step = unlimited_step()
    late_order = order(ANY_PRICE, step.snapshot.head.timestamp_s + left_s)
    reason = expiry_reason(step.snapshot, step.execution, late_order)

    assert [word for word in ("expired", "sooner") if word in reason] == words
    assert proposals.single_order_proposer(late_order)(step).plan is None


def test_order_that_lasts_as_long_as_its_deadline_is_planned() -> None:
    step = unlimited_step()
    timely_order = order(ANY_PRICE, step.snapshot.head.timestamp_s + 90)

    assert expiry_reason(step.snapshot, step.execution, timely_order) == ""
    assert proposals.single_order_proposer(timely_order)(step).plan is not None


# --- Rebalances at a price


def large_correction() -> StepInput:
    """Return 200,000 USDC to move through pools of 20 million, at a price that their impact misses."""
    step = step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000)
    return paced(roomy(step, max_live_value=None), LIMIT_PACE)


def new_execution(step: StepInput) -> GradualExecution:
    execution = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    assert execution is not None
    return execution


def with_execution(step: StepInput, execution: GradualExecution, parts_done: int = 0) -> StepInput:
    progress = ExecutionProgress("c", execution, parts_done, Fraction(0), Fraction(0), execution.began_s, execution.first_draw)
    return step.with_layer(replace(step.layer(GradualState), progress=progress))


def test_rebalance_at_a_price_trades_where_pools_pay_it() -> None:
    step = paced(roomy(step_input(None, {"WETH": 6_000, "USDC": 4_000}, depth=50_000_000)), replace(LIMIT_PACE, limit_bps=40))

    proposal = proposals.propose_rebalance(step)

    assert isinstance(proposal.decision_result.decision, Rebalance)
    assert proposal.plan is not None


def require_waiting(step: StepInput) -> None:
    proposal = proposals.propose_rebalance(step)

    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "its price" in proposal.decision_result.decision.reason
    assert proposal.decision_result.layer(GradualResult).end_reason == ""


def test_rebalance_at_a_price_begins_by_waiting() -> None:
    require_waiting(large_correction())


@pytest.mark.parametrize("waited_s", [0, 600, LIMIT_PACE.patience_s - 1])
def test_rebalance_at_a_price_waits_while_the_market_stands(waited_s: int) -> None:
    step = large_correction()
    require_waiting(later(with_execution(step, new_execution(step)), waited_s))


def test_rebalance_at_a_price_trades_once_the_market_has_moved() -> None:
    step = large_correction()
    execution = new_execution(step)
    step = market(later(with_execution(step, execution), 600), Fraction(2_100))

    plan = proposals.propose_rebalance(step).plan

    arrival_prices = dict(execution.arrival_prices)
    sold_value = sum(leg.amount_in_raw * arrival_prices[leg.token_in] for leg in plan.legs)
    min_value = sum(leg.min_out_raw * arrival_prices[leg.token_out] for leg in plan.legs)
    assert min_value >= sold_value * Fraction(BPS - LIMIT_PACE.limit_bps, BPS)


@pytest.mark.parametrize(
    ("waited_s", "parts_done", "end_reason"),
    [pytest.param(600, 1, "done at", id="traded"), pytest.param(LIMIT_PACE.patience_s, 0, "time ended", id="patience is over")],
)
def test_rebalance_at_a_price_ends(waited_s: int, parts_done: int, end_reason: str) -> None:
    step = large_correction()
    step = later(with_execution(step, new_execution(step), parts_done), waited_s)

    proposal = proposals.propose_rebalance(step)

    assert proposal.plan is None
    assert mentions(proposal.decision_result.layer(GradualResult).end_reason, end_reason)
