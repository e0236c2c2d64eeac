"""Total notional and largest position: kept while a market is paused, trimmed when they have grown, and never a reason to refuse
another market for ever.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layers.futures.planning.orders import EarlierActions, plan_futures
from agent.layers.futures.policy.targets import DUST_DIVISOR, position_notes, target_gross_notional
from agent.layers.futures.state import with_policy
from agent.margin import account as margin
from agent.model.futures import FuturesPlan, FuturesPolicy, FuturesTarget, Hedge, MarginAccount, PerpOrderKind
from agent.planning.proposals import propose_rebalance
from agent.policy.decide import decide
from agent.units import BPS
from tests.support.builders import NOW_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.books import LOT, wide_book, with_index_at, with_market
from tests.support.perpetuals.plans import PLAN_S, RICH, ROUGH, account_after_fills, pair_book
from tests.support.perpetuals.steps import futures_of, step_of
from tests.support.plans import proposed_plan, verdict

WIDE = replace(ROUGH, max_leverage_bps=60_000, max_utilisation_bps=10_000)
HALVES = (FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000))
TRIPLE = FuturesPolicy(HALVES, 30_000, 500, WIDE)
PAIR = FuturesPolicy((FuturesTarget("ETH", 6_000), FuturesTarget("BTC", 4_000)), 20_000, 500, replace(ROUGH, max_position_bps=7_000))


def planned(margin_account: MarginAccount, policy: FuturesPolicy = TRIPLE, **options: Any) -> FuturesPlan:
    return plan_futures(margin_account, policy, RICH, PLAN_S, **options)


def after_plan(margin_account: MarginAccount, policy: FuturesPolicy = TRIPLE) -> MarginAccount:
    """Return the account after the orders that are planned for it."""
    return account_after_fills(margin_account, planned(margin_account, policy))


def orders_of(plan: FuturesPlan) -> list[tuple[str, bool]]:
    """Return market, and whether it only reduces, of each order."""
    return [(order.market, order.is_reduce_only) for order in plan.orders]


# --- The total notional beside a paused market


def test_paused_market__openings_beside_it_stay_within_the_total() -> None:
    """BTC, paused, is 2.6x of 3x and above its half; ETH is 0.86x. It is raised by 0.4x to 3x in all, not to its own half."""
    paused = with_market(pair_book(10_000, eth=4_300 * 10**15, btc=866 * 10**15), "BTC", is_paused=True)
    assert margin.leverage(paused) > Fraction(34, 10)
    plan = planned(paused)
    assert all(order.is_reduce_only for order in plan.orders)
    assert "ETH is cut so that the notional stays at its target" in plan.refusal_texts
    after = after_plan(with_market(pair_book(10_000, eth=E18, btc=866 * 10**15), "BTC", is_paused=True))
    assert Fraction(29, 10) < margin.leverage(after) <= Fraction(301, 100)
    assert after.size_raw("ETH") > E18


def test_cut_to_target__a_hedge_takes_no_room_of_the_targets() -> None:
    """BTC, paused, is 2.6x of 3x; beside it ETH is raised by 0.2x, whether or not a hedge is open."""
    hedging = replace(TRIPLE, hedges=(Hedge("SOL", "", -50_000 * LOT, 0, Fraction(0)),))
    bare, hedged = (
        after_plan(with_market(wide_book(10_000, ETH=1_000, BTC=866, SOL=size), "BTC", is_paused=True), policy).size_raw("ETH")
        for size, policy in ((0, TRIPLE), (-50_000, hedging))
    )
    assert bare > E18
    assert hedged == pytest.approx(bare, rel=1e-3)


@pytest.mark.parametrize(
    ("waiting_markets", "orders"),
    [((), [("BTC", True), ("ETH", False)]), (["BTC"], [("BTC", True)])],
    ids=["none waits", "the step itself skips it"],
)
def test_reduction_that_backs_off__makes_no_room_for_an_opening(waiting_markets: list[str], orders: list[tuple[str, bool]]) -> None:
    margin_account = pair_book(10_000, eth=4_300 * 10**15, btc=866 * 10**15)
    assert orders_of(planned(margin_account, earlier=EarlierActions(waiting_markets=waiting_markets))) == orders


@given(st.integers(-15, 15), st.integers(-1_000, 1_000), st.booleans(), st.integers(5_000, 30_000))
def test_no_opening_lifts_the_notional_above_its_target(eth: int, btc: int, is_long: bool, leverage_bps: int) -> None:
    weights = (FuturesTarget("ETH", 5_000), FuturesTarget("BTC", 5_000 if is_long else -5_000))
    policy = replace(TRIPLE, targets=weights, leverage_bps=leverage_bps)
    paused = with_market(pair_book(20_000, eth * E18, btc * 10**15), "BTC", is_paused=True)
    if margin.account_value_raw(paused) <= 0:
        return
    target = target_gross_notional(paused, policy)
    dust = target * policy.band_bps / BPS / DUST_DIVISOR
    most = max(target, Fraction(margin.gross_notional_raw(paused)))
    assert margin.gross_notional_raw(after_plan(paused, policy)) <= most + dust


@pytest.mark.parametrize(
    ("mark", "markets", "refusal_texts"),
    [
        pytest.param(2_030, ["BTC"], ("the mark of ETH is 1.50 % off its index, beyond the bound of an order",), id="dearer"),
        pytest.param(1_970, ["ETH", "BTC"], (), id="cheaper"),
    ],
)
def test_opening__mark_beyond_its_bound_is_named_and_not_sent(mark: int, markets: list[str], refusal_texts: tuple[str, ...]) -> None:
    plan = planned(with_market(pair_book(10_000), "ETH", mark=Fraction(mark)), PAIR)
    assert ([order.market for order in plan.orders], plan.refusal_texts) == (markets, refusal_texts)


# --- The largest position


def test_an_unopenable_market_does_not_refuse_the_other() -> None:
    """ETH alone would be the whole notional, but it is no more than 60 % of the target notional."""
    paused = with_market(pair_book(10_000), "BTC", is_paused=True)
    plan = planned(paused, PAIR)
    assert [(order.market, order.size_raw) for order in plan.orders] == [("ETH", 6 * E18)]
    assert plan.refusal_texts == ("BTC is paused",)
    assert planned(account_after_fills(paused, plan), PAIR).trigger == "drift", "a position of its target is not trimmed"


def test_position_that_grew_above_its_maximum__is_trimmed_once() -> None:
    policy = replace(PAIR, band_bps=0)
    margin_account = pair_book(10_000, eth=8 * E18, btc=80 * 10**15)
    plan = planned(margin_account, policy)
    assert (plan.trigger, plan.is_reducing, orders_of(plan)) == ("max_position", True, [("ETH", True)])
    after = account_after_fills(margin_account, plan)
    assert max(margin.position_shares(after, policy.leverage_bps).values()) <= Fraction(7, 10)
    assert after.size_raw("ETH") * 2_000 >= Fraction(6, 10) * target_gross_notional(after, policy) - 2 * E18
    assert planned(after, policy).orders == ()


def fresh(margin_account: MarginAccount) -> MarginAccount:
    """Return the account with indexes of the step's time."""
    return with_index_at(margin_account, NOW_S)


