"""Tests of agent/layers/futures/guards.py: what equals a limit passes, one base unit or second more is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.guards.case import build_guard_case
from agent.layers.futures.state import FuturesState, futures_policy, with_policy
from agent.layers.policy import build_guard_answers
from agent.margin import account as margin
from agent.model import AdjustFutures, Plan, StepInput, Verdict
from agent.model.futures import (
    DelegateChange,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    Hedge,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    RestingOrder,
    StaleRead,
    StaleReadKind,
    StopOrder,
)
from tests.support.builders import NOW_S, OWNER, token, with_history, with_limits, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import with_market
from tests.support.perpetuals.needs import BUY, SELL, UNIT, USDC
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, LIMITS, OVER, book, step_of
from tests.support.perpetuals.unknowns import two_market_account
from tests.support.plans import assert_refused, evidence, proposed_plan, verdict
from tests.support.transactions import OTHER

WETH = token("WETH").address
KEY = "0x" + "6" * 40
BTC = PerpOrder("BTC", 10**15, PerpOrderKind.MARKET, 30 * E18, is_reduce_only=False)
ADDITION = replace(BUY, is_reduce_only=True)
"""A purchase that says that it reduces."""


def plan_with(*orders: PerpOrder, **fields: Any) -> Plan:
    """Return a plan with these orders of futures, or other actions."""
    return proposed_plan(step_of(EMPTY)).with_layer(FuturesPlan(orders, **{"trigger": "drift", "reason": ""} | fields))


def judged(guard: str, step: StepInput, *orders: PerpOrder, **fields: Any) -> Verdict:
    return verdict(guard, step, plan_with(*orders, **fields))


def two_markets(eth: int = 0, btc: int = 0, eth_age_s: int = 0, btc_age_s: int = 0) -> MarginAccount:
    """Return 10,000 of collateral with whole ETH and thousandths of BTC."""
    return two_market_account(10_000, eth * E18, btc * 10**15, NOW_S - eth_age_s, NOW_S - btc_age_s)


def off_chain(margin_account: MarginAccount, **changes: Any) -> MarginAccount:
    return replace(margin_account, is_on_chain=False, **changes)


def limited(**limits: Any) -> FuturesPolicy:
    return replace(FUTURES_POLICY, limits=replace(LIMITS, **limits))


@pytest.mark.parametrize("limit", ["daily_loss", "total_loss"])
def test_loss_limits_hold_an_opening_and_not_what_lowers_risk(limit: str) -> None:
    step = with_limits(step_of(two_markets(eth=2)), **{f"{limit}_bps": 1})
    step = with_history(step, loss_24h=Fraction(10**12), loss_total=Fraction(10**12))

    assert judged(limit, step, SELL).passed
    assert not judged(limit, step, BUY).passed


@pytest.mark.parametrize(
    ("limit", "bound", "cost"),
    [
        pytest.param("total_loss", 2_020, 10 + Fraction(201, 100), id="in all, filled at the mark"),
        pytest.param("daily_loss", 2_020, 20 + Fraction(202, 100), id="of a day, filled at its bound"),
        pytest.param("daily_loss", 2_000, 2, id="of a day, at the index"),
    ],
)
def test_loss_limits_count_fee_and_basis_of_an_opening(limit: str, bound: int, cost: Fraction) -> None:
    """The purchase of one ETH, at a mark of 2,010 and an index of 2,000, may use up the limit."""
    step = with_limits(step_of(book(10_000, mark=Fraction(2_010))), **{f"{limit}_bps": 100})
    plan = plan_with(replace(BUY, bound_raw=bound * E18))
    without_orders = build_guard_case(step, plan_with(), evidence(step, plan))
    gas = without_orders.cost() if limit == "total_loss" else without_orders.worst_cost()
    limit_value = without_orders.portfolio_value() * 100 / 10_000
    loss = limit_value - gas - cost * UNIT

    assert verdict(limit, with_history(step, loss_24h=loss, loss_total=loss), plan).passed
    assert not verdict(limit, with_history(step, loss_24h=loss + 1, loss_total=loss + 1), plan).passed


# --- index_age

IN_USDC = replace(FUTURES_POLICY, collateral=USDC)
STALE_BTC = step_of(two_markets(eth=2, btc=100, btc_age_s=601), IN_USDC)
UNHELD_STALE_BTC = step_of(two_markets(btc_age_s=601), IN_USDC)
STOPPED_STALE_BTC = step_of(off_chain(two_markets(btc_age_s=601)))
STOP_OF_BTC = StopOrder("BTC", -(10**17), 2_000 * E18, 1_990 * E18)


@pytest.mark.parametrize(
    ("step", "plan", "passed"),
    [
        pytest.param(step_of(book(10_000, index_s=NOW_S - 600)), plan_with(BUY), True, id="at its age"),
        pytest.param(step_of(book(10_000, index_s=NOW_S - 601)), plan_with(BUY), False, id="a second older"),
        pytest.param(step_of(book(10_000, index_s=NOW_S)), plan_with(BUY), True, id="as new as the block"),
        pytest.param(step_of(book(10_000, index_s=NOW_S + 1)), plan_with(BUY), False, id="newer than the block"),
        pytest.param(STALE_BTC, plan_with(BUY), False, id="opening beside a stale position"),
        pytest.param(STALE_BTC, plan_with(SELL), True, id="reduction beside a stale position"),
        pytest.param(STALE_BTC, plan_with(account_actions=(MarginDeposit(1),)), False, id="deposit beside a stale position"),
        pytest.param(UNHELD_STALE_BTC, plan_with(account_actions=(MarginDeposit(1),)), True, id="deposit, nothing held"),
        pytest.param(STOPPED_STALE_BTC, plan_with(resting_actions=(STOP_OF_BTC,)), False, id="stop of a stale market"),
    ],
)  # fmt: skip
def test_index_age_counts_positions_unless_orders_reduce(step: StepInput, plan: Plan, passed: bool) -> None:
    assert verdict("index_age", step, plan).passed is passed


def test_index_age_is_that_of_the_oldest_index() -> None:
    assert judged("index_age", step_of(two_markets(eth=1, btc=100, eth_age_s=30, btc_age_s=90)), BUY).measured_text == "90 s (BTC)"


# --- order_bound

NEAR = step_of(book(1_300, 10 * E18))
"""10 ETH near their liquidation; 3 % below the index of 2,000 they bring 19,400."""
CLOSE = PerpOrder("ETH", -10 * E18, PerpOrderKind.MARKET, 19_400 * E18, is_reduce_only=True)


@pytest.mark.parametrize(
    ("step", "order", "is_emergency", "passed"),
    [
        pytest.param(step_of(EMPTY), BUY, False, True, id="purchase at its bound"),
        pytest.param(step_of(EMPTY), replace(BUY, bound_raw=BUY.bound_raw + 1), False, False, id="purchase a unit above"),
        pytest.param(step_of(OVER), SELL, False, True, id="sale at its bound"),
        pytest.param(step_of(OVER), replace(SELL, bound_raw=SELL.bound_raw - 1), False, False, id="sale a unit below"),
        pytest.param(step_of(EMPTY), replace(BUY, bound_raw=0), False, False, id="purchase for nothing"),
        pytest.param(NEAR, CLOSE, True, True, id="emergency at its wider bound"),
        pytest.param(NEAR, replace(CLOSE, bound_raw=CLOSE.bound_raw - 1), True, False, id="emergency a unit below"),
        pytest.param(NEAR, CLOSE, False, False, id="wider bound outside of an emergency"),
        pytest.param(NEAR, ADDITION, True, False, id="emergency that opens"),
        pytest.param(step_of(OVER), SELL, True, False, id="emergency that the account does not show"),
    ],
)
def test_order_bound_is_the_slippage_or_that_of_emergencies(step: StepInput, order: PerpOrder, is_emergency: bool, passed: bool) -> None:
    assert judged("order_bound", step, order, is_emergency=is_emergency).passed is passed


LONG_STOP = StopOrder("ETH", -20 * E18, 30_000 * E18, 29_100 * E18)
"""Closes 20 ETH at 1,500, 3 % below which it sells at the least."""
SHORT_STOP = StopOrder("ETH", 20 * E18, 50_000 * E18, 51_500 * E18)
AT_MARK = 40_000 * E18


@pytest.mark.parametrize(
    ("size", "stop", "passed"),
    [
        pytest.param(20, LONG_STOP, True, id="long"),
        pytest.param(20, replace(LONG_STOP, bound_raw=29_100 * E18 - 1), False, id="long, bound a unit beyond"),
        pytest.param(20, replace(LONG_STOP, trigger_raw=AT_MARK - 1, bound_raw=AT_MARK - 1), True, id="long, a unit below the mark"),
        pytest.param(20, replace(LONG_STOP, trigger_raw=AT_MARK, bound_raw=AT_MARK), False, id="long, at the mark"),
        pytest.param(20, replace(LONG_STOP, size_raw=-20 * E18 + 1), False, id="long, a unit too small"),
        pytest.param(20, replace(LONG_STOP, size_raw=20 * E18), False, id="long, wrong side"),
        pytest.param(20, replace(LONG_STOP, trigger_raw=0), False, id="long without a trigger"),
        pytest.param(-20, SHORT_STOP, True, id="short"),
        pytest.param(-20, replace(SHORT_STOP, bound_raw=51_500 * E18 + 1), False, id="short, bound a unit beyond"),
        pytest.param(-20, replace(SHORT_STOP, trigger_raw=AT_MARK + 1, bound_raw=AT_MARK + 1), True, id="short, a unit above the mark"),
        pytest.param(-20, replace(SHORT_STOP, trigger_raw=AT_MARK, bound_raw=AT_MARK), False, id="short, at the mark"),
        pytest.param(-20, replace(SHORT_STOP, bound_raw=0), False, id="short without bound"),
        pytest.param(0, replace(LONG_STOP, size_raw=0), False, id="no position"),
    ],
)
def test_order_bound_of_a_stop_closes_all_within_its_slippage(size: int, stop: StopOrder, passed: bool) -> None:
    step = step_of(off_chain(book(10_000, size * E18)))

    assert judged("order_bound", step, resting_actions=(OrderCancel("ETH", "1"), stop)).passed is passed


@pytest.mark.parametrize(("size", "stop", "edge"), [(20, LONG_STOP, -1), (-20, SHORT_STOP, 1)], ids=["long", "short"])
def test_order_bound_of_a_stop_is_beyond_the_index_too(size: int, stop: StopOrder, edge: int) -> None:
    trigger = Fraction(stop.trigger_raw, abs(stop.size_raw))
    for index, passed in ((trigger, False), (trigger - Fraction(edge, 100), True)):
        step = step_of(off_chain(book(10_000, size * E18, index=index)))
        assert judged("order_bound", step, resting_actions=(stop,)).passed is passed


# --- basis and reopening


@pytest.mark.parametrize(
    ("mark", "passed"),
    [(Fraction(2_100), True), (Fraction(2_100_001, 1_000), False), (Fraction(1_900), True), (Fraction(1_899_999, 1_000), False)],
    ids=["above at the limit", "further above", "below at the limit", "further below"],
)
def test_basis_is_the_distance_of_the_mark_from_its_index(mark: Fraction, passed: bool) -> None:
    assert judged("basis", step_of(book(10_000, mark=mark)), BUY).passed is passed
    assert judged("basis", step_of(book(10_000, 2 * E18, mark=mark)), SELL).passed, "a reduction needs no basis"


def test_basis_is_the_widest_of_the_markets() -> None:
    step = step_of(with_market(two_markets(), "BTC", mark=Fraction(33_000)))

    assert judged("basis", step, BUY, BTC).measured_text == "10.00 % (BTC)"


@pytest.mark.parametrize(
    ("since_s", "orders", "passed"),
    [
        pytest.param(600, (BUY,), True, id="at the end of the cooldown"),
        pytest.param(599, (BUY,), False, id="a second earlier"),
        pytest.param(0, (SELL,), True, id="reduction"),
        pytest.param(0, (SELL, BTC), False, id="opening beside a reduction"),
        pytest.param(None, (BUY,), True, id="no emergency"),
    ],
)
def test_reopening_waits_for_the_end_of_the_cooldown(since_s: int | None, orders: tuple[PerpOrder, ...], passed: bool) -> None:
    last_s = None if since_s is None else NOW_S - since_s
    step = step_of(two_markets(eth=2), limited(emergency_cooldown_s=600)).with_layer(FuturesState(last_emergency_s=last_s))

    assert judged("reopening", step, *orders).passed is passed


# --- margin_move, top_up_per_day


def margin_step(top_up_bps: int | None = None, size: int = 0, topped_up: int = 0, **policy_fields: Any) -> StepInput:
    """Return a step of 10,000 of USDC as margin, 5,000 in the wallet, and 5,000 of WETH."""
    policy = replace(limited(top_up_per_day_bps=top_up_bps), **{"collateral": USDC, "trader": OWNER, "delegate": KEY} | policy_fields)
    margin_account = replace(book(10_000, size * E18), collateral_unit_raw=10**12)
    return step_of(margin_account, policy, top_up_value_24h=Fraction(topped_up * UNIT))


def beside_chain(step: StepInput) -> StepInput:
    return with_snapshot(step, futures=off_chain(book(10_000), collateral_unit_raw=10**12))


WALLET = 5_000 * UNIT
FREE_OF_5 = 9_000 * UNIT
"""10,000 less 10 % of 10,000."""


@pytest.mark.parametrize(
    ("step", "actions", "passed"),
    [
        pytest.param(margin_step(), (MarginDeposit(WALLET),), True, id="deposit of the balance"),
        pytest.param(margin_step(), (MarginDeposit(WALLET + 1),), False, id="a unit more"),
        pytest.param(margin_step(), (MarginDeposit(0),), False, id="deposit of nothing"),
        pytest.param(margin_step(size=5), (MarginWithdrawal(FREE_OF_5),), True, id="withdrawal of the free margin"),
        pytest.param(margin_step(size=5), (MarginWithdrawal(FREE_OF_5 + 1),), False, id="a unit more of it"),
        pytest.param(margin_step(), (MarginDeposit(UNIT), MarginWithdrawal(10_000 * UNIT + 1)), False, id="second move too large"),
        pytest.param(beside_chain(margin_step()), (MarginDeposit(UNIT),), False, id="venue beside the chain"),
        pytest.param(margin_step(trader=OTHER), (MarginDeposit(UNIT),), False, id="delegate"),
        pytest.param(margin_step(), (DelegateChange(KEY, is_allowed=True),), True, id="configured delegate"),
        pytest.param(margin_step(), (DelegateChange(OTHER, is_allowed=True),), False, id="another delegate"),
        pytest.param(margin_step(), (DelegateChange(OTHER, is_allowed=False),), True, id="delegate revoked"),
        pytest.param(margin_step(), (DelegateChange(OTHER, is_allowed=False), MarginDeposit(UNIT)), True, id="revoked beside a deposit"),
        pytest.param(margin_step(), (), True, id="no move"),
    ],
)
def test_margin_move_is_within_wallet_free_margin_and_delegate(step: StepInput, actions: tuple[Any, ...], passed: bool) -> None:
    assert judged("margin_move", step, account_actions=actions).passed is passed


def without_whole_targets(step: StepInput) -> StepInput:
    """Return the step with a fault: its targets are not 100 % together."""
    assets = tuple(replace(asset, target_bps=5_001) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


@pytest.mark.parametrize(
    ("step", "deposit_raw", "passed"),
    [
        pytest.param(margin_step(3_000, topped_up=2_000), 1_000 * UNIT, True, id="at the day's share"),
        pytest.param(margin_step(3_000, topped_up=2_000), 1_000 * UNIT + 1, False, id="a unit beyond"),
        pytest.param(without_whole_targets(margin_step(3_000)), 1_500 * UNIT, True, id="share of the collateral alone"),
        pytest.param(without_whole_targets(margin_step(3_000)), 1_500 * UNIT + 1, False, id="a unit beyond it"),
        pytest.param(with_history(margin_step(3_000), unknown_reason="a gap"), UNIT, False, id="unknown day"),
        pytest.param(with_history(margin_step(), unknown_reason="a gap"), UNIT, True, id="unknown day without a budget"),
    ],
)
def test_top_up_per_day_is_a_share_of_the_spot_portfolio(step: StepInput, deposit_raw: int, passed: bool) -> None:
    """30 % of 10,000 without the margin account, or of 5,000 of USDC while the spot value is unknown."""
    plan = plan_with(account_actions=(MarginDeposit(deposit_raw),))

    assert verdict("top_up_per_day", step, plan).passed is passed
    by_owner = replace(plan, decision=AdjustFutures("", is_reducing=True, by_owner=True))
    assert verdict("top_up_per_day", step, by_owner).passed, "the owner's deposits pass"


# --- reduction_per_day


def for_another(step: StepInput) -> StepInput:
    """Return the step of a wallet that is a delegate of the account."""
    policy = futures_policy(step)
    assert policy is not None
    return with_policy(step, replace(policy, trader=OTHER))


def pushed(value: int, size: int = 10) -> MarginAccount:
    """Return a value of so many at a mark of 1,800, where the index is 2,000."""
    margin_account = book(10_000, size * E18, mark=Fraction(1_800))
    return replace(margin_account, collateral_raw=margin_account.collateral_raw + value * E18 - margin.account_value_raw(margin_account))


def used_up(multiple_bps: int) -> StepInput:
    """Return 20,000 of notional beside a spot portfolio of 10,000, on a day whose budget is used."""
    return step_of(book(10_000, 10 * E18), limited(spot_multiple_bps=multiple_bps), reduced_notional_24h=Fraction(20_000 * UNIT))


WORTHLESS = book(10_000, 10 * E18, mark=Fraction(1_000))
"""10 ETH have lost the collateral of 10,000 at a mark of half of the index."""
BOTH = replace(SELL, size_raw=-2 * E18, bound_raw=3_960 * E18)
"""4,000 at the index, 3,600 at the mark."""


@pytest.mark.parametrize(
    ("step", "order", "passed"),
    [
        pytest.param(step_of(pushed(10_000), reduced_notional_24h=Fraction(16_000 * UNIT)), BOTH, True, id="at 2x of the account"),
        pytest.param(step_of(pushed(10_000), reduced_notional_24h=Fraction(16_001 * UNIT)), BOTH, False, id="a dollar beyond"),
        pytest.param(used_up(19_999), SELL, True, id="spot multiple demands it"),
        pytest.param(used_up(20_000), SELL, False, id="at the spot multiple"),
        pytest.param(without_whole_targets(used_up(19_999)), SELL, False, id="unknown spot value demands nothing"),
        pytest.param(for_another(used_up(19_999)), SELL, False, id="delegate's wallet is no spot value"),
        pytest.param(step_of(WORTHLESS), SELL, True, id="account without value"),
        pytest.param(step_of(replace(WORTHLESS, collateral_raw=10_000 * E18 + 1)), SELL, False, id="account of one unit"),
        pytest.param(step_of(pushed(10_000), unknown_reason="a gap"), SELL, False, id="unknown day"),
        pytest.param(step_of(pushed(10_000), unknown_reason="a gap"), replace(BUY, size_raw=1, bound_raw=1), True, id="no reduction"),
        pytest.param(step_of(pushed(10_000), limited(reduction_per_day_bps=0), unknown_reason="a gap"), SELL, True, id="no budget"),
    ],
)
def test_reduction_per_day_is_a_share_of_the_account(step: StepInput, order: PerpOrder, passed: bool) -> None:
    assert judged("reduction_per_day", step, order).passed is passed


# --- hedge


@pytest.mark.parametrize(
    ("more", "passed"),
    [(0, True), (1, False)],
    ids=["the holding", "a unit more"],
)
def test_hedge_is_at_most_its_asset_s_value_at_the_index(more: int, passed: bool) -> None:
    """The wallet holds 2.5 WETH at 2,000."""
    size_raw = -(25 * 10**17 + more)
    sale = replace(BUY, size_raw=size_raw, bound_raw=4_950 * E18 + more * 2_000)

    assert judged("hedge", step_of(book(10_000, asset=WETH)), sale, hedges=(hedge_of(size_raw),)).passed is passed


def hedge_of(size_raw: int, address: str = WETH) -> Hedge:
    return Hedge("ETH", address, size_raw, NOW_S, Fraction(0))


SHORT = replace(BUY, size_raw=-E18, bound_raw=1_980 * E18)
HEDGED = step_of(book(10_000, asset=WETH))
NO_HOLDINGS = tuple(replace(holding, raw=0) for holding in HEDGED.snapshot.holdings)
UNHELD = with_snapshot(HEDGED, holdings=NO_HOLDINGS)


@pytest.mark.parametrize(
    ("step", "hedges", "measured"),
    [
        pytest.param(HEDGED, (hedge_of(-26 * 10**17), hedge_of(-(10**17))), "104.00 % of WETH", id="largest of two"),
        pytest.param(UNHELD, (hedge_of(-(10**17)),), "200.00 % of WETH", id="nothing held"),
        pytest.param(HEDGED, (hedge_of(-(10**17), OTHER),), "unknown", id="token that is no asset"),
    ],
)
def test_hedge_is_refused_by_its_largest_share(step: StepInput, hedges: tuple[Hedge, ...], measured: str) -> None:
    assert_refused(judged("hedge", step, SHORT, hedges=hedges), measured)


def test_hedge_that_is_closed_counts_for_nothing() -> None:
    assert judged("hedge", HEDGED, SHORT, hedges=(hedge_of(0, OTHER),)).passed
    assert judged("hedge", step_of(book(10_000, 2 * E18, asset=WETH)), SELL, hedges=(hedge_of(-26 * 10**17),)).passed, "it only reduces"


RECORDED = hedge_of(-26 * 10**17)
"""A recorded hedge of more than the 2.5 WETH of the wallet."""


@pytest.mark.parametrize(
    ("recorded_hedge", "held_hedges", "passed"),
    [
        pytest.param(RECORDED, (RECORDED,), False, id="held"),
        pytest.param(RECORDED, (), True, id="liquidated"),
        pytest.param(RECORDED, (hedge_of(-25 * 10**17),), True, id="closed in part by hand"),
        pytest.param(replace(RECORDED, market="GONE"), (), True, id="market that left the config"),
    ],
)
@pytest.mark.parametrize("action", [MarginWithdrawal(1), DelegateChange(OTHER, is_allowed=True)], ids=["withdrawal", "delegate"])
def test_hedge_that_a_plan_leaves_counts_as_held(
    recorded_hedge: Hedge, held_hedges: tuple[Hedge, ...], passed: bool, action: MarginWithdrawal | DelegateChange
) -> None:
    step = step_of(book(10_000, asset=WETH), replace(FUTURES_POLICY, collateral=USDC, hedges=held_hedges), hedges=(recorded_hedge,))
    assert judged("hedge", step, hedges=(recorded_hedge,), account_actions=(action,)).passed is passed


# --- Cost


@pytest.mark.parametrize(
    ("mark", "orders", "cost"),
    [
        pytest.param(2_010, (BUY,), 10 + Fraction(201, 100), id="purchase above the index"),
        pytest.param(1_990, (SELL,), 10 + Fraction(199, 100), id="sale below the index"),
        pytest.param(1_990, (BUY,), Fraction(1_990, 1_000), id="purchase below the index"),
        pytest.param(2_010, (SELL,), Fraction(2_010, 1_000), id="sale above the index"),
        pytest.param(2_000, (BUY, BUY), 4, id="two orders"),
    ],
)
def test_cost_is_the_fee_and_the_distance_from_the_index(mark: int, orders: tuple[PerpOrder, ...], cost: Fraction) -> None:
    step = step_of(book(10_000, E18, mark=Fraction(mark)))

    assert build_guard_answers(step, plan_with(*orders)).cost() == cost * UNIT


def test_worst_cost_is_that_of_a_fill_at_the_bound() -> None:
    assert build_guard_answers(step_of(EMPTY), plan_with(BUY)).worst_cost() == (20 + Fraction(202, 100)) * UNIT


def plan_cost_verdict(step: StepInput, plan: Plan, fee_bps: int = 30) -> Verdict:
    """Return the verdict on a plan of 20,000 whose limit is its gas and so many basis points of fees."""
    gas = build_guard_case(step, plan_with(), evidence(step, plan)).cost()
    limit_bps = fee_bps + gas * 10_000 / (20_000 * UNIT)
    limits = replace(step.limits, plan_cost_bps=limit_bps)  # type: ignore[arg-type]  # exact, to hit the boundary
    return verdict("plan_cost", replace(step, limits=limits), plan)


LARGE = replace(BUY, size_raw=10 * E18, bound_raw=20_200 * E18)
GOALS = (("ETH", 10 * E18),)


@pytest.mark.parametrize(
    ("fee_ppm", "completes_set", "set_goals", "passed"),
    [
        pytest.param(3_000, False, (), True, id="at the limit"),
        pytest.param(3_001, False, (), False, id="beyond the limit"),
        pytest.param(3_001, True, GOALS, True, id="completes a set"),
        pytest.param(3_001, False, GOALS, False, id="does not say that it completes one"),
        pytest.param(3_001, True, (("ETH", 9 * E18),), False, id="beyond the set's goal"),
    ],
)
def test_plan_cost_of_fees_and_gas_may_equal_the_limit(
    fee_ppm: int, completes_set: bool, set_goals: tuple[tuple[str, int], ...], passed: bool
) -> None:
    step = step_of(book(10_000, fee_ppm=fee_ppm)).with_layer(FuturesState(set_goals=set_goals))

    assert plan_cost_verdict(step, plan_with(LARGE, completes_set=completes_set)).passed is passed


# --- futures_state: the account after the plan


def free_step(margin_account: MarginAccount, **limits: int) -> StepInput:
    """Return a step without fees, slippage and stress move."""
    return step_of(with_market(margin_account, "ETH", fee_ppm=0), limited(**{"slippage_bps": 0, "stress_move_bps": 0} | limits))


def order_at_index(size_raw: int) -> PerpOrder:
    return replace(BUY, size_raw=size_raw, bound_raw=2_000 * abs(size_raw))


RESTING = RestingOrder("ETH", 8 * E18, 8 * E18, Fraction(2_000), NOW_S, "0x01")


def with_resting_order(margin_account: MarginAccount) -> MarginAccount:
    return off_chain(margin_account, resting_orders=(RESTING,))


def beside_btc(btc: int, resting: int) -> StepInput:
    """Return 10,000 of collateral with thousandths of BTC, and an order for more of them that rests."""
    resting_order = RestingOrder("BTC", resting * 10**15, resting * 10**15, Fraction(30_000), NOW_S, "0x01")
    return free_step(off_chain(two_markets(btc=btc), resting_orders=(resting_order,)))


MOST_OF_IT = replace(SELL, size_raw=-15 * E18, bound_raw=15 * 2_000 * E18)
STALE = StaleRead(StaleReadKind.FUNDING, "HTTP 503")


def with_stale_part(step: StepInput) -> StepInput:
    return replace(step, snapshot=step.snapshot.with_layer(FuturesReading(EMPTY, stale_reads=(STALE,))))


SHARES = {"max_position_bps": 6_000}
CROWDED = two_markets(btc=500)
"""15,000 of BTC on 10,000, three quarters of the target notional."""


@pytest.mark.parametrize(
    ("step", "orders", "passed"),
    [
        pytest.param(free_step(book(10_000)), (order_at_index(15 * E18),), True, id="3x of 10,000"),
        pytest.param(free_step(book(10_000)), (order_at_index(15 * E18 + 10**3),), False, id="a little beyond 3x"),
        pytest.param(free_step(book(10_000), spot_multiple_bps=2_000), (order_at_index(E18),), True, id="a fifth of spot"),
        pytest.param(free_step(book(10_000), spot_multiple_bps=2_000), (order_at_index(E18 + 1),), False, id="a unit beyond it"),
        pytest.param(for_another(free_step(book(10_000), spot_multiple_bps=2_000)), (order_at_index(E18),), False, id="unknown spot"),
        pytest.param(free_step(book(10_000)), (order_at_index(8 * E18), order_at_index(8 * E18)), False, id="orders count together"),
        pytest.param(free_step(with_resting_order(book(10_000))), (order_at_index(8 * E18),), False, id="resting orders count"),
        pytest.param(free_step(off_chain(book(10_000))), (order_at_index(8 * E18),), True, id="without the resting order"),
        pytest.param(beside_btc(500, -500), (order_at_index(7 * E18),), True, id="beside a position that an order may close"),
        pytest.param(beside_btc(500, -500), (order_at_index(8 * E18),), False, id="beyond 3x until that order is filled"),
        pytest.param(beside_btc(-500, 500), (order_at_index(8 * E18),), False, id="beyond 3x until a short is closed"),
        pytest.param(beside_btc(100, -600), (order_at_index(8 * E18),), False, id="beyond 3x once an order has turned a position"),
        pytest.param(free_step(CROWDED, **SHARES), (order_at_index(E18),), True, id="another market is above its share"),
        pytest.param(free_step(CROWDED, **SHARES), (BTC,), False, id="its market is above its share"),
        pytest.param(step_of(OVER), (MOST_OF_IT,), True, id="reduction alone"),
        pytest.param(step_of(OVER), (MOST_OF_IT, MOST_OF_IT), False, id="two reductions that turn"),
        pytest.param(step_of(with_market(two_markets(btc=1), "BTC", is_configured=False)), (BUY,), False, id="unnamed position"),
        pytest.param(with_stale_part(step_of(EMPTY)), (BUY,), False, id="old part"),
        pytest.param(step_of(EMPTY), (BUY,), True, id="fresh parts"),
        pytest.param(step_of(EMPTY), (), False, id="no action"),
    ],
)  # fmt: skip
def test_futures_state_keeps_every_limit_after_the_worst_fills(step: StepInput, orders: tuple[PerpOrder, ...], passed: bool) -> None:
    assert judged("futures_state", step, *orders).passed is passed


def test_futures_state_names_a_reduction_that_opens() -> None:
    assert_refused(judged("futures_state", step_of(OVER), MOST_OF_IT, MOST_OF_IT), "a reduction that opens")
    assert_refused(judged("futures_state", step_of(EMPTY), BUY, ADDITION), "a reduction that opens")


# --- What is not known


GUARDS = ("index_age", "order_bound", "basis", "futures_state", "margin_move")


@pytest.mark.parametrize(
    ("step", "plan"),
    [
        pytest.param(step_of(EMPTY), plan_with(replace(BUY, market="DOGE")), id="market not in the snapshot"),
        pytest.param(step_of(OVER), plan_with(resting_actions=(replace(LONG_STOP, market="DOGE"),)), id="stop of an unknown market"),
        pytest.param(step_of(None), plan_with(BUY), id="unknown account"),
        pytest.param(step_of(EMPTY, None), plan_with(BUY), id="no futures"),
    ],
)
def test_guards_refuse_what_they_do_not_know(step: StepInput, plan: Plan) -> None:
    assert [name for name in GUARDS if verdict(name, step, plan).passed] == []


@pytest.mark.parametrize("change", [lambda step: with_snapshot(step, futures=None), for_another], ids=["unknown account", "delegate"])
def test_guards_let_a_delegate_be_revoked_by_its_owner(change: Callable[[StepInput], StepInput]) -> None:
    step = change(margin_step())
    plan = plan_with(account_actions=(DelegateChange(OTHER, is_allowed=False),))
    refusals = [name for name in GUARDS if not verdict(name, step, plan).passed]

    assert refusals == (["margin_move"] if change is for_another else [])
