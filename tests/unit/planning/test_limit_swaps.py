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


def balanced(depth: int = 1_000_000) -> StepInput:
    return with_limits(step_input(depth=depth), turnover_bps=None, daily_turnover_bps=None)


def paid(plan: Plan) -> int:
    return sum(leg.amount_out_raw for leg in plan.legs)


def order(price: Fraction, until_s: int = 2_000_000_000) -> LimitOrder:
    return LimitOrder("o1", WETH.address, USDC.address, ONE, price, until_s, 0)


# swaps
def test_a_price_that_is_met_to_the_base_unit_fires_and_one_unit_more_waits() -> None:
    step = balanced()
    out = paid(planner.plan_swap(step, WETH.address, USDC.address, ONE))
    fires, why = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(out, ONE))
    assert fires is not None
    assert why == ""
    waits, why = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(out + 1, ONE))
    assert waits is None
    assert "price is 19" in why


def test_the_chain_holds_a_swap_to_its_limit_and_no_minimum_is_loosened() -> None:
    step = balanced()
    usual = planner.plan_swap(step, WETH.address, USDC.address, ONE)
    low, _ = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(1, ONE))
    assert low is not None
    assert [leg.min_out_raw for leg in low.legs] == [leg.min_out_raw for leg in usual.legs]
    tight = Fraction(paid(usual) - 5, ONE)
    held, _ = plan_limit_swap(step, WETH.address, USDC.address, ONE, tight)
    assert held is not None
    assert sum(leg.min_out_raw for leg in held.legs) >= ONE * tight
    assert all(a.min_out_raw >= b.min_out_raw for a, b in zip(held.legs, usual.legs, strict=True))
    assert all(leg.min_out_raw <= leg.amount_out_raw for leg in held.legs)


def test_raised_minimums_pass_every_guard() -> None:
    step = balanced()
    usual = planner.plan_swap(step, WETH.address, USDC.address, ONE)
    held, _ = plan_limit_swap(step, WETH.address, USDC.address, ONE, Fraction(paid(usual), ONE))
    assert held is not None
    before = {verdict.guard: verdict.passed for verdict in guards.judge(step, usual, evidence(step, usual))}
    after = {verdict.guard: verdict.passed for verdict in guards.judge(step, held, evidence(step, held))}
    assert before == after
    assert before["slippage"]


def test_what_cannot_be_planned_waits_and_says_why() -> None:
    waits, why = plan_limit_swap(balanced(), WETH.address, USDC.address, 10**24, Fraction(1, ONE))
    assert waits is None
    assert "spendable balance" in why


def test_an_order_is_filled_before_anything_else_and_the_first_that_can_be() -> None:
    step = balanced()
    out = Fraction(paid(planner.plan_swap(step, WETH.address, USDC.address, ONE)), ONE)
    far, near = replace(order(out * 2), id="far"), replace(order(out), id="near")
    found = proposals.orders_proposer((far, near))(step)
    assert found.plan is not None
    assert found.decision_result.filled_order_id == "near"
    none = proposals.orders_proposer((far,))(step)
    assert (none.plan, none.decision_result.filled_order_id) == (None, "")
    assert none.decision_result == proposals.propose_rebalance(step).decision_result


def test_a_correction_that_waits_at_the_end_of_the_ticks_says_so_beside_an_order() -> None:
    pool = v3_pool(WETH, USDC, 2_000, depth=DEEP)
    near = replace(pool, ticks=(), known_from_tick=pool.tick - 1, known_to_tick=pool.tick + 2)
    step = wide(two(800_000, 200_000, [near]), price_impact_bps=500, pool_min_value=None)
    step = replace(step, execution=replace(step.execution, pace=replace(LIMIT, limit_bps=-100)))
    assert proposals.propose_rebalance(step).needs_more_ticks
    assert proposals.orders_proposer((order(Fraction(1, ONE), until_s=1),))(step) == proposals.propose_rebalance(step)


def test_while_anything_is_unknown_no_order_is_filled() -> None:
    step = with_snapshot(balanced(), feeds=())
    step = replace(step, reference=replace(step.reference, sources=step.reference.sources[:1]))
    found = proposals.single_order_proposer(order(Fraction(1, ONE)))(step)
    assert found.plan is None
    assert type(found.decision_result.decision).__name__ == "Halt"


@pytest.mark.parametrize(("left_s", "word"), [(-1, "expired"), (0, "expired"), (1, "sooner"), (89, "sooner"), (90, "")])
def test_nothing_of_an_order_is_sent_that_could_be_mined_after_its_time(left_s: int, word: str) -> None:
    step = balanced()
    until = order(Fraction(1, ONE), step.snapshot.head.timestamp_s + left_s)
    assert word in expiry_reason(step.snapshot, step.execution, until)
    assert (expiry_reason(step.snapshot, step.execution, until) == "") is (word == "")
    found = proposals.single_order_proposer(until)(step)
    assert (found.plan is None) is (word != "")


# rebalances
def test_a_rebalance_at_a_price_trades_at_once_where_the_pools_pay_enough() -> None:
    step = paced(roomy(step_input(None, {"WETH": 6_000, "USDC": 4_000}, depth=50_000_000)), replace(LIMIT, limit_bps=40))
    found = proposals.propose_rebalance(step)
    assert isinstance(found.decision_result.decision, Rebalance)
    assert found.plan is not None


def test_it_waits_else_and_trades_once_the_market_came_to_it() -> None:
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
    given = sum(leg.amount_in_raw * arrival[leg.token_in] for leg in fires.plan.legs)
    assert sum(leg.min_out_raw * arrival[leg.token_out] for leg in fires.plan.legs) >= given * Fraction(9_980, 10_000)
    done = risen.with_layer(replace(risen.layer(GradualState), progress=replace(under, parts_done=1)))
    assert mentions(proposals.propose_rebalance(done).decision_result.layer(GradualResult).end_reason, "done at")


def test_a_rebalance_that_never_gets_its_price_ends_at_its_time_untraded() -> None:
    step = paced(roomy(step_input(None, {"WETH": 700_000, "USDC": 300_000}, depth=20_000_000), max_live_value=None), LIMIT)
    begun = proposals.propose_rebalance(step).decision_result.layer(GradualResult).new_execution
    assert begun is not None
    under = ExecutionProgress("c", begun, 0, Fraction(0), Fraction(0), begun.began_s, begun.first_draw)
    late_ = later(step.with_layer(replace(step.layer(GradualState), progress=under)), LIMIT.patience_s)
    found = proposals.propose_rebalance(late_)
    assert found.plan is None
    assert "time ended" in found.decision_result.layer(GradualResult).end_reason


def test_minimums_rise_to_the_same_part_of_each_leg() -> None:
    step = roomy(step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, {"WETH": 6_000, "WBTC": 1_500, "USDC": 2_500}, depth=5_000_000))
    found = proposals.propose_rebalance(step)
    assert found.plan is not None
    prices = found.decision_result.references.price_by_token
    ends = [leg for leg in found.plan.legs if leg.sink.value == "wallet"]
    worth = sum((leg.amount_out_raw * prices[leg.token_out] for leg in ends), Fraction(0))
    raised = with_raised_minimums(found.plan, prices, worth * Fraction(9_995, 10_000))
    for before, after in zip(found.plan.legs, raised.legs, strict=True):
        wanted = -(-before.amount_out_raw * 9_995 // 10_000) if before.sink.value == "wallet" else before.min_out_raw
        assert after.min_out_raw == max(before.min_out_raw, wanted)
