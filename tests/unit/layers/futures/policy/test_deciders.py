"""Tests of agent/layers/futures/policy/deciders.py: futures in a decision, before and after the spot portfolio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent.layers.futures.policy.deciders import close_hedges, escape_liquidation, open_positions, reduce_positions, reduce_without_prices
from agent.layers.futures.policy.needs import ORDER_GAS
from agent.layers.futures.state import with_policy
from agent.model import AdjustFutures, Exclusions, Halt, Hold, StepInput, TopUp
from agent.policy import native_coin
from agent.policy.decision import DecisionContext, DecisionResult
from agent.reference import reference_prices
from tests.support.builders import NOW_S, with_feed, with_history, with_limits, with_snapshot
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.hedges import TERMS, hedge_step_after
from tests.support.perpetuals.steps import EMPTY, OVER, book, step_of

NEAR = step_of(book(1_300, 10 * E18))
"""Near its liquidation."""
TOO_LARGE = step_of(OVER)
DUE_HEDGE = hedge_step_after(TERMS.horizon_s)
STOP = "stopped by the owner"
NEAR_REASON = "futures: liquidation is near"
LEVERAGE_REASON = "futures: leverage is above its limit"


def context_of(step: StepInput) -> DecisionContext:
    return DecisionContext(step, reference_prices(step))


def without_price(step: StepInput) -> StepInput:
    """Return the step whose feed of WETH has stopped."""
    return with_feed(step, "WETH", updated_at_s=NOW_S - 10**6)


def behind_store(step: StepInput) -> StepInput:
    """Return the step whose block is older than the store's newest rebalance, a fault of the chain."""
    return with_history(step, last_rebalance_s=NOW_S + 10_000)


def short_of_gas(step: StepInput, spare_wei: int = -1) -> StepInput:
    """Return a step with the gas of one order and this more, which tops up below one coin."""
    order_wei = native_coin.gas_cost_with_margin_wei(step.snapshot, ORDER_GAS)
    return with_limits(with_snapshot(step, native_wei=order_wei + spare_wei), native_floor_wei=E18, native_top_up_wei=2 * E18)


def reason_of(decision_result: DecisionResult | None) -> str:
    return "" if decision_result is None else decision_result.decision.reason


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(without_price(TOO_LARGE), LEVERAGE_REASON, id="limit without a price"),
        pytest.param(without_price(NEAR), NEAR_REASON, id="emergency without a price"),
        pytest.param(behind_store(TOO_LARGE), "", id="limit beside a fault of the chain"),
        pytest.param(behind_store(NEAR), NEAR_REASON, id="emergency beside a fault of the chain"),
        pytest.param(without_price(step_of(EMPTY)), "", id="opening without a price"),
        pytest.param(with_history(without_price(NEAR), stop_reason=STOP), "", id="stopped"),
        pytest.param(with_policy(NEAR, None), "", id="no futures"),
    ],
)
def test_reduce_without_prices_needs_an_ignorable_fault(step: StepInput, reason: str) -> None:
    assert reason_of(reduce_without_prices(context_of(step))) == reason


@pytest.mark.parametrize(
    ("step", "decision_type"),
    [
        pytest.param(NEAR, AdjustFutures, id="near liquidation"),
        pytest.param(short_of_gas(NEAR, 0), AdjustFutures, id="gas of one order"),
        pytest.param(short_of_gas(NEAR), TopUp, id="a wei less"),
        pytest.param(TOO_LARGE, type(None), id="limit alone"),
        pytest.param(with_history(NEAR, stop_reason=STOP), type(None), id="stopped"),
    ],
)
def test_escape_liquidation_tops_up_gas_only_below_one_order(step: StepInput, decision_type: type) -> None:
    decision_result = escape_liquidation(context_of(step))

    assert isinstance(None if decision_result is None else decision_result.decision, decision_type)


@pytest.mark.parametrize(
    ("decide", "step", "reason"),
    [
        pytest.param(reduce_positions, TOO_LARGE, LEVERAGE_REASON, id="limit"),
        pytest.param(reduce_positions, step_of(EMPTY), "", id="opening"),
        pytest.param(reduce_positions, with_history(TOO_LARGE, stop_reason=STOP), "", id="limit, stopped"),
        pytest.param(reduce_positions, with_policy(TOO_LARGE, None), "", id="no futures"),
        pytest.param(close_hedges, DUE_HEDGE, "futures: the hedge of WETH is closed: its horizon of 30 days has passed", id="hedge"),
        pytest.param(close_hedges, hedge_step_after(0), "", id="hedge that stays"),
        pytest.param(close_hedges, with_history(DUE_HEDGE, stop_reason=STOP), "", id="hedge, stopped"),
        pytest.param(close_hedges, with_policy(DUE_HEDGE, None), "", id="hedge without futures"),
    ],
)
def test_deciders_reduce_and_close_unless_stopped(
    decide: Callable[[DecisionContext], DecisionResult | None], step: StepInput, reason: str
) -> None:
    assert reason_of(decide(context_of(step))) == reason


@pytest.mark.parametrize("decide", [reduce_positions, close_hedges], ids=["limit", "hedge"])
def test_deciders_top_up_gas_first(decide: Callable[[DecisionContext], DecisionResult | None]) -> None:
    decision_result = decide(context_of(short_of_gas(TOO_LARGE if decide is reduce_positions else DUE_HEDGE, 0)))

    assert isinstance(decision_result.decision, TopUp)


OPENING = step_of(EMPTY)
DRIFT_REASON = "futures: a weight of the notional has left its band; spot: calm"


@pytest.mark.parametrize(
    ("step", "decision", "reason"),
    [
        pytest.param(OPENING, Hold("calm"), DRIFT_REASON, id="opening"),
        pytest.param(OPENING, Halt("calm", ()), "calm", id="halted"),
        pytest.param(TOO_LARGE, Hold("calm"), "calm", id="reduction, which others decide"),
        pytest.param(with_history(OPENING, is_stopped=True), Hold("calm"), "calm", id="failures stop"),
        pytest.param(with_history(OPENING, reverts_in_row=3), Hold("calm"), "calm", id="reverts stop"),
        pytest.param(replace(OPENING, exclusions=Exclusions(exits_only_reason="no price")), Hold("calm"), "calm", id="exits alone"),
        pytest.param(with_policy(OPENING, None), Hold("calm"), "calm", id="no futures"),
    ],
)
def test_open_positions_replace_a_hold_of_spot(step: StepInput, decision: Any, reason: str) -> None:
    decision_after = open_positions(step, DecisionResult(decision, (), reference_prices(step))).decision

    assert decision_after.reason == reason
    assert isinstance(decision_after, AdjustFutures) is (reason == DRIFT_REASON)


def test_open_positions_top_up_gas_first() -> None:
    decision_after = open_positions(short_of_gas(OPENING, 0), DecisionResult(Hold("calm"), (), reference_prices(OPENING))).decision

    assert isinstance(decision_after, TopUp)
    assert decision_after.reason.endswith("; spot: calm")
