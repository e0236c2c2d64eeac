"""Reductions that the owner requests: by the same share, in one market, each market once a step, and not held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec, guards
from agent.errors import Refused
from agent.layers.futures.policy.needs import deleverage_sizes
from agent.layers.futures.requests import Deleverage, MarginAccountRequest
from agent.layers.futures.state import FuturesProgress, futures_policy, planned_futures, with_policy
from agent.margin import account as margin
from agent.margin.state import after_action, is_reduction
from agent.model import AdjustFutures, Hold, Plan, StepInput
from agent.model.futures import FuturesTarget, Hedge, MarginAccount, MarginDeposit, PerpOrder
from agent.planning.requests import proposer, requester_name
from tests.support.builders import NOW_S
from tests.support.perpetuals.accounts import account, market
from tests.support.perpetuals.steps import FUTURES_POLICY, step_of
from tests.support.plans import evidence

TWO = replace(FUTURES_POLICY, targets=(FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000)))
BOTH = ("ETH", "BTC")


def book(eth: int, btc: int, collateral: int = 10_000) -> MarginAccount:
    """ETH at 2,000 and BTC at 30,000, sizes in thousandths."""
    margin_account = account(collateral, {"ETH": eth * 10**15, "BTC": btc * 10**15}, market("ETH"), market("BTC", 30_000))
    return replace(margin_account, markets=tuple(replace(market, index_s=NOW_S - 60) for market in margin_account.markets))


HELD = book(9_000, -400)
"""18,000 long and 12,000 short: 3x."""


def orders_of(step: StepInput, deleverage: Deleverage) -> Sequence[PerpOrder]:
    plan = proposer(deleverage)(step).plan
    return () if plan is None or planned_futures(plan) is None else planned_futures(plan).orders


def test_deleverage__cuts_every_position_by_the_same_share() -> None:
    orders = {order.market: order for order in orders_of(step_of(HELD, TWO), Deleverage(20_000))}
    shares = {name: Fraction(-order.size_raw, HELD.size_raw(name)) for name, order in orders.items()}
    assert shares["ETH"] == pytest.approx(shares["BTC"], abs=0.003)
    after = HELD
    for order in orders.values():
        assert order.is_reduce_only
        assert is_reduction(after, order)
        after = after_action(after, order)
    leverage = margin.leverage(after)
    assert leverage is not None
    assert Fraction(19, 10) < leverage <= 2


@given(st.integers(1, 15_000), st.integers(-900, 900).filter(bool), st.integers(0, 60_000), st.integers(0, 500))
def test_no_leverage_above_the_requested_is_left(eth: int, btc: int, bps: int, slippage_bps: int) -> None:
    account_before = book(eth, btc, 20_000)
    goal = Fraction(bps, 10_000)
    after = account_before
    for name, size in deleverage_sizes(account_before, goal, BOTH, slippage_bps).items():
        after = margin.with_trade(after, name, size, _worst_quote(after, name, size, slippage_bps))
        assert abs(after.size_raw(name)) < abs(account_before.size_raw(name))
    leverage = margin.leverage(after)
    assert leverage is None or leverage <= max(goal, Fraction(0))


def _worst_quote(margin_account: MarginAccount, name: str, size: int, slippage_bps: int) -> int:
    value = abs(size) * margin_account.market(name).mark
    at_bound = value * (10_000 + (slippage_bps if size > 0 else -slippage_bps)) / 10_000
    fee = max(value, at_bound) * margin_account.market(name).fee_ppm / margin.PPM
    return int(-at_bound - fee if size > 0 else at_bound - fee)


def test_a_market_without_a_leverage_is_closed_and_others_stay() -> None:
    [order] = orders_of(step_of(HELD, TWO), Deleverage(None, "BTC"))
    assert (order.market, order.size_raw) == ("BTC", 400 * 10**15)
    assert {order.market for order in orders_of(step_of(HELD, TWO), Deleverage(0))} == {"ETH", "BTC"}


def test_one_market_alone_is_reduced_until_the_leverage_holds() -> None:
    [order] = orders_of(step_of(HELD, TWO), Deleverage(25_000, "ETH"))
    after = after_action(HELD, order)
    leverage = margin.leverage(after)
    assert leverage is not None
    assert leverage <= Fraction(5, 2)
    assert after.size_raw("BTC") == HELD.size_raw("BTC")


def test_each_market_is_taken_once_a_step_and_the_share_stays() -> None:
    step = step_of(HELD, TWO)
    first, second = orders_of(step, Deleverage(20_000))
    after = step_of(after_action(HELD, first), TWO).with_progress(FuturesProgress(reduced_markets=(first.market,)))
    [orders_left] = orders_of(after, Deleverage(20_000))
    assert orders_left.market == second.market
    assert orders_left.size_raw == pytest.approx(second.size_raw, rel=0.01)
    done = step.with_progress(FuturesProgress(reduced_markets=BOTH))
    outcome = proposer(Deleverage(20_000))(done)
    assert outcome.plan is None
    assert isinstance(outcome.decision_result.decision, Hold)


def test_nothing_is_reduced_below_the_leverage_or_without_prices() -> None:
    outcome = proposer(Deleverage(30_000))(step_of(HELD, TWO))
    assert isinstance(outcome.decision_result.decision, Hold)
    assert "leverage is 3.00x, nothing is left to reduce" in outcome.decision_result.decision.reason
    stale = replace(HELD, markets=tuple(replace(market, index_s=NOW_S - 10_000) for market in HELD.markets))
    for step, word in ((step_of(stale, TWO), "index"), (step_of(None, TWO), "unknown"), (step_of(HELD, None), "futures")):
        with pytest.raises(Refused, match=word):
            proposer(Deleverage(20_000))(step)
    with pytest.raises(Refused, match="not a futures market"):
        proposer(Deleverage(None, "DOGE"))(step_of(HELD, TWO))


def test_owner_s_reduction__ignores_the_day_s_budget() -> None:
    step = step_of(HELD, TWO, reduced_notional_24h=Fraction(10**12), turnover_24h=Fraction(10**12), reverts_in_row=5)
    plan = proposer(Deleverage(10_000))(step).plan
    assert plan is not None
    assert isinstance(plan.decision, AdjustFutures)
    assert plan.decision.by_owner
    assert [verdict.guard for verdict in guards.judge(step, plan, evidence(step, plan)) if not verdict.passed] == []
    assert codec.loads(Plan, codec.dumps(plan)) == plan
    agents_own = replace(plan, decision=replace(plan.decision, by_owner=False))
    verdicts = guards.judge(step, agents_own, evidence(step, agents_own))
    assert [verdict.guard for verdict in verdicts if not verdict.passed] == ["reduction_per_day"]


def test_a_request_is_written_and_named() -> None:
    deleverage = Deleverage(20_000, "ETH")
    assert codec.loads(Deleverage, codec.dumps(deleverage)) == deleverage
    assert requester_name(deleverage) == "deleverage"


def test_purchase__takes_its_market_s_hedge_and_a_sale_leaves_it() -> None:
    hedge = Hedge("BTC", "0x" + "2" * 40, -150 * 10**15, NOW_S, Fraction(1))
    step = step_of(HELD, replace(TWO, hedges=(hedge,)), hedges=(hedge,))
    for symbol, size_left in (("ETH", hedge.size_raw), ("BTC", 0)):
        plan = proposer(Deleverage(None, symbol))(step).plan
        assert plan is not None
        assert planned_futures(plan) is not None
        assert [hedge.size_raw for hedge in planned_futures(plan).hedges] == [size_left]
    changed_futures_policy = replace(futures_policy(step), collateral=step.portfolio.numeraire.address)
    moved = proposer(MarginAccountRequest(MarginDeposit(1)))(with_policy(step, changed_futures_policy)).plan
    assert moved is not None
    assert planned_futures(moved) is not None
    assert planned_futures(moved).hedges == (hedge,)
