"""Open hedges after orders, fills and time: what is left of them, and from which figure on they are chosen or closed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.layers.futures.policy.hedge_closing import (
    hedge_closing_decision,
    hedges_after_fill,
    hedges_after_order,
    is_hedge_closed_lately,
    unwind_reason,
)
from agent.layers.futures.policy.hedges import held_hedges, margin_share, short_costs, with_choice
from agent.layers.futures.state import FuturesProgress, FuturesState, futures_policy, with_policy
from agent.model.futures import FuturesGrant, FuturesPolicy, FuturesTarget, Hedge, HedgeComparison, MarginAccount, PerpOrder, PerpOrderKind
from agent.policy.decide import current_drifts
from tests.support.builders import NOW_S, with_snapshot
from tests.support.perpetuals.accounts import market
from tests.support.perpetuals.hedges import (
    DAY_S,
    E18,
    HEDGING,
    OPEN,
    SHORT,
    TERMS,
    WBTC,
    WETH,
    hedge_account,
    hedge_step_after,
    overweight_step,
)
from tests.support.perpetuals.steps import EMPTY, LIMITS, step_of

COMPARISON = HedgeComparison(
    WETH,
    Fraction(900),
    Fraction(500),
    Fraction(50),
    Fraction(30),
    Fraction(20),
    Fraction(40),
    Fraction(10),
    Fraction(10),
    Fraction(9),
    DAY_S,
)
"""A sale costs 100, a short 60."""
SOLD = PerpOrder("ETH", -10 * E18, PerpOrderKind.MARKET, 1, is_reduce_only=False)
BOUGHT = replace(SOLD, size_raw=10 * E18)
EARLY = replace(OPEN, size_raw=-10 * E18, at_s=NOW_S - 100)


@pytest.mark.parametrize(("min_saving", "is_hedged"), [(39, True), (40, False)])
def test_choice__hedge_saves_more_than_the_minimum(min_saving: int, is_hedged: bool) -> None:
    assert with_choice(COMPARISON, Fraction(min_saving), counts_income=False).is_hedged is is_hedged


@pytest.mark.parametrize(("counts_income", "is_hedged"), [(True, True), (False, False)])
def test_choice__income_counts_only_where_it_is_said_to(counts_income: bool, is_hedged: bool) -> None:
    """A short costs 50, or 20 with its income."""
    paid = replace(COMPARISON, hedge_funding=Fraction(-30))
    assert with_choice(paid, Fraction(50), counts_income=counts_income).is_hedged is is_hedged


def test_cost_of_a_short__is_fees_twice_funding_and_capital() -> None:
    """10,000 for a fifth of a year: 1 ‰ twice, 0.1 % a day received, and 4 % a year on a quarter."""
    paying = replace(market("ETH"), funding_daily=Fraction(1, 1_000))
    assert short_costs(paying, Fraction(10_000), 73 * DAY_S, Fraction(1, 4), 400) == (20, -730, 2_500, 20)


@pytest.mark.parametrize(("max_leverage_bps", "share"), [(30_000, Fraction(1, 3)), (200_000, Fraction(1, 10))])
def test_margin_of_a_short__is_the_larger_of_initial_and_leverage(max_leverage_bps: int, share: Fraction) -> None:
    assert margin_share(market("ETH"), replace(HEDGING, limits=replace(LIMITS, max_leverage_bps=max_leverage_bps))) == share


def after_order(size: int, *, closes: bool, opened: Hedge | None = None) -> tuple[Hedge, ...]:
    policy = replace(HEDGING, hedges=(EARLY,))
    state = FuturesState(hedges=(EARLY,))
    return hedges_after_order(step_of(EMPTY).snapshot, policy, state, "ETH", size * E18, opened, closes=closes)


@pytest.mark.parametrize(
    ("bought", "hedge"),
    [(4, replace(EARLY, size_raw=-6 * E18)), (10, replace(EARLY, size_raw=0, at_s=NOW_S)), (12, replace(EARLY, size_raw=0, at_s=NOW_S))],
)
def test_closing_order__buys_back_its_size_and_dates_the_end(bought: int, hedge: Hedge) -> None:
    assert after_order(bought, closes=True) == (hedge,)


def test_order__that_closes_no_hedge_leaves_it() -> None:
    assert after_order(4, closes=False) == (EARLY,)


def test_order__hedge_that_it_opens_is_added() -> None:
    opened = Hedge("BTC", WBTC, -E18, NOW_S, Fraction(1))
    assert after_order(-1, closes=False, opened=opened) == (EARLY, opened)


def test_order__closed_hedge_goes_once_another_is_opened() -> None:
    closed = (replace(EARLY, size_raw=0), Hedge("BTC", WBTC, 0, NOW_S, Fraction(1)))
    hedges = hedges_after_order(step_of(EMPTY).snapshot, HEDGING, FuturesState(hedges=closed), "ETH", -E18, EARLY)
    assert hedges == (closed[1], EARLY)


@pytest.mark.parametrize(
    ("filled", "hedges"),
    [(-10, (EARLY,)), (-4, (replace(EARLY, size_raw=-4 * E18),)), (0, ())],
    ids=["whole", "part", "nothing"],
)
def test_partial_fill__opens_its_part_of_a_hedge(filled: int, hedges: tuple[Hedge, ...]) -> None:
    assert hedges_after_fill(FuturesGrant(SOLD, EMPTY, hedges=(EARLY,)), filled * E18) == hedges


@pytest.mark.parametrize(("filled", "size"), [(10, 0), (4, -6), (0, -10)])
def test_partial_fill__closes_its_part_of_a_hedge(filled: int, size: int) -> None:
    ended = replace(EARLY, size_raw=0, at_s=NOW_S)
    [hedge] = hedges_after_fill(FuturesGrant(BOUGHT, EMPTY, hedges=(ended,), hedges_before=(EARLY,)), filled * E18)
    assert hedge == (ended if size == 0 else replace(EARLY, size_raw=size * E18))


def test_partial_fill__first_opens_the_hedge_and_then_the_target() -> None:
    small = replace(EARLY, size_raw=-4 * E18)
    assert hedges_after_fill(FuturesGrant(SOLD, EMPTY, hedges=(small,)), -4 * E18) == (small,)


def test_partial_fill__hedge_of_another_market_stays() -> None:
    other = Hedge("BTC", WBTC, -E18, NOW_S, Fraction(1))
    assert hedges_after_fill(FuturesGrant(SOLD, EMPTY, hedges=(other,)), 0) == (other,)


@pytest.mark.parametrize(("since_s", "is_late"), [(TERMS.horizon_s - 1, True), (TERMS.horizon_s, False)])
def test_closed_hedge__is_not_opened_again_within_one_horizon(since_s: int, is_late: bool) -> None:
    closed = replace(OPEN, size_raw=0, at_s=NOW_S - since_s)
    assert is_hedge_closed_lately(step_of(EMPTY).snapshot, HEDGING, FuturesState(hedges=(closed,)), WETH) is is_late


@pytest.mark.parametrize(("short_raw", "size"), [(-5, -5), (-3, -3), (-9, -5), (0, 0), (2, 0)])
def test_held_hedge__without_a_target_it_is_at_most_the_short(short_raw: int, size: int) -> None:
    hedges = held_hedges((OPEN,), hedge_account(10_000, short_raw * E18), HEDGING)
    assert hedges == ((replace(OPEN, size_raw=size * E18),) if size else ())


def test_held_hedge__beside_a_target_it_stays_whole() -> None:
    targeted = replace(HEDGING, targets=(FuturesTarget("ETH", 5_000),), leverage_bps=10_000)
    assert held_hedges((OPEN,), hedge_account(10_000, 2 * E18), targeted) == (OPEN,)


@pytest.mark.parametrize(("early_s", "passed"), [(0, True), (1, False)])
def test_open_hedge__is_closed_at_the_second_of_its_horizon(early_s: int, passed: bool) -> None:
    step = hedge_step_after(TERMS.horizon_s - early_s)
    policy = futures_policy(step)
    assert policy is not None
    assert ("horizon" in unwind_reason(step, current_drifts(step), policy.hedges[0])) is passed


@pytest.mark.parametrize(("pending", "closes"), [(2_500, False), (2_501, True)])
def test_open_hedge__pays_funding_equal_to_the_cost_of_the_sale(pending: int, closes: bool) -> None:
    owing = replace(SHORT, positions=(replace(SHORT.positions[0], funding_pending_raw=pending * E18),))
    step = overweight_step(owing, hedges=(OPEN,), weth=70_000)
    assert ("funding" in unwind_reason(step, current_drifts(step), OPEN)) is closes


def unwinding(account: MarginAccount, weth: int = 70_000, usdc: int = 30_000, hedge: Hedge = OPEN) -> str:
    step = overweight_step(account, hedges=(hedge,), weth=weth, usdc=usdc)
    return unwind_reason(step, current_drifts(step), hedge)


@pytest.mark.parametrize(("weth", "closes"), [(70_000, True), (70_001, False)])
def test_open_hedge__is_closed_once_the_excess_is_half_of_it(weth: int, closes: bool) -> None:
    """10,000 are hedged; 70,000 of 130,000 are 5,000 above half, and in the band."""
    assert ("back in its band" in unwinding(SHORT, weth, 50_000)) is closes


@pytest.mark.parametrize(("weth", "closes"), [(55_000, True), (55_001, False)])
def test_open_hedge__asset_on_the_edge_of_its_band_is_back_in_it(weth: int, closes: bool) -> None:
    """55 % of 100,000; 16,000 are hedged."""
    large = replace(OPEN, size_raw=-8 * E18)
    assert ("back in its band" in unwinding(hedge_account(10_000, -8 * E18), weth, 90_000 - weth, large)) is closes


@pytest.mark.parametrize(
    ("eth", "pending", "closes"),
    [
        pytest.param(-10, 5_000, False, id="whole position, at the cost"),
        pytest.param(-10, 5_002, True, id="whole position, above the cost"),
        pytest.param(-4, 2_500, False, id="part, at its share"),
        pytest.param(-4, 2_501, True, id="part, above its share"),
    ],
)
def test_open_hedge__bears_its_part_of_its_position_s_funding(eth: int, pending: int, closes: bool) -> None:
    short = hedge_account(10_000, eth * E18)
    owing = replace(short, positions=(replace(short.positions[0], funding_pending_raw=pending * E18),))
    assert ("funding" in unwinding(owing)) is closes


@pytest.mark.parametrize("eth", [10, -10])
def test_open_hedge__funding_in_its_favour_is_no_cost(eth: int) -> None:
    position = hedge_account(10_000, eth * E18)
    pending_raw = 9_000 * E18 if eth > 0 else -9_000 * E18
    owing = replace(position, positions=(replace(position.positions[0], funding_pending_raw=pending_raw),))
    assert "funding" not in unwinding(owing)


@pytest.mark.parametrize(("since_s", "closes"), [(5 * DAY_S, False), (5 * DAY_S - 1, True)])
def test_open_hedge__funding_of_its_horizon_may_equal_the_sale(since_s: int, closes: bool) -> None:
    """A hundredth of 10,000 a day for 25 days."""
    paying = hedge_account(10_000, -5 * E18, funding_daily=Fraction(-1, 100))
    assert ("funding" in unwinding(paying, hedge=replace(OPEN, at_s=NOW_S - since_s))) is closes


def test_open_hedge__expected_income_pays_no_owed_funding() -> None:
    short = hedge_account(10_000, -5 * E18, funding_daily=Fraction(1, 100))
    owing = replace(short, positions=(replace(short.positions[0], funding_pending_raw=2_501 * E18),))
    assert "funding" in unwinding(owing)


@pytest.mark.parametrize("policy", [None, HEDGING])
def test_open_hedge__without_account_or_policy_is_not_closed(policy: FuturesPolicy | None) -> None:
    step = with_policy(hedge_step_after(TERMS.horizon_s), policy)
    step = step if policy is None else replace(step, snapshot=with_snapshot(step, futures=None).snapshot)
    assert unwind_reason(step, current_drifts(step), OPEN) == ""


def test_closing__due_hedge_is_closed() -> None:
    decision = hedge_closing_decision(hedge_step_after(TERMS.horizon_s), current_drifts(hedge_step_after(TERMS.horizon_s)))
    assert decision is not None
    assert (decision.closed_hedge_market, decision.is_reducing) == ("ETH", True)


def test_closing__hedge_that_is_not_due_stays() -> None:
    assert hedge_closing_decision(hedge_step_after(0), current_drifts(hedge_step_after(0))) is None


def test_closing__layer_that_sends_nothing_closes_nothing() -> None:
    step = hedge_step_after(TERMS.horizon_s).with_progress(FuturesProgress(hold_reason="a guard refused"))
    assert hedge_closing_decision(step, current_drifts(step)) is None


def test_closing__without_a_policy_nothing_is_closed() -> None:
    step = with_policy(hedge_step_after(TERMS.horizon_s), None)
    assert hedge_closing_decision(step, current_drifts(step)) is None


def test_closing__unknown_account_closes_nothing() -> None:
    step = with_snapshot(hedge_step_after(TERMS.horizon_s), futures=None)
    assert hedge_closing_decision(step, current_drifts(step)) is None


@pytest.mark.parametrize(("age_s", "closes"), [(600, True), (601, False)])
def test_closing__waits_for_a_current_index_of_its_market(age_s: int, closes: bool) -> None:
    due = replace(OPEN, at_s=NOW_S - TERMS.horizon_s)
    step = overweight_step(hedge_account(10_000, -5 * E18, index_s=NOW_S - age_s), hedges=(due,), weth=70_000)
    assert (hedge_closing_decision(step, current_drifts(step)) is not None) is closes
