"""Tests of limit orders in agent/layers/futures/planning: their price, the account as if they were filled, what else is planned."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import guards
from agent.layers.futures.execution.venue_executor import _is_newer
from agent.layers.futures.planning.orders import market_order, plan_futures
from agent.layers.futures.planning.plans import beside_resting_orders
from agent.layers.futures.policy.limit_orders import end_reason
from agent.layers.futures.policy.targets import LIMIT_TRIGGERS, FuturesTrigger
from agent.layers.futures.state import planned_futures
from agent.margin import account as margin
from agent.margin.state import after_resting_fills
from agent.model import PerpFill, Receipt
from agent.model.futures import FuturesPlan, MarginAccount, PerpOrderKind, RestingOrder
from tests.support.builders import NOW_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.plans import POLICY
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, step_of
from tests.support.perpetuals.stops import ETH, book
from tests.support.plans import evidence, proposed_plan

ORDER_S = 1_790_000_000
LIMITS = replace(POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600, leverage_band_bps=1_000)

RICH = Fraction(10**13)
DRIFT = FuturesTrigger.LEVERAGE_DRIFT.value
SLIPPAGE = LIMITS.limits.slippage_bps


def fresh(account: MarginAccount) -> MarginAccount:
    return replace(account, markets=tuple(replace(market, index_s=ORDER_S) for market in account.markets))


def rest(size: int, price: Fraction = ETH.index, *, age_s: int = 0) -> RestingOrder:
    """An order of ETH, in ten-thousandths of a coin; 10,000 at 3,000 are the target of 1x of 10,000 in each of two markets."""
    return RestingOrder("ETH", size, size, price, ORDER_S - age_s, "0x" + b"rest".hex() + "11" * 12)


def with_order(order: RestingOrder, **margin_account: int) -> MarginAccount:
    return replace(fresh(book(**margin_account)), resting_orders=(order,))


def reason(order: RestingOrder, account: MarginAccount | None = None) -> str:
    return end_reason(account or with_order(order), LIMITS, order, ORDER_S)


def test_an_account_counts_its_resting_orders_as_filled() -> None:
    after = after_resting_fills(with_order(rest(30_000), eth=5_000))
    assert after.size_raw("ETH") == 35_000
    assert after.resting_orders == ()
    worse = after_resting_fills(with_order(rest(30_000, ETH.index * Fraction(101, 100)), eth=5_000))
    fee = 30_000 * ETH.mark * ETH.fee_ppm / 10**6
    assert margin.account_value_raw(after) == 10_000 * 10**6 - fee
    assert margin.account_value_raw(after) - margin.account_value_raw(worse) >= 900 * 10**5


@given(st.integers(-40_000, 40_000).filter(bool), st.fractions(Fraction(95, 100), Fraction(105, 100)), st.integers(-30_000, 30_000))
def test_no_fill_leaves_less_than_the_account_as_if_filled(size: int, price: Fraction, size_before: int) -> None:
    account = with_order(rest(size, ETH.mark * price), eth=size_before)
    quote = int(size * ETH.mark * price)
    fee = -(-abs(quote) * ETH.fee_ppm // 10**6)
    filled = margin.with_trade(replace(account, resting_orders=()), "ETH", size, -quote - fee)
    assert margin.account_value_raw(after_resting_fills(account)) <= margin.account_value_raw(filled) + 1


def test_resting_order__the_rest_of_the_target_is_planned_once() -> None:
    [first, second] = plan_futures(fresh(book()), LIMITS, RICH, ORDER_S).orders
    order = rest(first.size_raw, Fraction(first.bound_raw, first.size_raw))
    resting = with_order(order)
    plan_left = beside_resting_orders(resting, LIMITS, plan_futures(after_resting_fills(resting), LIMITS, RICH, ORDER_S), RICH)
    assert (first.market, second.market) == ("ETH", "BTC")
    assert [order.market for order in plan_left.orders] == ["BTC"]
    assert abs(plan_left.orders[0].size_raw / second.size_raw - 1) < 0.02
    assert reason(order) == ""


@pytest.mark.parametrize("trigger", LIMIT_TRIGGERS)
def test_limit__breached_by_resting_orders_alone_reduces_nothing(trigger: FuturesTrigger) -> None:
    """The order ends first; a reduction of what is not filled yet would open the other side."""
    reduction = FuturesPlan((market_order(ETH, -5_000, SLIPPAGE, is_reduce_only=True),), trigger.value, is_reducing=True)
    plan_left = beside_resting_orders(with_order(rest(5_000)), LIMITS, reduction, RICH)
    assert (plan_left.actions, plan_left.trigger, plan_left.reason) == ((), "", "resting orders would breach a limit")


def test_emergency__of_resting_orders_alone_closes_nothing() -> None:
    order = market_order(ETH, -5_000, SLIPPAGE, is_reduce_only=True)
    emergency = FuturesPlan((order,), "liquidation", is_reducing=True, is_emergency=True)
    plan_left = beside_resting_orders(with_order(rest(5_000)), LIMITS, emergency, RICH)
    assert (plan_left.actions, plan_left.is_emergency, plan_left.reason) == ((), False, "resting orders would breach a limit")


# --- In a step: Ethereum at 2,000, 2x of 10,000 wanted, at most 3x allowed.


CLOID = "0x" + b"rest".hex() + "33" * 12
ORDER = RestingOrder("ETH", 10 * E18, 10 * E18, Fraction(2_000), NOW_S - 60, CLOID)
RESTING = replace(EMPTY, resting_orders=(ORDER,))
OPENING = replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600)


def test_the_guard_of_the_account_counts_resting_orders() -> None:
    plan = proposed_plan(step_of(EMPTY))
    assert not planned_futures(plan).is_reducing
    for account, passes in ((EMPTY, True), (RESTING, False)):
        step = step_of(account)
        verdict = next(verdict for verdict in guards.judge(step, plan, evidence(step, plan)) if verdict.guard == "futures_state")
        assert verdict.passed is passes, verdict


def test_receipt_with_fewer_fills_than_known__changes_nothing() -> None:
    fill = PerpFill("", "", "ETH", 1, -1, 0, fill_id="1")
    known = Receipt(CLOID, 1, 7, "0x07", 0, 0, (), fills=(fill,), is_open=True)
    assert not _is_newer(replace(known, fills=(), is_open=False), known)
    assert not _is_newer(replace(known, block_number=8), known)
    assert _is_newer(replace(known, fills=(fill, replace(fill, fill_id="2"))), known)
    assert _is_newer(replace(known, is_open=False), known)
