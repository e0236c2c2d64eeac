"""The daily budget of futures reductions: a reduction above it is cut to what is left, never refused whole (T12)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec, guards
from agent.layers.futures.policy.needs import reduction_goals
from agent.layers.futures.state import FuturesProgress, margin_account, planned_futures
from agent.margin import account as margin
from agent.margin.state import is_reduction
from agent.model import AdjustFutures, Hold, Plan, StepInput
from agent.model.futures import FuturesTarget, MarginAccount
from agent.planning.proposals import propose_rebalance
from tests.support.builders import NOW_S, with_history, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.steps import FUTURES_POLICY, OVER, book, step_of
from tests.support.plans import evidence

PUSHED = book(10_000, 20 * E18, index=Fraction(2_300))
"""4x at the mark and below 3x at the index; 2x of its 10,000 may be closed a day."""
HALVES = replace(FUTURES_POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000)))


def both() -> MarginAccount:
    """4x in halves of ETH and BTC, with both marks 15 % below their index."""
    margin_account = account(10_000, {"ETH": 10 * E18, "BTC": 2 * E18 // 3}, market("ETH"), market("BTC", 30_000))
    return replace(
        margin_account,
        markets=tuple(replace(market, index=market.index * Fraction(115, 100), index_s=NOW_S - 60) for market in margin_account.markets),
    )


def spent(dollars: int) -> dict[str, Fraction]:
    return {"reduced_notional_24h": Fraction(dollars * 10**6)}


def planned(step: StepInput) -> Plan:
    """The plan of the step, which every guard passes and whose orders only reduce."""
    proposal = propose_rebalance(step)
    assert proposal.plan is not None, proposal.decision_result.decision.reason
    assert planned_futures(proposal.plan) is not None, proposal.decision_result.decision.reason
    assert planned_futures(proposal.plan).orders, proposal.decision_result.decision.reason
    refusing = [verdict.guard for verdict in guards.judge(step, proposal.plan, evidence(step, proposal.plan)) if not verdict.passed]
    assert refusing == []
    account_before = margin_account(step.snapshot)
    assert account_before is not None
    assert all(is_reduction(account_before, order) for order in planned_futures(proposal.plan).orders)
    return proposal.plan


def closed(step: StepInput, plan: Plan) -> Fraction:
    """Notional at the index that a plan closes."""
    account_before = margin_account(step.snapshot)
    assert account_before is not None
    assert planned_futures(plan) is not None
    return (
        sum((abs(order.size_raw) * account_before.market(order.market).index for order in planned_futures(plan).orders), Fraction(0)) / E18
    )


@pytest.mark.parametrize("used", [19_000, 15_000, 13_000])
def test_reduction_above_the_day_s_budget__is_cut_to_its_rest(used: int) -> None:
    whole = step_of(PUSHED)
    assert closed(whole, planned(whole)) > 20_000 - used
    step = step_of(PUSHED, **spent(used))
    plan = planned(step)
    assert 20_000 - used - 3 < closed(step, plan) <= 20_000 - used, "to one lot of 0.001"
    assert planned_futures(plan) is not None
    assert any("max_reduction_per_day" in why for why in planned_futures(plan).refusal_texts)


def test_cut_reduction__keeps_shares_of_markets_and_goals() -> None:
    step = step_of(both(), HALVES, **spent(14_000))
    plan = planned(step)
    assert planned_futures(plan) is not None
    assert {order.market for order in planned_futures(plan).orders} == {"ETH", "BTC"}
    account_before = margin_account(step.snapshot)
    assert account_before is not None
    values = [abs(order.size_raw) * account_before.market(order.market).index / E18 for order in planned_futures(plan).orders]
    assert abs(values[0] - values[1]) < 40, "halves, to one lot of BTC"
    goals = dict(reduction_goals(step.snapshot, planned_futures(plan)))
    assert goals == {order.market: account_before.size_raw(order.market) + order.size_raw for order in planned_futures(plan).orders}
    first = planned_futures(plan).orders[0]
    rest = margin.with_trade(
        account_before, first.market, first.size_raw, margin.position_value_raw(account_before.market(first.market), -first.size_raw)
    )
    used = 14_000 + int(values[0])
    later = with_snapshot(step, futures=rest).with_progress(FuturesProgress(reduction_goals=tuple(goals.items())))
    later = with_history(later, **spent(used))
    second = planned(later)
    assert planned_futures(second) is not None
    assert [order.market for order in planned_futures(second).orders] == [planned_futures(plan).orders[1].market]
    assert closed(later, second) <= 20_000 - used


@pytest.mark.parametrize("used", [20_000, 19_900, 50_000])
def test_a_used_budget_holds_futures_says_so_and_lets_spot_go_on(used: int) -> None:
    """A rest below a hundredth of the budget is not worth an order."""
    proposal = propose_rebalance(step_of(PUSHED, **spent(used)))
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "max_reduction_per_day" in proposal.decision_result.decision.reason
    skewed = step_of(PUSHED, **spent(used))
    moved = replace(skewed, snapshot=replace(skewed.snapshot, holdings=tuple(
        replace(holding, raw=holding.raw * 2) if number else holding for number, holding in enumerate(skewed.snapshot.holdings)
    )))  # fmt: skip
    spot = propose_rebalance(moved).plan
    assert spot is not None
    assert planned_futures(spot) is None
    assert spot.legs


@pytest.mark.parametrize("margin_account", [OVER, book(1_300, 10 * E18, index=Fraction(2_300))], ids=["required by the index", "emergency"])
def test_what_the_index_or_an_emergency_demands_is_not_cut(margin_account: MarginAccount) -> None:
    fresh = planned(step_of(margin_account))
    used = planned(step_of(margin_account, **spent(10**6)))
    assert planned_futures(fresh) is not None
    assert planned_futures(used) is not None
    assert planned_futures(used).orders == planned_futures(fresh).orders


def test_a_cut_of_a_trim_towards_the_targets_opens_nothing() -> None:
    """ETH is above its share and BTC below: with the sale cut, the purchase would stand alone."""
    margin_account = account(10_000, {"ETH": 8 * E18, "BTC": E18 // 15}, market("ETH"), market("BTC", 30_000))
    margin_account = replace(margin_account, markets=tuple(replace(market, index_s=NOW_S - 60) for market in margin_account.markets))
    whole = propose_rebalance(step_of(margin_account, HALVES)).plan
    assert whole is not None
    assert planned_futures(whole) is not None
    assert {order.is_reduce_only for order in planned_futures(whole).orders} == {True, False}
    step = step_of(margin_account, HALVES, **spent(19_000))
    plan = planned(step)
    assert 900 < closed(step, plan) <= 1_000
    decision = plan.decision
    assert isinstance(decision, AdjustFutures)
    assert decision.is_reducing


def test_an_unknown_day_is_left_to_the_guard() -> None:
    step = step_of(PUSHED, unknown_reason="the ledger was restored")
    plan = propose_rebalance(step).plan
    assert plan is not None
    assert "reduction_per_day" in {verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed}


def test_a_recorded_step_is_cut_alike() -> None:
    step = step_of(PUSHED, **spent(15_000))
    assert propose_rebalance(codec.loads(StepInput, codec.dumps(step))).plan == propose_rebalance(step).plan