def test_position_at_target_or_with_a_hedge__is_not_trimmed() -> None:
    heavy = replace(PAIR, targets=(FuturesTarget("ETH", 8_000), FuturesTarget("BTC", 2_000)), band_bps=0)
    margin_account = pair_book(10_000, eth=8 * E18, btc=133 * 10**15)
    assert planned(margin_account, heavy).orders == ()
    [note] = position_notes(margin_account, heavy)
    assert note.startswith("ETH is 80.0")
    assert note.endswith("above max_position of 70 %, and is not trimmed: it is at its target")
    hedging = replace(heavy, hedges=(Hedge("ETH", "", -E18, 0, Fraction(0)),))
    assert position_notes(margin_account, hedging)[0].endswith("it includes a hedge")
    assert "futures: ETH is 80.0" in decide(step_of(fresh(margin_account), heavy)).decision.reason


@pytest.mark.parametrize(("market", "passed"), [("BTC", True), ("ETH", False)])
def test_exposure_guard__passes_an_opening_unless_it_enlarges_excess(market: str, passed: bool) -> None:
    limits = replace(PAIR.limits, spot_multiple_bps=0, stress_move_bps=0)
    policy = replace(PAIR, limits=limits, leverage_bps=10_000, targets=HALVES)
    step = step_of(with_market(fresh(pair_book(10_000, eth=8 * E18)), "ETH", is_paused=True), policy)
    plan = proposed_plan(with_policy(step, replace(policy, leverage_bps=30_000)))
    [order, *_] = futures_of(plan).orders
    assert (order.market, order.kind) == ("BTC", PerpOrderKind.MARKET)
    small = replace(order, market=market, size_raw=10**16, bound_raw=303 * E18)
    judged = verdict("futures_state", step, plan.with_layer(replace(futures_of(plan), orders=(small,))))
    assert judged.passed is passed, judged.measured_text


@pytest.mark.parametrize(("budget_bps", "is_planned"), [(1, False), (0, True)])
def test_trim__is_a_reduction_that_counts_in_the_day_s_budget(budget_bps: int, is_planned: bool) -> None:
    limits = replace(PAIR.limits, spot_multiple_bps=0, reduction_per_day_bps=budget_bps)
    margin_account = with_market(fresh(pair_book(10_000, eth=4_800 * 10**15, btc=160 * 10**15)), "ETH", mark=Fraction(2_400))
    proposal = propose_rebalance(step_of(margin_account, replace(PAIR, limits=limits, leverage_bps=10_000, band_bps=0)))
    assert "futures: max_position is above its limit" in proposal.decision_result.decision.reason
    assert (proposal.plan is not None) is is_planned


def test_order_that_is_not_possible__is_explained_once() -> None:
    paused = fresh(pair_book(10_000, eth=6 * E18, btc=100 * 10**15))
    for name in ("BTC", "ETH"):
        paused = with_market(paused, name, is_paused=True)
    reason = propose_rebalance(step_of(paused, replace(PAIR, targets=HALVES, band_bps=500))).decision_result.decision.reason
    assert reason.count("a weight of the notional has left its band") == 1, reason
    assert "futures: a weight of the notional has left its band, but no order is possible; " in reason
