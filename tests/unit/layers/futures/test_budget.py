"""The daily budget of futures reductions: a reduction above it is cut to what is left, never refused whole (T12)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.layers.futures.policy.needs import reduction_goals
from agent.layers.futures.state import FuturesProgress, margin_account, planned_futures
from agent.margin import account as margin
from agent.margin.state import is_reduction
from agent.model import AdjustFutures, Hold, StepInput
from agent.model.futures import FuturesPlan, FuturesTarget, MarginAccount
from agent.planning.proposals import propose_rebalance
from tests.support.builders import NOW_S, with_history, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import FUTURES_POLICY, OVER, book, futures_of, proposed_futures, step_of
from tests.support.perpetuals.unknowns import two_market_account
from tests.support.plans import proposed_plan, refusing_guards

PUSHED = book(10_000, 20 * E18, index=Fraction(2_300))
"""4x at the mark and below 3x at the index; 2x of its 10,000 may be closed a day."""
HALVES = replace(FUTURES_POLICY, targets=(FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000)))
LEVERED_HALVES = two_market_account(10_000, 10 * E18, 2 * E18 // 3, btc_s=NOW_S - 60)
"""4x in halves of ETH and BTC."""


def spent(dollars: int) -> dict[str, Fraction]:
    return {"reduced_notional_24h": Fraction(dollars * 10**6)}


def planned(step: StepInput) -> FuturesPlan:
    """Return the step's actions on futures, which every guard passes and which only reduce."""
    plan = proposed_plan(step)
    assert refusing_guards(step, plan) == []
    assert futures_of(plan).orders, plan.decision.reason
    assert all(is_reduction(margin_account(step.snapshot), order) for order in futures_of(plan).orders)
    return futures_of(plan)


def closed_by_market(step: StepInput) -> dict[str, Fraction]:
    """Return the notional at the index that the step's plan closes."""
    account = margin_account(step.snapshot)
    return {order.market: abs(order.size_raw) * account.market(order.market).index / E18 for order in planned(step).orders}


def closed(step: StepInput) -> Fraction:
    return sum(closed_by_market(step).values(), Fraction(0))


@pytest.mark.parametrize("used", [19_000, 15_000, 13_000])
def test_reduction_above_the_day_s_budget__is_cut_to_its_rest(used: int) -> None:
    step = step_of(PUSHED, **spent(used))
    assert closed(step_of(PUSHED)) > 20_000 - used
    assert 20_000 - used - 3 < closed(step) <= 20_000 - used, "to one lot of 0.001"
    assert any("max_reduction_per_day" in why for why in planned(step).refusal_texts)


def test_cut_reduction__keeps_shares_of_markets_and_goals() -> None:
    markets = tuple(replace(perp, index=perp.index * Fraction(115, 100)) for perp in LEVERED_HALVES.markets)
    account = replace(LEVERED_HALVES, markets=markets)
    step = step_of(account, HALVES, **spent(14_000))
    first, second = planned(step).orders
    goals = reduction_goals(step.snapshot, planned(step))
    closed_values = closed_by_market(step)
    assert closed_values.keys() == {"ETH", "BTC"}
    assert abs(closed_values["ETH"] - closed_values["BTC"]) < 40, "halves, to one lot of BTC"
    assert dict(goals) == {order.market: account.size_raw(order.market) + order.size_raw for order in (first, second)}
    quote = margin.position_value_raw(account.market(first.market), -first.size_raw)
    rest = with_snapshot(step, futures=margin.with_trade(account, first.market, first.size_raw, quote))
    used = 14_000 + int(closed_values[first.market])
    later = with_history(rest.with_progress(FuturesProgress(reduction_goals=goals)), **spent(used))
    assert closed_by_market(later).keys() == {second.market}
    assert closed(later) <= 20_000 - used


@pytest.mark.parametrize("used", [20_000, 19_900, 50_000])
def test_used_budget__holds_futures_says_so_and_lets_spot_go_on(used: int) -> None:
    """A rest below a hundredth of the budget is not worth an order."""
    step = step_of(PUSHED, **spent(used))
    proposal = propose_rebalance(step)
    assert proposal.plan is None
    assert isinstance(proposal.decision_result.decision, Hold)
    assert "max_reduction_per_day" in proposal.decision_result.decision.reason
    first, *others = step.snapshot.holdings
    spot = proposed_plan(with_snapshot(step, holdings=(first, *(replace(holding, raw=holding.raw * 2) for holding in others))))
    assert planned_futures(spot) is None
    assert spot.legs


@pytest.mark.parametrize("account", [OVER, book(1_300, 10 * E18, index=Fraction(2_300))], ids=["required by the index", "emergency"])
def test_what_the_index_or_an_emergency_demands__is_not_cut(account: MarginAccount) -> None:
    assert planned(step_of(account, **spent(10**6))).orders == planned(step_of(account)).orders


def test_cut_of_a_trim_towards_the_targets__opens_nothing() -> None:
    """ETH is above its share and BTC below: with the sale cut, the purchase would stand alone."""
    account = two_market_account(10_000, 8 * E18, E18 // 15, btc_s=NOW_S - 60)
    assert {order.is_reduce_only for order in proposed_futures(step_of(account, HALVES)).orders} == {True, False}
    step = step_of(account, HALVES, **spent(19_000))
    assert 900 < closed(step) <= 1_000
    decision = proposed_plan(step).decision
    assert isinstance(decision, AdjustFutures)
    assert decision.is_reducing


def test_unknown_day__is_left_to_the_guard() -> None:
    step = step_of(PUSHED, unknown_reason="the ledger was restored")
    assert "reduction_per_day" in refusing_guards(step, proposed_plan(step))


def test_recorded_step__is_cut_alike() -> None:
    step = step_of(PUSHED, **spent(15_000))
    assert propose_rebalance(codec.loads(StepInput, codec.dumps(step))).plan == propose_rebalance(step).plan
