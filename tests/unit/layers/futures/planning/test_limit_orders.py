"""Limit orders of an off-chain venue: their price, the account as if they were filled, and why one of them ends."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import guards
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.resting_orders import end_reasons
from agent.layers.futures.execution.venue_executor import _is_newer
from agent.layers.futures.planning.orders import market_order, plan_futures
from agent.layers.futures.planning.plans import as_limit_orders, without_resting_markets
from agent.layers.futures.policy.limit_orders import end_reason, order_end_reasons
from agent.layers.futures.policy.targets import LIMIT_TRIGGERS, FuturesTrigger
from agent.layers.futures.state import futures_policy, futures_state, planned_futures
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.margin.state import after_resting_fills
from agent.model import PerpFill, Receipt, StepInput
from agent.model.futures import FuturesPlan, MarginAccount, PerpOrder, PerpOrderKind, Position, RestingOrder
from agent.planning.proposals import propose_rebalance
from tests.support.builders import NOW_S, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.plans import POLICY
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, step_of
from tests.support.perpetuals.stops import ETH, book
from tests.support.plans import evidence

ORDER_S = 1_790_000_000
LIMITS = replace(POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600, leverage_band_bps=1_000)
POST_ONLY = replace(LIMITS, order_kind=PerpOrderKind.POST_ONLY)
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
    account = fresh(book())
    [first, second] = plan_futures(account, LIMITS, RICH, ORDER_S).orders
    order = rest(first.size_raw, Fraction(first.bound_raw, first.size_raw))
    resting = with_order(order)
    plan_left = without_resting_markets(resting, plan_futures(after_resting_fills(resting), LIMITS, RICH, ORDER_S))
    assert (first.market, second.market) == ("ETH", "BTC")
    assert [order.market for order in plan_left.orders] == ["BTC"]
    assert abs(plan_left.orders[0].size_raw / second.size_raw - 1) < 0.02
    assert reason(order) == ""


@pytest.mark.parametrize("trigger", LIMIT_TRIGGERS)
def test_limit__breached_by_resting_orders_alone_reduces_nothing(trigger: FuturesTrigger) -> None:
    """The order ends first; a reduction of what is not filled yet would open the other side."""
    reduction = FuturesPlan((market_order(ETH, -5_000, SLIPPAGE, is_reduce_only=True),), trigger.value, is_reducing=True)
    plan_left = without_resting_markets(with_order(rest(5_000)), reduction)
    assert (plan_left.actions, plan_left.trigger, plan_left.reason) == ((), "", "resting orders would breach a limit")


def test_only_openings_to_the_targets_of_an_off_chain_venue_rest() -> None:
    account = fresh(book(eth=10_000))
    opening, closing = (market_order(ETH, size, SLIPPAGE, is_reduce_only=size < 0) for size in (5_000, -5_000))
    kinds = [perp_order.kind for perp_order in as_limit_orders(account, LIMITS, DRIFT, (opening, closing))]
    assert kinds == [PerpOrderKind.LIMIT, PerpOrderKind.MARKET]
    for trigger in ("liquidation", "hedge", "", FuturesTrigger.LEVERAGE.value):
        assert as_limit_orders(account, LIMITS, trigger, (opening,)) == (opening,)
    assert as_limit_orders(replace(account, is_on_chain=True), LIMITS, DRIFT, (opening,)) == (opening,)
    assert as_limit_orders(account, POLICY, DRIFT, (opening,)) == (opening,)


@pytest.mark.parametrize("size", [5_000, -5_000])
@pytest.mark.parametrize("away", ["-0.02", "-0.001", "0", "0.001", "0.02"])
def test_post_only_order__is_at_the_middle_within_its_bound(size: int, away: str) -> None:
    middle = ETH.index * (1 + Fraction(away))
    account = replace(fresh(book()), markets=(replace(ETH, mid=middle),))
    [order] = as_limit_orders(account, POST_ONLY, DRIFT, (market_order(ETH, size, SLIPPAGE, is_reduce_only=False),))
    bound = index_bound_raw(ETH, size, SLIPPAGE)
    assert order.kind is PerpOrderKind.POST_ONLY
    assert (order.bound_raw <= bound) if size > 0 else (order.bound_raw >= bound)
    better = abs(size) * middle < bound if size > 0 else abs(size) * middle > bound
    assert abs(order.bound_raw - (abs(size) * middle if better else bound)) <= 1


def test_an_order_rests_while_it_leads_to_the_target() -> None:
    assert reason(rest(30_000)) == ""
    assert reason(rest(30_000), with_order(rest(30_000), eth=2_000)) == ""


@pytest.mark.parametrize(
    ("order", "margin_account", "why"),
    [
        pytest.param(rest(30_000, age_s=3_600), 0, "its time passed", id="time passed"),
        pytest.param(rest(30_000), 20_000, "no longer wants", id="target reached"),
        pytest.param(rest(-30_000), 0, "no longer wants", id="other side"),
        pytest.param(rest(60_000), 0, "no longer wants", id="too large"),
        pytest.param(rest(30_000, ETH.index * Fraction(106, 100)), 0, "beyond the bound", id="price beyond the bound"),
    ],
)
def test_an_order_ends_with_its_time_its_price_or_its_target(order: RestingOrder, margin_account: int, why: str) -> None:
    assert why in reason(order, with_order(order, eth=margin_account))


def test_order__ends_where_nothing_opens_or_without_a_config() -> None:
    order = rest(30_000)
    assert end_reason(with_order(order), POLICY, order, ORDER_S) == "futures.order_type is ioc"
    for changed, why in ((replace(ETH, is_paused=True), "is paused"), (replace(ETH, mark=ETH.mark * Fraction(6, 5)), "max_basis")):
        assert why in reason(order, replace(with_order(order), markets=(changed,)))
    unnamed = replace(order, market="DOGE")
    account = replace(with_order(unnamed), markets=(ETH, replace(ETH, market="DOGE", symbol="DOGE", is_configured=False)))
    assert reason(unnamed, account) == "the plan no longer wants it"


def test_a_limit_order_keeps_its_bound() -> None:
    opening = market_order(ETH, 5_000, SLIPPAGE, is_reduce_only=False)
    [order] = as_limit_orders(fresh(book()), LIMITS, DRIFT, (opening,))
    assert order == PerpOrder("ETH", 5_000, PerpOrderKind.LIMIT, opening.bound_raw, False)


# --- In a step: Ethereum at 2,000, 2x of 10,000 wanted, at most 3x allowed.


CLOID = "0x" + b"rest".hex() + "33" * 12
ORDER = RestingOrder("ETH", 10 * E18, 10 * E18, Fraction(2_000), NOW_S - 60, CLOID)
RESTING = replace(EMPTY, resting_orders=(ORDER,))
OPENING = replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600)


def ended(step: StepInput) -> str:
    return order_end_reasons(step.snapshot, futures_policy(step), futures_state(step), [CLOID]).get(CLOID, "")


def test_a_step_lets_an_order_rest_and_ends_no_other() -> None:
    assert ended(step_of(RESTING, OPENING)) == ""
    step = step_of(RESTING, POLICY)
    assert order_end_reasons(step.snapshot, futures_policy(step), futures_state(step), ["0x00"]) == {}


def test_order__ends_with_an_unknown_account_or_one_that_opens_none() -> None:
    unknown = with_snapshot(step_of(None, OPENING), futures_unknown="the venue is silent")
    assert ended(unknown) == "the venue is silent"
    cooling = replace(OPENING, limits=replace(OPENING.limits, emergency_cooldown_s=86_400))
    assert "after an emergency" in ended(step_of(RESTING, cooling, last_emergency_s=NOW_S - 10))
    doge = replace(RESTING.markets[0], market="DOGE", symbol="DOGE", is_configured=False)
    stolen = replace(RESTING, markets=(*RESTING.markets, doge), positions=(Position("DOGE", E18 // 100, -20 * E18),))
    assert "DOGE" in ended(step_of(stolen, OPENING))


def test_an_order_ends_if_its_fill_would_breach_a_limit() -> None:
    tight = replace(OPENING, limits=replace(OPENING.limits, max_leverage_bps=15_000))
    assert "max_leverage would be 2.0" in ended(step_of(RESTING, tight))


@pytest.mark.parametrize(
    ("trigger", "reduces", "why"),
    [
        pytest.param(FuturesTrigger.LEVERAGE.value, True, "positions are reduced", id="leverage reduces"),
        pytest.param(FuturesTrigger.LEVERAGE.value, False, "", id="leverage without a reduction"),
        pytest.param(DRIFT, True, "", id="drift"),
        pytest.param("", True, "positions are reduced", id="no trigger"),
    ],
)
def test_resting_order__ends_by_a_reduction_beyond_its_targets_alone(trigger: str, reduces: bool, why: str) -> None:
    step = step_of(RESTING, OPENING)
    proposal = propose_rebalance(step_of(EMPTY))
    assert proposal.plan is not None
    plan = proposal.plan.with_layer(replace(proposal.plan.layer(FuturesPlan), trigger=trigger, is_reducing=reduces))
    outcome = StepOutcome("s", OutcomeKind.PLANNED, "", step, proposal.decision_result, plan)
    assert end_reasons(outcome, [CLOID]) == ({CLOID: why} if why else {})
    assert end_reasons(outcome, []) == {}


def test_the_guard_of_the_account_counts_resting_orders() -> None:
    plan = propose_rebalance(step_of(EMPTY)).plan
    assert plan is not None
    assert planned_futures(plan) is not None
    assert not planned_futures(plan).is_reducing
    for account, passes in ((EMPTY, True), (RESTING, False)):
        step = step_of(account)
        verdict = next(verdict for verdict in guards.judge(step, plan, evidence(step, plan)) if verdict.guard == "futures_state")
        assert verdict.passed is passes, verdict


def test_receipt_with_fewer_fills_than_known__changes_nothing() -> None:
    fill, two = (PerpFill("", "", "ETH", 1, -1, 0, fill_id=number) for number in "12")
    known = Receipt(CLOID, 1, 7, "0x07", 0, 0, (), fills=(fill,), is_open=True)
    assert not _is_newer(replace(known, fills=(), is_open=False), known)
    assert not _is_newer(replace(known, block_number=8), known)
    assert _is_newer(replace(known, fills=(fill, two)), known)
    assert _is_newer(replace(known, is_open=False), known)


@pytest.mark.parametrize(
    ("size", "away", "ends"),
    [
        pytest.param(30_000, 1, False, id="purchase, one unit"),
        pytest.param(30_000, Fraction(3, 2), True, id="purchase, beyond rounding"),
        pytest.param(-30_000, -1, False, id="sale, one unit"),
        pytest.param(-30_000, Fraction(-3, 2), True, id="sale, beyond rounding"),
    ],
)
def test_end_reason__one_unit_beyond_the_bound_is_rounding(size: int, away: Fraction, ends: bool) -> None:
    price = Fraction(index_bound_raw(ETH, size, SLIPPAGE) + away) / abs(size)
    assert ("beyond the bound" in reason(rest(size, price))) is ends


@pytest.mark.parametrize(("age_s", "rests"), [(3_599, True), (3_600, False)])
def test_end_reason__order_rests_until_the_second_its_time_passed(age_s: int, rests: bool) -> None:
    assert (reason(rest(30_000, age_s=age_s)) == "") is rests


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("more", "ends"), [(0, False), (Fraction(1, 10**9), True)])
def test_end_reason__mark_at_max_basis_ends_no_order(side: int, more: Fraction, ends: bool) -> None:
    far = replace(ETH, mark=ETH.index * (1 + side * (Fraction(LIMITS.limits.max_basis_bps, 10_000) + more)))
    order = rest(30_000)
    assert ("max_basis" in reason(order, replace(with_order(order), markets=(far,)))) is ends


@pytest.mark.parametrize(("margin_account", "rests"), [(6_319, True), (6_320, False)])
def test_end_reason__fill_may_exceed_the_target_by_a_tenth(margin_account: int, rests: bool) -> None:
    """The fee of the order leaves 9,995.95 of 10,000, a target of 33,319."""
    order = rest(30_000)
    assert (reason(order, with_order(order, eth=margin_account)) == "") is rests
