"""Tests of agent/layers/futures/planning/plans.py: the plan of a step, its cost, gas and limit orders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.layers.futures.planning.plans import (
    DELEGATE_GAS,
    DEPOSIT_GAS,
    HEDGE_MARGIN,
    OPEN_HEDGE,
    WITHDRAWAL_GAS,
    action_gas,
    as_limit_orders,
    beside_resting_orders,
    collateral_change_raw,
    current_futures_plan,
    fee_raw,
    funding_raw,
    plan_adjustment,
    uneconomic_reason,
    vault_approval_raw,
    without_refused_plan,
)
from agent.layers.futures.policy.needs import ORDER_GAS, RESTING_STOP
from agent.layers.futures.state import FuturesProgress, futures_progress, hold_futures, planned_futures
from agent.model import AdjustFutures, Allowance, Decision, ExitFailures, Hold, Plan, StepInput
from agent.model.futures import (
    DelegateChange,
    FuturesAction,
    FuturesPlan,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    RestingOrder,
    StopOrder,
)
from agent.policy.decide import current_drifts
from agent.policy.failures import MAX_REVERTS_IN_ROW
from agent.units import DAY_S
from tests.support.builders import NOW_S, with_limits, with_snapshot
from tests.support.perpetuals.accounts import E18, account, market
from tests.support.perpetuals.needs import BUY, SELL, UNIT, USDC, VAULT, in_usdc, policy
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, PUSHED, book, step_of
from tests.support.plans import proposed_plan

STOP = StopOrder("ETH", 1, 1, 1)
CANCEL = OrderCancel("ETH", "1")


def any_plan() -> Plan:
    return proposed_plan(step_of(EMPTY))


# --- Amounts and gas of actions


@pytest.mark.parametrize(("allowed", "approved"), [(700, 700), (699, 0), (701, 0)], ids=["its allowance", "less", "more"])
def test_vault_approval_counts_while_the_vault_has_its_allowance(allowed: int, approved: int) -> None:
    step = with_snapshot(step_of(in_usdc(OVER), policy()), allowances=(Allowance(USDC, VAULT, allowed),))

    assert vault_approval_raw(step.snapshot, ((USDC, 700),), policy()) == approved


@pytest.mark.parametrize(
    ("order", "fee"),
    [
        pytest.param(BUY, 2_020 * E18 // 1_000, id="bound of a purchase"),
        pytest.param(SELL, 2_000 * E18 // 1_000, id="mark above the bound of a sale"),
        pytest.param(replace(BUY, size_raw=1, bound_raw=1), 2, id="rounded up"),
    ],
)
def test_fee_is_that_of_the_bound_or_of_a_worse_mark(order: PerpOrder, fee: int) -> None:
    assert fee_raw(book(10_000), order) == fee


def test_funding_is_paid_by_the_signed_size_of_orders() -> None:
    margin_account = book(10_000, funding_daily=Fraction(1, 1_000))

    assert funding_raw(margin_account, [BUY, replace(SELL, size_raw=-3 * E18)], 5 * DAY_S) == -20 * E18


@pytest.mark.parametrize(
    ("action", "change", "gas"),
    [
        pytest.param(MarginDeposit(5), -5, DEPOSIT_GAS, id="deposit"),
        pytest.param(MarginWithdrawal(7), 7, WITHDRAWAL_GAS, id="withdrawal"),
        pytest.param(DelegateChange("0x1", is_allowed=False), 0, DELEGATE_GAS, id="delegate"),
        pytest.param(BUY, 0, ORDER_GAS, id="order"),
        pytest.param(STOP, 0, 0, id="stop"),
        pytest.param(CANCEL, 0, 0, id="cancel"),
    ],
)
def test_actions_move_collateral_and_cost_gas(action: FuturesAction, change: int, gas: int) -> None:
    assert collateral_change_raw(action) == change
    assert action_gas(action) == gas


# --- Cost


def test_plan_costs_fees_and_gas_of_its_orders() -> None:
    step = step_of(EMPTY)
    plan = any_plan()
    [order] = planned_futures(plan).orders
    assert plan.cost.fees == Fraction(order.bound_raw, 1_000 * 10**12)
    assert plan.gas_units == ORDER_GAS == 1_100_000
    assert plan.cost.gas == plan.gas_units * step.snapshot.current_gas_price_wei * Fraction(2_000 * UNIT, E18)


@pytest.mark.parametrize(
    ("margin_account", "limit_bps", "waits"),
    [
        pytest.param(book(10_000, fee_ppm=3_000), 30, False, id="fee at the limit"),
        pytest.param(book(10_000, fee_ppm=3_001), 30, True, id="fee above the limit"),
        pytest.param(book(10_000, mark=Fraction(2_010)), 50, True, id="basis and fee above it"),
        pytest.param(book(10_000, mark=Fraction(1_990)), 50, False, id="basis in its favour"),
        pytest.param(book(10_000, fee_ppm=6_000, mark=Fraction(1_999)), 50, True, id="basis pays no fee"),
        pytest.param(book(10_000, fee_ppm=6_000, mark=Fraction(1_900)), 50, True, id="large basis pays no fee"),
    ],
)
def test_uneconomic_plan_costs_more_than_the_limit(margin_account: MarginAccount, limit_bps: int, waits: bool) -> None:
    """An order without gas, of 2,000."""
    step = with_limits(step_of(EMPTY), plan_cost_bps=limit_bps)
    plan = any_plan().with_layer(FuturesPlan((BUY,), "drift", ""))
    plan = replace(plan, cost=replace(plan.cost, gas=Fraction(0)))

    assert bool(uneconomic_reason(step.snapshot, step.portfolio, step.limits, plan, margin_account)) is waits


# --- Limit orders


POST_ONLY = replace(FUTURES_POLICY, order_kind=PerpOrderKind.POST_ONLY)
LIMIT = replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT)
SALE = replace(SELL, is_reduce_only=False)


def off_chain(size: int = 0, **market_fields: Any) -> MarginAccount:
    return replace(book(10_000, size * E18, **market_fields), is_on_chain=False)


@pytest.mark.parametrize(
    ("order", "mid", "bound"),
    [
        pytest.param(BUY, Fraction(19_991, 10), 1_999_100_000_000_000_000_000, id="purchase within the bound"),
        pytest.param(BUY, Fraction(2_100), 2_020 * E18, id="purchase at the bound"),
        pytest.param(SALE, Fraction(20_011, 10), 2_001_100_000_000_000_000_000, id="sale within the bound"),
        pytest.param(SALE, Fraction(1_900), 1_980 * E18, id="sale at the bound"),
        pytest.param(BUY, Fraction(0), 2_000 * E18, id="no book"),
        pytest.param(replace(BUY, size_raw=3, bound_raw=10), Fraction(1, 2), 2, id="purchase rounded up"),
        pytest.param(replace(SALE, size_raw=-3, bound_raw=0), Fraction(1, 2), 1, id="sale rounded down"),
    ],
)
def test_post_only_price_is_the_book_s_middle_within_the_bound(order: PerpOrder, mid: Fraction, bound: int) -> None:
    [limit_order] = as_limit_orders(off_chain(mid=mid), POST_ONLY, "drift", [order])

    assert (limit_order.kind, limit_order.bound_raw) == (PerpOrderKind.POST_ONLY, bound)


@pytest.mark.parametrize(
    ("margin_account", "trigger", "order", "rests"),
    [
        pytest.param(off_chain(), "drift", BUY, True, id="drift"),
        pytest.param(off_chain(), "leverage_drift", BUY, True, id="leverage drift"),
        pytest.param(off_chain(), "schedule", BUY, True, id="schedule"),
        pytest.param(off_chain(), "funding", BUY, False, id="funding"),
        pytest.param(off_chain(), "leverage", BUY, False, id="limit"),
        pytest.param(off_chain(), "hedge", BUY, False, id="hedge"),
        pytest.param(book(10_000), "drift", BUY, False, id="venue on a chain"),
        pytest.param(off_chain(2), "drift", SELL, False, id="reduce-only"),
        pytest.param(off_chain(2), "drift", SALE, False, id="order that reduces"),
    ],
)
def test_limit_orders_are_openings_to_the_targets(margin_account: MarginAccount, trigger: str, order: PerpOrder, rests: bool) -> None:
    [sent_order] = as_limit_orders(margin_account, LIMIT, trigger, [order])

    assert sent_order == (replace(order, kind=PerpOrderKind.LIMIT) if rests else order)


def test_plan_beside_a_resting_order_has_no_second_in_its_market() -> None:
    margin_account = account(10_000, {}, market("ETH"), market("BTC", 30_000))
    resting_order = RestingOrder("ETH", E18, E18, Fraction(1_990), NOW_S, "1")
    margin_account = replace(margin_account, is_on_chain=False, resting_orders=(resting_order,))
    btc_order = replace(BUY, market="BTC", size_raw=E18 // 10)

    layer_plan = FuturesPlan((BUY, btc_order), "drift", "", refusal_texts=("why",))
    plan = beside_resting_orders(margin_account, FUTURES_POLICY, layer_plan, None)

    assert (plan.orders, plan.refusal_texts) == ((btc_order,), ("why", "ETH: an order rests at the venue"))


WAITS = "BTC: max_leverage would be 3.21x until the resting orders are filled"


@pytest.mark.parametrize(
    ("resting_coins", "btc_thousandths", "refusals"),
    [
        pytest.param(-10, 300, (), id="within the limit"),
        pytest.param(-10, 400, (WAITS,), id="beyond it"),
        pytest.param(-15, 400, (WAITS,), id="beyond it until an order turns ETH"),
        pytest.param(-10, -400, (), id="a reduction"),
    ],
)
def test_plan_beside_an_order_that_lowers_a_position_waits_for_it(
    resting_coins: int, btc_thousandths: int, refusals: tuple[str, ...]
) -> None:
    """10 ETH of 2,000 on 10,000, where 3x is allowed."""
    size_by_market = {"ETH": 10 * E18} | ({"BTC": E18 // 2} if btc_thousandths < 0 else {})
    resting_order = RestingOrder("ETH", resting_coins * E18, resting_coins * E18, Fraction(2_000), NOW_S, "1")
    margin_account = account(10_000, size_by_market, market("ETH"), market("BTC", 30_000))
    margin_account = replace(margin_account, is_on_chain=False, resting_orders=(resting_order,))
    bound_raw = 30 * abs(btc_thousandths) * E18
    order = PerpOrder("BTC", btc_thousandths * 10**15, PerpOrderKind.MARKET, bound_raw, is_reduce_only=btc_thousandths < 0)

    plan = beside_resting_orders(margin_account, FUTURES_POLICY, FuturesPlan((order,), "drift", ""), None)

    assert (plan.orders, plan.refusal_texts) == (() if refusals else (order,), refusals)


# --- The plan of a step


OPENING = AdjustFutures("", is_reducing=False)
REDUCTION = AdjustFutures("", is_reducing=True)


def test_current_plan_reduces_the_account_as_it_is() -> None:
    step = step_of(OVER)

    plan = current_futures_plan(step, FUTURES_POLICY, current_drifts(step), None)

    assert [order.is_reduce_only for order in plan.orders] == [True]


@pytest.mark.parametrize("coins", [5, 9])
def test_plan_sends_no_second_order_beside_a_resting_one(coins: int) -> None:
    """2x of 10,000 are wanted: the rest of 10 ETH has its order once the first is filled or ended."""
    resting_order = RestingOrder("ETH", coins * E18, coins * E18, Fraction(2_000), NOW_S, "1")
    step = step_of(replace(EMPTY, is_on_chain=False, resting_orders=(resting_order,)), replace(FUTURES_POLICY, leverage_band_bps=500))

    reason = plan_adjustment(step, OPENING, current_drifts(step))

    assert isinstance(reason, str)
    assert reason.endswith("ETH: an order rests at the venue")


@pytest.mark.parametrize(("failed_market", "markets"), [("BTC", ["ETH"]), ("DOGE", ["BTC"])], ids=["its orders back off", "they do not"])
def test_unfinished_reduction_waits_for_no_market_that_backs_off(failed_market: str, markets: list[str]) -> None:
    """At 4x of 3x, after a reduction of BTC that was refused."""
    over = account(5_000, {"ETH": 7 * E18, "BTC": E18 // 5}, market("ETH"), market("BTC", 30_000))
    over = replace(over, markets=tuple(replace(perp, index_s=NOW_S) for perp in over.markets))
    failures = (ExitFailures(failed_market, MAX_REVERTS_IN_ROW, 0, NOW_S),)
    step = step_of(over, failed_exits=failures).with_progress(FuturesProgress(reduction_goals=(("BTC", E18 // 10),)))

    plan = plan_adjustment(step, REDUCTION, current_drifts(step))

    assert isinstance(plan, Plan), plan
    assert [order.market for order in planned_futures(plan).orders] == markets


def test_stop_is_placed_with_the_budget_of_reductions_used_up() -> None:
    stops = replace(FUTURES_POLICY, limits=replace(LIMITS, resting_stop_bps=200))
    step = step_of(replace(PUSHED, is_on_chain=False), stops, reduced_notional_24h=Fraction(10**12))

    plan = plan_adjustment(step, AdjustFutures("", is_reducing=True), current_drifts(step))

    assert isinstance(plan, Plan)
    layer_plan = plan.layer(FuturesPlan)
    assert (layer_plan.trigger, layer_plan.orders, len(layer_plan.resting_actions)) == (RESTING_STOP, (), 1)


@pytest.mark.parametrize(
    ("step", "decision", "trigger", "is_skipped"),
    [
        pytest.param(step_of(EMPTY), REDUCTION, "leverage", True, id="reduction"),
        pytest.param(step_of(EMPTY), replace(OPENING, closed_hedge_market="ETH"), "close_hedge", True, id="hedge that is closed"),
        pytest.param(step_of(EMPTY), OPENING, OPEN_HEDGE, True, id="hedge that is opened"),
        pytest.param(step_of(EMPTY), OPENING, HEDGE_MARGIN, True, id="margin of a hedge"),
        pytest.param(step_of(EMPTY), OPENING, "drift", False, id="opening, which comes last"),
        pytest.param(step_of(EMPTY), replace(REDUCTION, by_owner=True), "leverage", False, id="owner's request"),
        pytest.param(hold_futures(step_of(EMPTY), "futures: no"), REDUCTION, "leverage", False, id="layer on hold"),
        pytest.param(step_of(EMPTY), Hold("nothing is due"), "", False, id="another decision"),
    ],
)
def test_refused_plan_of_a_reduction_or_hedge_is_skipped_once(step: StepInput, decision: Decision, trigger: str, is_skipped: bool) -> None:
    step_after = without_refused_plan(step, decision, any_plan().with_layer(FuturesPlan((), trigger)), "no")

    assert (step_after is not None) is is_skipped
    assert step_after is None or futures_progress(step_after).hold_reason == "futures: no"
