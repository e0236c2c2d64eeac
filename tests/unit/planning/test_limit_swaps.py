"""Swaps and rebalances that wait for a price: exact to the base unit, held by the chain too, and never late."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import guards
from agent.layers.gradual.state import ExecutionProgress, GradualResult, GradualState
from agent.model import ExecutionStyle, Hold, LimitOrder, Plan, Rebalance, StepInput
from agent.planning import planner, proposals
from agent.planning.limit_swaps import plan_limit_swap, with_raised_minimums
from agent.policy.orders.conditional import expiry_reason
from tests.support.builders import step_input, token, v3_pool, with_limits, with_snapshot
from tests.support.gradual_execution import PACE, later, market, paced, roomy
from tests.support.planning_worlds import DEEP, two, wide
from tests.support.plans import evidence
from tests.support.text import mentions

WETH, USDC = token("WETH"), token("USDC")
ONE = 10**18
LIMIT = replace(PACE, style=ExecutionStyle.LIMIT, limit_bps=20, patience_s=14_400)


def deep_step(depth: int = 1_000_000) -> StepInput:
    return with_limits(step_input(depth=depth), turnover_bps=None, daily_turnover_bps=None)


def output_raw(plan: Plan) -> int:
    return sum(leg.amount_out_raw for leg in plan.legs)


def order(price: Fraction, until_s: int = 2_000_000_000) -> LimitOrder:
    return LimitOrder("o1", WETH.address, USDC.address, ONE, price, until_s, 0)


# swaps
def test_limit_swap_fires_at_its_price_and_waits_a_unit_beyond() -> None:
    step = deep_step()
    out = output_raw(planner.plan_swap(step, WETH.address, USDC.address, ONE))
    fires, why = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(out, ONE))
    assert fires is not None
    assert why == ""
    waits, why = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(out + 1, ONE))
    assert waits is None
    assert "price is 19" in why


def test_limit_swap_raises_minimums_and_lowers_none() -> None:
    step = deep_step()
    usual = planner.plan_swap(step, WETH.address, USDC.address, ONE)
    low, _ = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(1, ONE))
    assert low is not None
    assert [leg.min_out_raw for leg in low.legs] == [leg.min_out_raw for leg in usual.legs]
    tight = Fraction(output_raw(usual) - 5, ONE)
    limit_plan, _ = plan_limit_swap(step, WETH.address, USDC.address, ONE, tight)
    assert limit_plan is not None
    assert sum(leg.min_out_raw for leg in limit_plan.legs) >= ONE * tight
    assert all(a.min_out_raw >= b.min_out_raw for a, b in zip(limit_plan.legs, usual.legs, strict=True))
    assert all(leg.min_out_raw <= leg.amount_out_raw for leg in limit_plan.legs)


def test_raised_minimums_pass_every_guard() -> None:
    step = deep_step()
    usual = planner.plan_swap(step, WETH.address, USDC.address, ONE)
    limit_plan, _ = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(output_raw(usual), ONE))
    assert limit_plan is not None
    before = {verdict.guard: verdict.passed for verdict in guards.judge(step, usual, evidence(step, usual))}
    after = {verdict.guard: verdict.passed for verdict in guards.judge(step, limit_plan, evidence(step, limit_plan))}
    assert before == after
    assert before["slippage"]


def test_limit_swap_that_cannot_be_planned_waits() -> None:
    waits, why = plan_limit_swap(deep_step(), WETH.address, USDC.address, 10**24, Fraction(1, ONE))
    assert waits is None
    assert "spendable balance" in why


def test_orders_proposer_fills_the_first_order_that_it_can() -> None:
    step = deep_step()
    out = Fraction(output_raw(planner.plan_swap(step, WETH.address, USDC.address, ONE)), ONE)
    far, near = replace(order(out * 2), id="far"), replace(order(out), id="near")
    proposal = proposals.orders_proposer((far, near))(step)
    assert proposal.plan is not None
    assert proposal.decision_result.filled_order_id == "near"
    none = proposals.orders_proposer((far,))(step)
    assert (none.plan, none.decision_result.filled_order_id) == (None, "")
    assert none.decision_result == proposals.propose_rebalance(step).decision_result


def test_orders_proposer_keeps_the_need_for_more_ticks() -> None:
    pool = v3_pool(WETH, USDC, 2_000, depth=DEEP)
    near = replace(pool, ticks=(), known_from_tick=pool.tick - 1, known_to_tick=pool.tick + 2)
    step = wide(two(800_000, 200_000, [near]), price_impact_bps=500, pool_min_value=None)
    step = replace(step, execution=replace(step.execution, pace=replace(LIMIT, limit_bps=-100)))
    assert proposals.propose_rebalance(step).needs_more_ticks
    assert proposals.orders_proposer((order(Fraction(1, ONE), until_s=1),))(step) == proposals.propose_rebalance(step)


def test_order_is_not_filled_while_prices_are_unknown() -> None:
    step = with_snapshot(deep_step(), feeds=())
    step = replace(step, reference=replace(step.reference, sources=step.reference.sources[:1]))
    proposal = proposals.single_order_proposer(order(Fraction(1, ONE)))(step)
    assert proposal.plan is None
    assert type(proposal.decision_result.decision).__name__ == "Halt"


@pytest.mark.parametrize(("left_s", "word"), [(-1, "expired"), (0, "expired"), (1, "sooner"), (89, "sooner"), (90, "")])
def test_order_that_may_be_mined_late_is_not_planned(left_s: int, word: str) -> None:
    step = deep_step()
    limit_order = order(Fraction(1, ONE), step.snapshot.head.timestamp_s + left_s)
    assert word in expiry_reason(step.snapshot, step.execution, limit_order)
    assert (expiry_reason(step.snapshot, step.execution, limit_order) == "") is (word == "")
    proposal = proposals.single_order_proposer(limit_order)(step)
    assert (proposal.plan is None) is (word != "")


# rebalances
def test_rebalance_at_a_price_trades_where_pools_pay_it() -> None:
    step = paced(roomy(step_input(None, {"WETH": 6_000, "USDC": 4_000}, depth=50_000_000)), replace(LIMIT, limit_bps=40))
    proposal = proposals.propose_rebalance(step)
    assert isinstance(proposal.decision_result.decision, Rebalance)
    assert proposal.plan is not None


def test_rebalance_at_a_price_waits_until_the_market_moves() -> None:
    step = paced(roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None), LIMIT)
    waits = proposals.propose_rebalance(step)
    assert waits.plan is None
    assert isinstance(waits.decision_result.decision, Hold)
    assert "its price" in waits.decision_result.decision.reason
    begun = waits.decision_result.layer(GradualResult).new_execution
    assert begun is not None
    under = ExecutionProgress("c", begun, 0, Fraction(0), Fraction(0), begun.began_s, begun.first_draw)
    waiting = step.with_layer(replace(step.layer(GradualState), progress=under))
    assert proposals.propose_rebalance(later(waiting, 600)).plan is None
    risen = market(later(waiting, 600), Fraction(2_100))
    fires = proposals.propose_rebalance(risen)
    assert fires.plan is not None
    arrival = dict(begun.arrival_prices)
    sold_value = sum(leg.amount_in_raw * arrival[leg.token_in] for leg in fires.plan.legs)
    assert sum(leg.min_out_raw * arrival[leg.token_out] for leg in fires.plan.legs) >= sold_value * Fraction(9_980, 10_000)
    done = risen.with_layer(replace(risen.layer(GradualState), progress=replace(under, parts_done=1)))
    assert mentions(proposals.propose_rebalance(done).decision_result.layer(GradualResult).end_reason, "done at")


def test_rebalance_at_a_price_ends_untraded_at_its_time() -> None:
    step = paced(roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None), LIMIT)
    begun = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    assert begun is not None
    under = ExecutionProgress("c", begun, 0, Fraction(0), Fraction(0), begun.began_s, begun.first_draw)
    late_step = later(step.with_layer(replace(step.layer(GradualState), progress=under)), LIMIT.patience_s)
    proposal = proposals.propose_rebalance(late_step)
    assert proposal.plan is None
    assert "time ended" in proposal.decision_result.layer(GradualResult).end_reason


def test_raised_minimums_are_the_same_share_of_each_leg() -> None:
    step = roomy(step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, {"WETH": 6_000, "WBTC": 1_500, "USDC": 2_500}, depth=5_000_000))
    proposal = proposals.propose_rebalance(step)
    assert proposal.plan is not None
    prices = proposal.decision_result.references.price_by_token
    ends = [leg for leg in proposal.plan.legs if leg.sink.value == "wallet"]
    worth = sum((leg.amount_out_raw * prices[leg.token_out] for leg in ends), Fraction(0))
    raised = with_raised_minimums(proposal.plan, prices, worth * Fraction(9_995, 10_000))
    for before, after in zip(proposal.plan.legs, raised.legs, strict=True):
        expected_raw = -(-before.amount_out_raw * 9_995 // 10_000) if before.sink.value == "wallet" else before.min_out_raw
        assert after.min_out_raw == max(before.min_out_raw, expected_raw)
