"""Tests of agent/layers/futures/policy/hedge_closing.py: open hedges after orders, fills and time, and why they are closed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent.layers.futures.policy.hedge_closing import (
    hedge_closing_decision,
    hedges_after_fill,
    hedges_after_order,
    is_hedge_closed_lately,
    unwind_reason,
)
from agent.layers.futures.state import FuturesState, hold_futures, with_policy
from agent.model import AdjustFutures, ExitFailures, StepInput
from agent.model.futures import FuturesGrant, FuturesPolicy, Hedge, OrderCancel, PerpOrder, PerpOrderKind, Position
from agent.policy.decide import current_drifts
from tests.support.builders import NOW_S, with_snapshot
from tests.support.perpetuals.accounts import market
from tests.support.perpetuals.hedges import (
    DAY_S,
    E18,
    HEDGING,
    OPEN,
    TERMS,
    WBTC,
    WETH,
    hedge_account,
    hedge_step_after,
    overweight_step,
)
from tests.support.perpetuals.steps import EMPTY, step_of

SOLD = PerpOrder("ETH", -10 * E18, PerpOrderKind.MARKET, 1, is_reduce_only=False)
BOUGHT = replace(SOLD, size_raw=10 * E18)
EARLY = replace(OPEN, size_raw=-10 * E18, at_s=NOW_S - 100)
ENDED = replace(EARLY, size_raw=0, at_s=NOW_S)
OTHER = Hedge("BTC", WBTC, -E18, NOW_S, Fraction(1))
SECOND = replace(EARLY, token=WBTC, size_raw=-4 * E18)
SECOND_ENDED = replace(ENDED, token=WBTC)


def sized(coins: int) -> Hedge:
    return replace(EARLY, size_raw=coins * E18)


# --- Hedges after orders and fills


@pytest.mark.parametrize(
    ("coins", "closes", "opened_hedge", "state_hedges", "hedges"),
    [
        pytest.param(4, True, None, (EARLY,), (sized(-6),), id="part bought back"),
        pytest.param(10, True, None, (EARLY,), (ENDED,), id="bought back"),
        pytest.param(12, True, None, (EARLY,), (ENDED,), id="more bought"),
        pytest.param(4, False, None, (EARLY,), (EARLY,), id="order that closes none"),
        pytest.param(-1, False, OTHER, (EARLY,), (EARLY, OTHER), id="hedge that it opens"),
        pytest.param(
            -1, False, None, (sized(0), replace(OTHER, size_raw=0)), (replace(OTHER, size_raw=0), EARLY), id="closed one reopened"
        ),
    ],
)
def test_hedges_after_order_lose_what_it_buys_back(
    coins: int, closes: bool, opened_hedge: Hedge | None, state_hedges: tuple[Hedge, ...], hedges: tuple[Hedge, ...]
) -> None:
    """10 ETH are hedged by the policy; the store also knows closed hedges."""
    policy = replace(HEDGING, hedges=(EARLY,))
    state = FuturesState(hedges=state_hedges)

    assert hedges_after_order(step_of(EMPTY).snapshot, policy, state, "ETH", coins * E18, opened_hedge, closes=closes) == hedges


def test_hedges_after_order_of_another_market_stay() -> None:
    state = FuturesState(hedges=(EARLY,))
    snapshot = step_of(EMPTY).snapshot

    assert hedges_after_order(snapshot, replace(HEDGING, hedges=(EARLY,)), state, "BTC", 10 * E18, closes=True) == (EARLY,)
    assert hedges_after_order(snapshot, None, state, "ETH", 10 * E18, closes=True) == (EARLY,)


@pytest.mark.parametrize(
    ("order", "hedges_before", "hedges_after", "filled", "hedges"),
    [
        pytest.param(SOLD, (), (EARLY,), -10, (EARLY,), id="opened"),
        pytest.param(SOLD, (), (EARLY,), -4, (sized(-4),), id="opened in part"),
        pytest.param(SOLD, (), (EARLY,), 0, (), id="nothing opened"),
        pytest.param(SOLD, (), (sized(-4),), -4, (sized(-4),), id="hedge before the target"),
        pytest.param(SOLD, (), (OTHER,), 0, (OTHER,), id="another market"),
        pytest.param(BOUGHT, (EARLY,), (ENDED,), 10, (ENDED,), id="closed"),
        pytest.param(BOUGHT, (EARLY,), (ENDED,), 4, (sized(-6),), id="closed in part"),
        pytest.param(BOUGHT, (EARLY,), (ENDED,), 0, (EARLY,), id="nothing closed"),
        pytest.param(BOUGHT, (EARLY,), (ENDED,), -4, (EARLY,), id="fill on the other side"),
        pytest.param(BOUGHT, (sized(-6), SECOND), (ENDED, SECOND_ENDED), 7, (ENDED, replace(SECOND, size_raw=-3 * E18)), id="two, in part"),
        pytest.param(replace(BOUGHT, size_raw=14 * E18), (EARLY,), (ENDED,), 12, (ENDED,), id="closed beyond its size"),
        pytest.param(replace(BOUGHT, size_raw=2 * E18), (EARLY,), (EARLY,), 1, (EARLY,), id="order of a target"),
        pytest.param(OrderCancel("ETH", "1"), (EARLY,), (ENDED,), 4, (ENDED,), id="no order"),
    ],
)
def test_hedges_after_fill_change_by_what_was_filled(
    order: PerpOrder | OrderCancel,
    hedges_before: tuple[Hedge, ...],
    hedges_after: tuple[Hedge, ...],
    filled: int,
    hedges: tuple[Hedge, ...],
) -> None:
    grant = FuturesGrant(order, EMPTY, hedges=hedges_after, hedges_before=hedges_before)

    assert hedges_after_fill(grant, filled * E18) == hedges


@pytest.mark.parametrize(
    ("hedge", "policy", "is_late"),
    [
        pytest.param(replace(OPEN, size_raw=0, at_s=NOW_S - TERMS.horizon_s + 1), HEDGING, True, id="a second within the horizon"),
        pytest.param(replace(OPEN, size_raw=0, at_s=NOW_S - TERMS.horizon_s), HEDGING, False, id="at its end"),
        pytest.param(OPEN, HEDGING, False, id="open"),
        pytest.param(replace(OTHER, size_raw=0), HEDGING, False, id="another token"),
        pytest.param(replace(OPEN, size_raw=0), replace(HEDGING, hedge_policy=None), False, id="hedges not configured"),
        pytest.param(replace(OPEN, size_raw=0), None, False, id="no futures"),
    ],
)
def test_hedge_is_closed_lately_within_one_horizon(hedge: Hedge, policy: FuturesPolicy | None, is_late: bool) -> None:
    assert is_hedge_closed_lately(step_of(EMPTY).snapshot, policy, FuturesState(hedges=(hedge,)), WETH) is is_late


# --- Reasons to close


def step_with_hedge(
    eth: int = -5, pending: int = 0, weth: int = 70_000, usdc: int = 30_000, hedge: Hedge = OPEN, **market: Any
) -> StepInput:
    """Return a step that holds `eth` coins of futures with this pending funding, by default the hedge alone."""
    margin_account = hedge_account(10_000, eth * E18, **market)
    positions = tuple(replace(position, funding_pending_raw=pending * E18) for position in margin_account.positions)
    return overweight_step(replace(margin_account, positions=positions), hedges=(hedge,), weth=weth, usdc=usdc)


LARGE = replace(OPEN, size_raw=-8 * E18)
HORIZON = "its horizon of 30 days has passed"
NO_TERMS = "hedges are no longer configured"
BACK = "WETH is back in its band"
FUNDING = "its funding exceeds the cost of the sale"


@pytest.mark.parametrize(
    ("step", "hedge", "reason"),
    [
        pytest.param(hedge_step_after(TERMS.horizon_s), OPEN, "", id="open hedge"),
        pytest.param(step_with_hedge(), replace(OPEN, at_s=NOW_S - TERMS.horizon_s), HORIZON, id="at the end of its horizon"),
        pytest.param(step_with_hedge(), replace(OPEN, at_s=NOW_S - TERMS.horizon_s + 1), "", id="a second earlier"),
        pytest.param(hedge_step_after(0, policy=replace(HEDGING, hedge_policy=None)), OPEN, NO_TERMS, id="no terms"),
        pytest.param(step_with_hedge(), replace(OPEN, token=WBTC), "its asset is not in the portfolio", id="no asset"),
        pytest.param(step_with_hedge(weth=70_000, usdc=50_000), OPEN, BACK, id="excess of half of the hedge"),
        pytest.param(step_with_hedge(weth=70_001, usdc=50_000), OPEN, "", id="a dollar more"),
        pytest.param(step_with_hedge(-8, weth=55_000, usdc=35_000, hedge=LARGE), LARGE, BACK, id="at the top of the band"),
        pytest.param(step_with_hedge(-8, weth=55_001, usdc=34_999, hedge=LARGE), LARGE, "", id="a dollar above the band"),
        pytest.param(step_with_hedge(pending=2_500), OPEN, "", id="pending funding of the sale's cost"),
        pytest.param(step_with_hedge(pending=2_501), OPEN, FUNDING, id="more pending funding"),
        pytest.param(step_with_hedge(-10, 5_000), OPEN, "", id="its half of the funding"),
        pytest.param(step_with_hedge(-10, 5_002), OPEN, FUNDING, id="more than its half"),
        pytest.param(step_with_hedge(-4, 2_500), OPEN, "", id="all funding of a smaller position"),
        pytest.param(step_with_hedge(-4, 2_501), OPEN, FUNDING, id="more of a smaller position"),
        pytest.param(step_with_hedge(10, 9_000), OPEN, "", id="funding of a long"),
        pytest.param(step_with_hedge(-10, -9_000), OPEN, "", id="pending income"),
        pytest.param(
            step_with_hedge(funding_daily=Fraction(-1, 100)), replace(OPEN, at_s=NOW_S - 5 * DAY_S), "", id="expected funding at the cost"
        ),
        pytest.param(
            step_with_hedge(funding_daily=Fraction(-1, 100)), replace(OPEN, at_s=NOW_S - 5 * DAY_S + 1), FUNDING, id="a second more"
        ),
        pytest.param(step_with_hedge(pending=2_501, funding_daily=Fraction(1, 100)), OPEN, FUNDING, id="income expected, funding pending"),
        pytest.param(with_policy(hedge_step_after(TERMS.horizon_s), None), OPEN, "", id="no futures"),
        pytest.param(with_snapshot(hedge_step_after(TERMS.horizon_s), futures=None), OPEN, "", id="unknown account"),
    ],
)  # fmt: skip
def test_unwind_reason_is_the_rule_that_ends_a_hedge(step: StepInput, hedge: Hedge, reason: str) -> None:
    """A hedge of 10,000 whose sale would have cost 2,500; a hundredth of it a day for 25 days is as much."""
    assert unwind_reason(step, current_drifts(step), hedge) == reason


DUE = hedge_step_after(TERMS.horizon_s)


def test_hedge_closing_decision_closes_the_first_due_hedge() -> None:
    reason = "futures: the hedge of WETH is closed: its horizon of 30 days has passed"

    assert hedge_closing_decision(DUE, current_drifts(DUE)) == AdjustFutures(reason, is_reducing=True, closed_hedge_market="ETH")


@pytest.mark.parametrize(
    ("step", "is_due"),
    [
        pytest.param(step_with_hedge(hedge=replace(OPEN, at_s=NOW_S - TERMS.horizon_s), index_s=NOW_S - 600), True, id="index at its age"),
        pytest.param(step_with_hedge(hedge=replace(OPEN, at_s=NOW_S - TERMS.horizon_s), index_s=NOW_S - 601), False, id="index too old"),
        pytest.param(hedge_step_after(0), False, id="no rule holds"),
        pytest.param(hold_futures(DUE, "a guard refused"), False, id="layer on hold"),
        pytest.param(with_policy(DUE, None), False, id="no futures"),
        pytest.param(with_snapshot(DUE, futures=None), False, id="unknown account"),
    ],
)
def test_hedge_closing_decision_needs_a_due_hedge_and_its_index(step: StepInput, is_due: bool) -> None:
    assert (hedge_closing_decision(step, current_drifts(step)) is not None) is is_due


DUE_BTC = Hedge("BTC", WBTC, -(10**17), NOW_S - TERMS.horizon_s, Fraction(1))


def step_with_two(history: dict[str, Any], **eth: Any) -> StepInput:
    """Return a step whose hedges of WETH and WBTC are due, with a changed market of ETH."""
    bitcoin = replace(market("BTC", 30_000), asset=WBTC, index_s=NOW_S - 60)
    margin_account = hedge_account(10_000, -6 * E18, **eth)
    positions = (*margin_account.positions, Position("BTC", -(10**17), 3_000 * E18))
    margin_account = replace(margin_account, positions=positions, markets=(*margin_account.markets, bitcoin))
    hedges = (replace(OPEN, at_s=NOW_S - TERMS.horizon_s), DUE_BTC)
    return overweight_step(margin_account, hedges=hedges, weth=70_000, **history)


FAILED_LATELY = {"failed_exits": (ExitFailures("ETH", 5, 0, NOW_S),)}


@pytest.mark.parametrize(
    ("step", "closed_market"),
    [
        pytest.param(step_with_two({}), "ETH", id="both possible"),
        pytest.param(step_with_two({}, is_paused=True), "BTC", id="paused"),
        pytest.param(step_with_two({}, is_isolated=True), "BTC", id="isolated"),
        pytest.param(step_with_two({}, min_notional_raw=10**6 * E18), "BTC", id="below the minimum"),
        pytest.param(step_with_two(FAILED_LATELY), "BTC", id="backs off"),
        pytest.param(step_with_hedge(hedge=replace(OPEN, at_s=NOW_S - TERMS.horizon_s), is_paused=True), "ETH", id="paused alone"),
    ],
)
def test_blocked_hedge__keeps_no_other_due_hedge_open(step: StepInput, closed_market: str) -> None:
    decision = hedge_closing_decision(step, current_drifts(step))
    assert decision is not None
    assert decision.closed_hedge_market == closed_market
