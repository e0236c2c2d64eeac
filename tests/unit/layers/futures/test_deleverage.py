"""Reductions that the owner requests: by the same share, in one market, each market once a step, and not held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.errors import Refused
from agent.layers.futures.policy.needs import deleverage_sizes
from agent.layers.futures.requests import Deleverage, MarginAccountRequest
from agent.layers.futures.state import FuturesProgress
from agent.margin import account as margin
from agent.margin.state import after_action, is_reduction
from agent.model import AdjustFutures, Hold, Plan, StepInput
from agent.model.futures import FuturesTarget, Hedge, MarginAccount, MarginDeposit, PerpOrder
from agent.planning.requests import proposer, requester_name
from tests.support.builders import NOW_S
from tests.support.perpetuals.books import with_index_at
from tests.support.perpetuals.steps import FUTURES_POLICY, futures_of, step_of
from tests.support.perpetuals.unknowns import two_market_account
from tests.support.plans import refusing_guards

TWO = replace(FUTURES_POLICY, targets=(FuturesTarget("ETH", 6_000), FuturesTarget("BTC", -4_000)))
BOTH = ("ETH", "BTC")


def lots_of(eth: int, btc: int, collateral: int = 10_000) -> MarginAccount:
    """Return ETH at 2,000 and BTC at 30,000, sizes in thousandths."""
    return two_market_account(collateral, eth * 10**15, btc * 10**15, btc_s=NOW_S - 60)


THREEFOLD = lots_of(9_000, -400)
"""18,000 long and 12,000 short: 3x."""
STEP = step_of(THREEFOLD, TWO)


def requested(deleverage: Deleverage, step: StepInput = STEP) -> Sequence[PerpOrder]:
    return futures_of(proposer(deleverage)(step).plan).orders


def test_deleverage__cuts_every_position_by_the_same_share() -> None:
    after = THREEFOLD
    shares = []
    for order in requested(Deleverage(20_000)):
        assert order.is_reduce_only
        assert is_reduction(after, order)
        after = after_action(after, order)
        shares.append(Fraction(-order.size_raw, THREEFOLD.size_raw(order.market)))
    eth, btc = shares
    assert eth == pytest.approx(btc, abs=0.003)
    assert Fraction(19, 10) < margin.leverage(after) <= 2


@given(st.integers(1, 15_000), st.integers(-900, 900).filter(bool), st.integers(0, 60_000), st.integers(0, 500))
def test_no_leverage_above_the_requested_is_left(eth: int, btc: int, bps: int, slippage_bps: int) -> None:
    account_before = lots_of(eth, btc, 20_000)
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


def test_deleverage_of_a_market_without_a_leverage__closes_it() -> None:
    assert [(order.market, order.size_raw) for order in requested(Deleverage(None, "BTC"))] == [("BTC", 400 * 10**15)]
    assert {order.market for order in requested(Deleverage(0))} == {"ETH", "BTC"}


def test_deleverage_of_a_market__reduces_it_alone_until_the_leverage_holds() -> None:
    [order] = requested(Deleverage(25_000, "ETH"))
    after = after_action(THREEFOLD, order)
    assert margin.leverage(after) <= Fraction(5, 2)
    assert after.size_raw("BTC") == THREEFOLD.size_raw("BTC")


def test_deleverage__takes_each_market_once_a_step_and_its_share_stays() -> None:
    first, second = requested(Deleverage(20_000))
    after = step_of(after_action(THREEFOLD, first), TWO).with_progress(FuturesProgress(reduced_markets=(first.market,)))
    [order] = requested(Deleverage(20_000), after)
    assert order.market == second.market
    assert order.size_raw == pytest.approx(second.size_raw, rel=0.01)


@pytest.mark.parametrize(
    ("deleverage", "reduced_markets", "reason"),
    [
        pytest.param(Deleverage(None), BOTH, "each market was ordered once and 9 ETH, 0.4 BTC is left to reduce; run it again", id="all"),
        pytest.param(Deleverage(None, "BTC"), ("BTC",), "ordered once and 0.4 BTC is left to reduce; run it again", id="one market"),
        pytest.param(Deleverage(20_000), BOTH, "is left to reduce; run it again", id="to a leverage"),
        pytest.param(Deleverage(None, "SOL"), ("SOL",), "leverage is 3.00x, nothing is left to reduce", id="closed, without a row"),
        pytest.param(Deleverage(30_000), (), "leverage is 3.00x, nothing is left to reduce", id="below the leverage"),
    ],
)
def test_deleverage__holds_and_says_what_is_left(deleverage: Deleverage, reduced_markets: tuple[str, ...], reason: str) -> None:
    outcome = proposer(deleverage)(STEP.with_progress(FuturesProgress(reduced_markets=reduced_markets)))
    assert outcome.plan is None
    assert isinstance(outcome.decision_result.decision, Hold)
    assert reason in outcome.decision_result.decision.reason


@pytest.mark.parametrize(
    ("positions", "deleverage", "reduced_markets"),
    [
        pytest.param((0, 0), Deleverage(None), ("ETH",), id="closed in this cycle"),
        pytest.param((0, 0), Deleverage(None), (), id="no positions"),
        pytest.param((0, -400), Deleverage(None, "ETH"), ("ETH",), id="another market was closed"),
        pytest.param((100, -400), Deleverage(50_000), (), id="below the leverage"),
    ],
)
def test_deleverage_without_anything_left__holds_beside_a_stale_index(
    positions: tuple[int, int], deleverage: Deleverage, reduced_markets: tuple[str, ...]
) -> None:
    eth, btc = positions
    account = two_market_account(10_000, eth * 10**15, btc * 10**15, btc_s=NOW_S - 10_000)
    step = step_of(account, TWO).with_progress(FuturesProgress(reduced_markets=reduced_markets))
    outcome = proposer(deleverage)(step)
    assert isinstance(outcome.decision_result.decision, Hold)
    assert "nothing is left to reduce" in outcome.decision_result.decision.reason


def test_deleverage__says_after_an_order_that_nothing_more_is_reduced() -> None:
    account = two_market_account(10_000, 0, -400 * 10**15, btc_s=NOW_S - 10_000)
    step = step_of(account, TWO).with_progress(FuturesProgress(reduced_markets=("ETH",)))
    with pytest.raises(Refused, match="nothing more is reduced: the index of BTC is 10000 s old"):
        proposer(Deleverage(None))(step)


@pytest.mark.parametrize(
    ("step", "deleverage", "reason"),
    [
        pytest.param(step_of(with_index_at(THREEFOLD, NOW_S - 10_000), TWO), Deleverage(20_000), "index", id="stale index"),
        pytest.param(step_of(None, TWO), Deleverage(20_000), "unknown", id="unknown account"),
        pytest.param(step_of(THREEFOLD, None), Deleverage(20_000), "futures", id="no futures"),
        pytest.param(STEP, Deleverage(None, "DOGE"), "not a futures market", id="unknown market"),
    ],
)
def test_deleverage__is_refused_without_account_prices_or_market(step: StepInput, deleverage: Deleverage, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        proposer(deleverage)(step)


def test_owner_s_reduction__ignores_the_day_s_budget() -> None:
    step = step_of(THREEFOLD, TWO, reduced_notional_24h=Fraction(10**12), turnover_24h=Fraction(10**12), reverts_in_row=5)
    plan = proposer(Deleverage(10_000))(step).plan
    assert isinstance(plan.decision, AdjustFutures)
    assert plan.decision.by_owner
    assert refusing_guards(step, plan) == []
    assert codec.loads(Plan, codec.dumps(plan)) == plan
    agents_own = replace(plan, decision=replace(plan.decision, by_owner=False))
    assert refusing_guards(step, agents_own) == ["reduction_per_day"]


def test_deleverage__is_written_and_named() -> None:
    deleverage = Deleverage(20_000, "ETH")
    assert codec.loads(Deleverage, codec.dumps(deleverage)) == deleverage
    assert requester_name(deleverage) == "deleverage"


HEDGE = Hedge("BTC", "0x" + "2" * 40, -150 * 10**15, NOW_S, Fraction(1))


@pytest.mark.parametrize(
    ("request_", "size_left"),
    [(Deleverage(None, "ETH"), HEDGE.size_raw), (Deleverage(None, "BTC"), 0), (MarginAccountRequest(MarginDeposit(1)), HEDGE.size_raw)],
    ids=["sale of another market", "purchase of its market", "deposit"],
)
def test_purchase__takes_its_market_s_hedge_and_a_sale_leaves_it(request_: Deleverage | MarginAccountRequest, size_left: int) -> None:
    policy = replace(TWO, hedges=(HEDGE,), collateral=STEP.portfolio.numeraire.address)
    plan = proposer(request_)(step_of(THREEFOLD, policy, hedges=(HEDGE,))).plan
    assert [hedge.size_raw for hedge in futures_of(plan).hedges] == [size_left]
