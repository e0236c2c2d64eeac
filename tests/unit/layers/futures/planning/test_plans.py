"""Tests of agent/layers/futures/planning/plans.py: the plan of a step, its cost, gas and limit orders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.planning.plans import (
    HEDGE_MARGIN,
    OPEN_HEDGE,
    action_gas,
    as_limit_orders,
    collateral_change_raw,
    current_futures_plan,
    fee_raw,
    funding_raw,
    plan_adjustment,
    uneconomic_reason,
    vault_approval_raw,
    without_refused_plan,
    without_resting_markets,
)
from agent.layers.futures.policy import exposure
from agent.layers.futures.policy.needs import (
    RESTING_STOP,
)
from agent.layers.futures.state import (
    planned_futures,
)
from agent.model import AdjustFutures, Allowance, Plan
from agent.model.futures import (
    FuturesPlan,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    RestingOrder,
    StopOrder,
)
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import current_drifts
from tests.support.builders import NOW_S, with_limits, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.needs import BUY, SELL, UNIT, USDC, VAULT, in_usdc, policy
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, PUSHED, book, step_of


@pytest.mark.parametrize(("allowed", "approved"), [(700, 700), (699, 0), (701, 0)])
def test_approved_deposit__counts_while_the_vault_has_its_allowance(allowed: int, approved: int) -> None:
    step = with_snapshot(step_of(in_usdc(OVER), policy()), allowances=(Allowance(USDC, VAULT, allowed),))
    assert vault_approval_raw(step.snapshot, ((USDC, 700),), policy()) == approved


def test_fee__is_that_of_the_bound_or_of_a_worse_mark_rounded_up() -> None:
    margin_account = book(10_000)
    fees = [fee_raw(margin_account, order) for order in (BUY, SELL, replace(BUY, size_raw=1, bound_raw=1))]
    assert fees == [2_020 * E18 // 1_000, 2_000 * E18 // 1_000, 2]


def test_funding__orders_pay_by_their_signed_size() -> None:
    margin_account = book(10_000, funding_daily=Fraction(1, 1_000))
    double = replace(SELL, size_raw=-3 * E18)
    assert funding_raw(margin_account, [BUY, double], 5 * exposure.DAY_S) == -20 * E18


def test_moved_collateral__deposit_leaves_and_withdrawal_enters() -> None:
    moved = [
        collateral_change_raw(action)
        for action in (MarginDeposit(5), MarginWithdrawal(7), BUY, StopOrder("ETH", 1, 1, 1), OrderCancel("ETH", "1"))
    ]
    assert moved == [-5, 7, 0, 0, 0]


def test_gas__resting_actions_cost_none() -> None:
    assert [action_gas(action) for action in (StopOrder("ETH", 1, 1, 1), OrderCancel("ETH", "1"))] == [0, 0]


def test_plan__cost_and_gas_are_those_of_its_orders() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    futures = planned_futures(plan)
    assert futures is not None
    [order] = futures.orders
    assert plan.cost.fees == Fraction(order.bound_raw, 1_000 * 10**12)
    assert plan.cost.gas == plan.gas_units * step.snapshot.current_gas_price_wei * Fraction(2_000 * UNIT, E18)
    assert plan.gas_units == 1_100_000


@pytest.mark.parametrize(("fee_ppm", "waits"), [(3_000, False), (3_001, True)])
def test_uneconomic__cost_that_equals_the_limit_is_paid(fee_ppm: int, waits: bool) -> None:
    """30 bps of fees on an order without gas."""
    step = with_limits(step_of(replace(book(10_000, fee_ppm=fee_ppm), is_on_chain=False)), plan_cost_bps=30)
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    plan = replace(plan.with_layer(FuturesPlan((BUY,), "drift", "")), cost=replace(plan.cost, gas=Fraction(0)))
    margin_account = book(10_000, fee_ppm=fee_ppm)
    assert bool(uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, margin_account)) is waits


def test_uneconomic__mark_on_the_wrong_side_of_the_index_costs() -> None:
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    plan = replace(plan.with_layer(FuturesPlan((BUY,), "drift", "")), cost=replace(plan.cost, gas=Fraction(0)))
    reasons = [
        bool(uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, book(10_000, mark=Fraction(mark))))
        for mark in (2_010, 1_990)
    ]
    assert reasons == [True, False], "50 bps of basis and 10 of fee, of at most 50"


@pytest.mark.parametrize("mark", [1_999, 1_990, 1_900])
def test_uneconomic__gain_of_the_basis_pays_no_fee(mark: int) -> None:
    """60 bps of fee, of at most 50."""
    step = step_of(EMPTY)
    plan = propose_rebalance(step).plan
    assert plan is not None
    plan = replace(plan.with_layer(FuturesPlan((BUY,), "drift", "")), cost=replace(plan.cost, gas=Fraction(0)))
    margin_account = book(10_000, fee_ppm=6_000, mark=Fraction(mark))
    assert uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, margin_account)


@pytest.mark.parametrize(
    ("size", "mid", "bound"),
    [
        pytest.param(1, Fraction(19_991, 10), 1_999_100_000_000_000_000_000, id="purchase within the bound"),
        pytest.param(1, Fraction(2_100), 2_020 * E18, id="purchase at the bound"),
        pytest.param(-1, Fraction(20_011, 10), 2_001_100_000_000_000_000_000, id="sale within the bound"),
        pytest.param(-1, Fraction(1_900), 1_980 * E18, id="sale at the bound"),
        pytest.param(1, Fraction(0), 2_000 * E18, id="no book"),
    ],
)
def test_post_only__price_is_the_book_s_middle_within_the_bound(size: int, mid: Fraction, bound: int) -> None:
    changed_book = replace(book(10_000, mid=mid), is_on_chain=False)
    order = replace(BUY if size > 0 else SELL, is_reduce_only=False)
    resting = replace(FUTURES_POLICY, order_kind=PerpOrderKind.POST_ONLY)
    [limit] = as_limit_orders(changed_book, resting, "drift", [order])
    assert (limit.kind, limit.bound_raw) == (PerpOrderKind.POST_ONLY, bound)


@pytest.mark.parametrize(
    ("size", "mid", "bound"),
    [pytest.param(3, Fraction(1, 2), 2, id="purchase rounds up"), pytest.param(-3, Fraction(1, 2), 1, id="sale rounds down")],
)
def test_post_only__part_of_a_base_unit_favours_the_fill(size: int, mid: Fraction, bound: int) -> None:
    changed_book = replace(book(10_000, mid=mid), is_on_chain=False)
    order = replace(BUY, size_raw=size, bound_raw=10 if size > 0 else 0)
    [limit] = as_limit_orders(changed_book, replace(FUTURES_POLICY, order_kind=PerpOrderKind.POST_ONLY), "drift", [order])
    assert limit.bound_raw == bound


@pytest.mark.parametrize(("trigger", "rests"), [("drift", True), ("leverage_drift", True), ("funding", False), ("leverage", False)])
def test_limit_orders__only_openings_to_the_targets_rest(trigger: str, rests: bool) -> None:
    changed_book = replace(book(10_000), is_on_chain=False)
    [order] = as_limit_orders(changed_book, replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT), trigger, [BUY])
    assert order.kind.can_rest is rests


@pytest.mark.parametrize("sale", [SELL, replace(SELL, is_reduce_only=False)], ids=["reduce-only", "any that reduces"])
def test_limit_orders__reduction_is_sent_at_once(sale: PerpOrder) -> None:
    changed_book = replace(book(10_000, 2 * E18), is_on_chain=False)
    [order] = as_limit_orders(changed_book, replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT), "drift", [sale])
    assert order == sale


def test_beside_resting__market_with_an_order_gets_no_second() -> None:
    margin_account = account(10_000, {}, market("ETH"), market("BTC", 30_000))
    margin_account = replace(
        margin_account, is_on_chain=False, resting_orders=(RestingOrder("ETH", E18, E18, Fraction(1_990), NOW_S, "1"),)
    )
    btc = replace(BUY, market="BTC")
    plan = without_resting_markets(margin_account, FuturesPlan((BUY, btc), "drift", "", refusal_texts=("why",)))
    assert (plan.orders, plan.refusal_texts) == ((btc,), ("why", "ETH: an order rests at the venue"))


def test_plan_now__reduction_is_planned_for_the_account_as_it_is() -> None:
    step = step_of(OVER)
    plan = current_futures_plan(step, FUTURES_POLICY, current_drifts(step), None)
    assert plan is not None
    assert [order.is_reduce_only for order in plan.orders] == [True]


STOPS = replace(FUTURES_POLICY, limits=replace(LIMITS, resting_stop_bps=200))


def test_stop__is_placed_with_the_budget_of_reductions_used_up() -> None:
    step = step_of(replace(PUSHED, is_on_chain=False), STOPS, reduced_notional_24h=Fraction(10**12))
    plan = plan_adjustment(step, AdjustFutures("", is_reducing=True), current_drifts(step))
    assert isinstance(plan, Plan)
    layer_plan = plan.layer(FuturesPlan)
    assert (layer_plan.trigger, layer_plan.orders, len(layer_plan.resting_actions)) == (RESTING_STOP, (), 1)


@pytest.mark.parametrize(("trigger", "is_held"), [(OPEN_HEDGE, True), (HEDGE_MARGIN, True), ("drift", False)])
def test_refused_plan__of_a_hedge_is_left_out_once(trigger: str, is_held: bool) -> None:
    """Without the hedge the asset is sold."""
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    opening = AdjustFutures("", is_reducing=False)
    assert (without_refused_plan(step_of(EMPTY), opening, plan.with_layer(FuturesPlan((), trigger)), "no") is not None) is is_held
