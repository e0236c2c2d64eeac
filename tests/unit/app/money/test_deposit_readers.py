"""What an investment reads of the wallet before and after its deposits are recorded: only rises that nobody confirmed stay out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest

from agent.app.money.transfers import InvestmentReport, _deposit_readers
from agent.model import CashFlows, ExternalTransfer, History, Snapshot, StepInput
from tests.support.builders import raw, step_input
from tests.support.tokens import USDC


@dataclass(frozen=True)
class FakeReaders:
    """Readers of which an investment changes the assembly alone."""

    assemble: Callable[[Snapshot, History], StepInput]


def rise(coins: int, number: int) -> ExternalTransfer:
    value = raw(coins, USDC)
    return ExternalTransfer(number, USDC.address, value, Fraction(value), 1, 2, 3, True, None)


def step_with(*transfers: ExternalTransfer) -> StepInput:
    """A step whose unexplained rises are those of these transfers."""
    step = step_input({"WETH": 5_000, "USDC": 5_000}, {"USDC": 1_100})
    rise_raw = sum(external.delta_raw for external in transfers)
    cash_flows = CashFlows(unexplained_transfers=transfers, unexplained_increases_raw=((USDC.address, rise_raw),))
    return replace(step, history=replace(step.history, cash_flows=cash_flows))


@pytest.mark.parametrize("number", [pytest.param(7, id="numbered"), pytest.param(0, id="not yet numbered")])
def test_rise_of_a_deposit_counts__before_it_is_recorded(number: int) -> None:
    deposit = rise(100, number)
    assert _excluded_raw(deposit, step_with(deposit, rise(400, 8))) == raw(400, USDC)


def test_rise_of_another__stays_out_after_the_deposit_is_recorded() -> None:
    deposit = rise(100, 7)
    assert _excluded_raw(deposit, step_with(rise(400, 8))) == raw(400, USDC)


def _excluded_raw(deposit: ExternalTransfer, step: StepInput) -> int:
    """The rise that an investment of this deposit leaves out of a step, base units of USDC."""
    readers: Any = FakeReaders(lambda *_: step)
    report = InvestmentReport(step, (deposit,), None)
    assembled_step = _deposit_readers(readers, report).assemble(step.snapshot, step.history)
    return dict(assembled_step.history.cash_flows.excluded_increases_raw)[USDC.address]
