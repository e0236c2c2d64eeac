"""Tests of agent/layers/futures/execution/resting_orders.py: what of an evaluation ends orders that rest."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.resting_orders import end_reasons
from agent.model.futures import FuturesPlan, PerpOrderKind, RestingOrder
from agent.planning.proposals import propose_rebalance
from tests.support.builders import NOW_S
from tests.support.perpetuals.accounts import E18
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY, step_of

CLOID = "0x01"
RESTING = replace(EMPTY, resting_orders=(RestingOrder("ETH", 10 * E18, 10 * E18, Fraction(2_000), NOW_S - 60, CLOID),))
STEP = step_of(RESTING, replace(FUTURES_POLICY, order_kind=PerpOrderKind.LIMIT, order_time_s=3_600))


def outcome_of(
    trigger: str = "drift",
    *,
    is_reducing: bool = False,
    has_orders: bool = True,
    kind: OutcomeKind = OutcomeKind.PLANNED,
    exit_token: str = "",
) -> StepOutcome:
    """Return the outcome of a step in which an order rests that leads to the targets."""
    proposal = propose_rebalance(step_of(EMPTY))
    layer_plan = replace(proposal.plan.layer(FuturesPlan), trigger=trigger, is_reducing=is_reducing)
    plan = proposal.plan.with_layer(layer_plan if has_orders else replace(layer_plan, orders=()))
    return StepOutcome("s", kind, "a fault", STEP, replace(proposal.decision_result, exit_token=exit_token), plan)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        pytest.param(outcome_of("leverage", is_reducing=True), "positions are reduced", id="reduction"),
        pytest.param(outcome_of("", is_reducing=True), "positions are reduced", id="reduction without a trigger"),
        pytest.param(outcome_of("leverage", is_reducing=True, has_orders=False), "", id="deposit"),
        pytest.param(outcome_of("leverage"), "", id="no reduction"),
        pytest.param(outcome_of("drift", is_reducing=True), "", id="reduction to the targets"),
        pytest.param(outcome_of("funding", is_reducing=True), "", id="reduction for funding"),
        pytest.param(outcome_of(kind=OutcomeKind.HALT), "a fault", id="halt"),
        pytest.param(outcome_of(exit_token="0xWETH"), "an exit is due", id="exit"),
        pytest.param(replace(outcome_of(), plan=None), "", id="no plan"),
    ],
)
def test_end_reasons_are_halts_exits_and_reductions(outcome: StepOutcome, reason: str) -> None:
    assert end_reasons(outcome, [CLOID]) == ({CLOID: reason} if reason else {})
    assert end_reasons(outcome, []) == {}


def test_end_reasons_of_the_account_count_otherwise() -> None:
    step = step_of(RESTING, FUTURES_POLICY)

    assert end_reasons(replace(outcome_of(), step_input=step), [CLOID]) == {CLOID: "futures.order_type is ioc"}
