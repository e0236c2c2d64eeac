"""Tests of agent/layers/liquidity/planning/requests.py: the withdrawal of all liquidity for the shutdown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.errors import Refused
from agent.layers.liquidity.planning.requests import plan_full_withdrawal
from agent.model import ExternalTransfer, Halt, OrderKind, OrdersConfig, Plan, StepInput, Withdraw
from tests.support.builders import NOW_S, with_history, with_snapshot
from tests.support.lp_worlds import USD, lp_target, paired, ranged, v2_at, world
from tests.support.standing_orders import terms

LIQUIDITY = world([ranged(800, 1_800, 2_200, 1), paired(500)], [lp_target(900)])


def with_unexplained_transfer(step: StepInput) -> StepInput:
    transfer = ExternalTransfer(1, step.portfolio.numeraire.address, 1, Fraction(5_000 * USD), 1, 2, NOW_S, True, None)
    return with_history(step, unexplained_transfers=(transfer,))


def with_order(step: StepInput) -> StepInput:
    return replace(step, portfolio=replace(step.portfolio, orders=OrdersConfig((terms("WETH", OrderKind.STOP_LOSS, 2_100),))))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(LIQUIDITY, id="below its share"),
        pytest.param(with_history(LIQUIDITY, stop_reason="a stop"), id="stopped"),
        pytest.param(with_unexplained_transfer(LIQUIDITY), id="unexplained transfer"),
        pytest.param(replace(LIQUIDITY, exclusions=replace(LIQUIDITY.exclusions, exits_only_reason="exits only")), id="exits only"),
        pytest.param(with_order(LIQUIDITY), id="an order"),
    ],
)
def test_full_withdrawal_takes_all_out_of_every_position(step: StepInput) -> None:
    plan = plan_full_withdrawal(step)

    assert isinstance(plan, Plan)
    withdrawals = [action for action in plan.layer_actions if isinstance(action, Withdraw)]
    assert len(withdrawals) == len(plan.layer_actions) == 2
    assert all(withdrawal.liquidity == withdrawal.position_liquidity for withdrawal in withdrawals)


def test_full_withdrawal_is_refused_while_the_pool_is_off() -> None:
    pushed = Fraction(11, 10)

    assert isinstance(plan_full_withdrawal(world([paired(500, v2_at(pushed))], pushed=pushed)), Refused)


def test_full_withdrawal_halts_while_a_position_is_unknown() -> None:
    assert isinstance(plan_full_withdrawal(with_snapshot(LIQUIDITY, positions=())), Halt)


def test_full_withdrawal_is_none_without_liquidity() -> None:
    assert plan_full_withdrawal(world()) is None
    assert plan_full_withdrawal(world([ranged(1, 1_800, 2_200, liquidity=0)])) is None
